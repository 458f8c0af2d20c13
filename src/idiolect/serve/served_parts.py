"""`ServedParts`: the open index and the loaded models of one version of a run.

When the run is rebuilt, new parts are opened, and the old ones are closed after their last request.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idiolect.encoding.encoder import Encoder
from idiolect.errors import IdiolectError
from idiolect.pipeline.pipeline_config import PipelineConfig
from idiolect.pipeline.settings import find_base
from idiolect.pipeline.stages.index_stage import index_encoder
from idiolect.search.index import Index
from idiolect.search.store.store import Store
from idiolect.serve.http_errors import RequestError
from idiolect.serve.served_folder import ServedFolder
from idiolect.serve.work.served_encoder import ServedEncoder
from idiolect.text.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from idiolect.generate.generator import Generator
    from idiolect.ranking.cross_encoder import CrossEncoder
    from idiolect.recommend.recommender import Recommender
    from idiolect.serve.base_search import BaseSearch
    from idiolect.serve.serve_settings import ServeSettings
    from idiolect.serve.work.token_batcher import BatchReport

__all__ = ["ServedParts"]


class ServedParts:
    """The index and models of one version of a run; parts that do not exist are None.

    Args:
        settings: What to serve.
        report: Called after each batch of the encoder.

    Raises:
        InputError: There is nothing to serve at the path.
        ConfigError: An encoder or another model is of the wrong kind.
    """

    def __init__(
        self, settings: ServeSettings, report: Callable[[BatchReport], None] = lambda report: None
    ) -> None:
        self.settings = settings
        self.folder = ServedFolder.find(settings.path)
        self.version = self.folder.version
        self.encoder: ServedEncoder | None = None
        self.index: Index | None = None
        self.reranker: CrossEncoder | None = None
        self._lock = threading.Lock()
        self._users, self._is_retired = 0, False
        self._store: Store | None = None
        try:
            self._open(settings, report)
        except BaseException:
            # The server may keep running with the version it had, so close what this one opened.
            self._close()
            raise

    def _open(self, settings: ServeSettings, report: Callable[[BatchReport], None]) -> None:
        loaded: Encoder | None = None
        if self.folder.index is not None:
            merges = settings.writer and not settings.read_only
            self._store = Store.open(self.folder.index, background=merges)
            self.index = Index(self._store)
            loaded = self._index_encoder(self.index)
        elif settings.encoder is not None:
            loaded = Encoder.load(settings.encoder)
        else:
            loaded = self._load_model()
        if loaded is not None:
            self.encoder = ServedEncoder(loaded, settings, report)
            if self._store is not None:
                self.index = Index(self._store, self.encoder)  # type: ignore[arg-type]
        if settings.reranker is not None:
            from idiolect.ranking.cross_encoder import CrossEncoder

            self.reranker = CrossEncoder.load(settings.reranker)
        if settings.generator is not None:
            _ = self.generator

    def _index_encoder(self, index: Index) -> Encoder | None:
        given = self.settings.encoder
        if given is None and self.folder.kind == "run":
            given = str(index_encoder(Path(self.folder.path)))
        given = given or index.encoder_location
        return None if given is None else Encoder.load(given)

    def _load_model(self) -> Encoder | None:
        """Load a model according to its kind: cross-encoder, language model, or encoder."""
        from idiolect.encoding.encoder_layout import LAYOUT_FILES, EncoderLayout
        from idiolect.models.language_model import LanguageModel
        from idiolect.ranking.cross_encoder import CrossEncoder
        from idiolect.text.hub import locate

        layout = EncoderLayout.read(locate(self.folder.path, LAYOUT_FILES))
        if layout is None:
            model = LanguageModel.load(self.folder.path)
            if "sequence" in model.network.config.tasks:
                self.reranker = CrossEncoder(model)
                return None
            if model.network.kind != "bidirectional" and model.network.has_language_head:
                return None  # it is the generator
        return Encoder.load(self.folder.path)

    @cached_property
    def generator_source(self) -> str | None:
        """Location of the language model; None if there is none."""
        if self.settings.generator is not None:
            return self.settings.generator
        if self.folder.kind == "model":
            return None if self.encoder or self.reranker else self.folder.path
        return self.folder.language_model

    @cached_property
    def has_generator(self) -> bool:
        """Whether there is a language model, which may not be loaded yet."""
        return self.generator_source is not None

    @cached_property
    def generator(self) -> Generator | None:
        """The language model, loaded on first use; None if there is none."""
        from idiolect.generate.generator import Generator

        if self.generator_source is None:
            return None
        generator = Generator(self.generator_source)
        generator.share(batch_size=self.settings.generations, tokens=self.settings.text_tokens)
        return generator

    @cached_property
    def recommender(self) -> Recommender | None:
        """The recommender, loaded on first use."""
        from idiolect.recommend.recommender import Recommender

        source = self.settings.recommender or self.folder.recommender
        return None if source is None else Recommender.load(source)

    @cached_property
    def vocabularies(self) -> tuple[Tokenizer, Tokenizer] | None:
        """The tokenizers of the base and of the run."""
        if self.folder.vocabularies is None:
            return None
        config, extended = self.folder.vocabularies
        try:
            base = PipelineConfig.load(config).base
            return (
                Tokenizer.load(find_base(base, config.parent.parent)),
                Tokenizer.load(extended),
            )
        except (IdiolectError, OSError):
            return None  # the base was moved

    @cached_property
    def base_search(self) -> BaseSearch | None:
        """Search with the run's base model, for comparison."""
        if self.folder.kind != "run" or self.index is None:
            return None
        from idiolect.serve.base_search import BaseSearch

        return BaseSearch.find(Path(self.folder.path), self.index)

    @property
    def systems(self) -> list[dict[str, str]]:
        """The systems to compare, oldest first: base and run; empty without a base search."""
        if self.base_search is None:
            return []
        return [
            {"name": "base", "label": f"Before: {self.base_search.label}"},
            {"name": "run", "label": "After: this run"},
        ]

    @property
    def model_name(self) -> str:
        """The model name that clients may send."""
        return os.path.basename(os.path.abspath(self.folder.path))

    @cached_property
    def abilities(self) -> dict[str, bool]:
        """The available capabilities, by name."""
        return {
            "search": self.index is not None,
            "encode": self.encoder is not None,
            "rerank": self.reranker is not None or self.encoder is not None,
            "generate": self.has_generator,
            "answer": self.index is not None,
            "recommend": self.recommender is not None,
            "audit": self.vocabularies is not None,
            "report": self.folder.report is not None,
            "write": self.index is not None and self.is_writable,
        }

    @property
    def is_writable(self) -> bool:
        """Whether the index may be written."""
        is_writable = self._store is None or self._store.is_writable
        return is_writable and not self.settings.read_only

    def check_model(self, name: str | None) -> None:
        """Check that a request is for the served model; a request without a name is.

        Raises:
            RequestError: It is for another model.
        """
        if name not in (None, "", "default", self.model_name):
            raise RequestError(
                404,
                f"the model {name!r} is not served here",
                hint=f"use {self.model_name!r}, or default",
            )

    def need(self, part: str) -> Any:
        """Return a part that a request needs.

        Raises:
            RequestError: The part does not exist.
        """
        found = getattr(self, part)
        if found is None:
            needs = {
                "index": "serve a run or an index",
                "encoder": "serve an encoder, a run or an index with one",
                "generator": "serve a language model, or start the server with --generator MODEL",
                "recommender": "start the server with --recommender DIR",
                "vocabularies": "serve a run whose base has not been moved",
            }
            raise RequestError(404, f"this server has no {part}", hint=needs[part])
        return found

    @contextmanager
    def in_use(self) -> Iterator[ServedParts]:
        """Keep the parts open during a request.

        They are closed in a thread of their own: that may take long, and the event loop must not.
        """
        with self._lock:
            self._users += 1
        try:
            yield self
        finally:
            with self._lock:
                self._users -= 1
                is_last = self._is_retired and not self._users
            if is_last:
                threading.Thread(target=self._close, name="closing").start()

    def merge_due(self) -> None:
        """Start merges that are due after writes of other workers, if this one merges."""
        if self._store is not None:
            self._store.merge_due()

    def retire(self) -> None:
        """Close the parts after their last request."""
        with self._lock:
            self._is_retired = True
            unused = not self._users
        if unused:
            self._close()

    def _close(self) -> None:
        if self.encoder is not None:
            self.encoder.close()
        if self._store is not None:
            self._store.close()
