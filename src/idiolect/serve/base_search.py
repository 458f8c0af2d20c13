"""`BaseSearch`: search of a run's items with its base model, for comparison with the trained one.

Only the vectors differ: lexical search and fusion weights are the same, so every difference in the
results is due to the vectors. The vectors are searched exhaustively, which limits the number of
items.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from idiolect.errors import IdiolectError
from idiolect.pipeline.data import Data
from idiolect.pipeline.encoder_choice import stored_vectors
from idiolect.pipeline.pipeline_config import PipelineConfig
from idiolect.pipeline.settings import SettingsTable, find_base
from idiolect.pipeline.stage import Work
from idiolect.pipeline.stage_models import load_untuned
from idiolect.pipeline.stages.index_stage import index_system
from idiolect.ranking.evaluation.baselines import Dense
from idiolect.search.fusion import fuse
from idiolect.search.items import Hit, Hits, Item

if TYPE_CHECKING:
    from idiolect.search.index import Index

__all__ = ["BaseSearch"]

_MOST = 10_000
"""Maximum number of items: the index can filter this many in one query."""
_DEPTH = 100
"""Candidates of each ranking in hybrid search, as in `Index.search`."""


class BaseSearch:
    """Searches the items of a run with its base model, which is loaded by the first search.

    Args:
        run: The run's folder.
        config: Its configuration.
        index: Its index.
    """

    def __init__(self, run: Path, config: Any, index: Index) -> None:
        self._run, self._config, self._index = run, config, index
        self._lock = threading.Lock()

    @classmethod
    def find(cls, run: Path, index: Index) -> BaseSearch | None:
        """Return the base search of a run.

        It is None if results cannot differ, files are missing, or there are too many items.
        """
        try:
            config = PipelineConfig.load(run / "idiolect.toml")
            Data(config.data, run.parent)
            if index_system(run) == "base" or len(index) > _MOST:
                return None
        except (IdiolectError, OSError):
            return None  # the base or the items were moved
        return cls(run, config, index)

    @property
    def label(self) -> str:
        """The name of the base model."""
        return Path(self._config.base).name

    def search(
        self, query: str, top_k: int, mode: str, *, filter: Mapping[str, Any] | None = None
    ) -> Hits:
        """Find the best items, best first; see `Index.search`."""
        if mode == "lexical":
            return self._index.search(query, top_k, "lexical", filter=filter)
        depth = max(top_k, _DEPTH)
        scores = self._scores(query, depth if filter is None else _MOST)
        found = self._passing(scores, filter)
        dense = [
            Hit(id, score, found[id].text, found[id].metadata)
            for id, score in scores.items()
            if id in found
        ][:depth]
        if mode == "dense":
            return dense[:top_k]
        words = self._index.search(query, depth, "lexical", filter=filter)
        method, weights = self._index.fusion
        complete = (False, len(words) < depth)
        return fuse([dense, words], method=method, weights=weights, complete=complete)[:top_k]

    def _scores(self, query: str, top_k: int) -> Mapping[str, float]:
        with self._lock:  # one search at a time uses the encoder
            return self._dense.search({"": query}, top_k).get("", {})

    def _passing(
        self, ids: Iterable[str], filter: Mapping[str, Any] | None
    ) -> Mapping[str, Item | Hit]:
        """Return the items that are still in the index and match the filter, if there is one."""
        store = self._index.store
        if filter is None:
            return store.fetch(list(ids))
        anywhere = np.ones(store.describe().dimensions, np.float32)
        return {hit.id: hit for hit in store.query(anywhere, _MOST, filter=filter)}

    @cached_property
    def _dense(self) -> Dense:
        stages = self._run / "stages"
        base = find_base(self._config.base, self._run.parent)
        work = Work(
            config=self._config,
            settings=SettingsTable(),
            data=Data(self._config.data, self._run.parent),
            base=base,
            model=base,
            done={"tune": stages / "tune"},
            folder=stages / "index",
        )
        known = stored_vectors(stages / "index", "base")
        return Dense(load_untuned(work, base), work.data.texts, vectors=known)
