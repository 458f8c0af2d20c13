"""`Index`: texts that are found by meaning and by words; an encoder and a store together.

What is notable:

- Building is the same as adding: an item that is there with the same text and metadata is passed
  over, so a build that was killed resumes when it is started again, and a second run does nothing.
- The index stores which encoder made its vectors. Vectors of different encoders cannot be compared,
  so another encoder is refused.

>>> index = Index.build("products", encoder, [Item("p1", "a red lamp")])   # doctest: +SKIP
>>> index.search("crimson light")                                          # doctest: +SKIP
[Hit(id='p1', score=0.01639, text='a red lamp', metadata={}, highlight='')]
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from idiolect.errors import ConfigError, InputError
from idiolect.search.fusion import Fusion, choose_weights, diversify, fuse
from idiolect.search.items import Hits, Item, check_count, check_text
from idiolect.search.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from idiolect.encoding.encoder import Encoder
    from idiolect.encoding.text_reader import EncodingCounts
    from idiolect.search.store.any_store import AnyStore

__all__ = ["Index", "Mode"]

Mode = Literal["hybrid", "dense", "lexical"]

_AT_ONCE = 512  # items encoded and written together
_DEEPER = 5  # candidates for one result wanted, where they are chosen from for variety
_DEPTH = 100
"""Candidates of each ranking that hybrid joins. Scores are brought to 0..1 among these, so that the
first results do not depend on how many are asked for, nor a weight's meaning."""


class Index:
    """Items with texts, found by meaning and by words.

    Args:
        store: where the items are.
        encoder: what made or will make their vectors; without one there are only words, and
            `similar`.
        encoding_counts: added to by everything that is encoded; without it, texts that are cut or
            empty are logged as a warning.

    Raises:
        ConfigError: the vectors were made by another encoder.
    """

    def __init__(
        self,
        store: AnyStore,
        encoder: Encoder | None = None,
        *,
        encoding_counts: EncodingCounts | None = None,
    ) -> None:
        self.store = store
        self.encoder = encoder
        self.encoding_counts = encoding_counts
        self.counts = Counter[str]()
        if encoder is None:
            return
        made_by = store.settings.get("encoder")
        if made_by is None:
            if any(store.namespaces().values()):
                raise ConfigError(
                    "the store holds vectors and does not say which encoder made them",
                    hint="search it with vectors, or build an index of its items",
                )
            store.remember(encoder=encoder.fingerprint)
        elif made_by != encoder.fingerprint and not any(store.namespaces().values()):
            store.remember(encoder=encoder.fingerprint)
        elif made_by != encoder.fingerprint:
            raise ConfigError(
                f"the index was made by encoder {made_by[:12]}…, this is"
                f" {encoder.fingerprint[:12]}…",
                hint="use the one it was made by, or build the index again in another folder",
            )

    @classmethod
    def build(
        cls,
        path: str | Path,
        encoder: Encoder,
        items: Iterable[Item],
        *,
        dimensions: int | None = None,
        namespace: str = "",
        source: str | None = None,
        progress: bool = False,
        encoding_counts: EncodingCounts | None = None,
    ) -> Self:
        """Build an index of items, or resume one; memory is bounded.

        Args:
            path: its folder.
            encoder: makes the vectors.
            items: a stream; of two items with one id the later one stays.
            dimensions: keep only so many of each vector (Matryoshka encoders).
            namespace: where the items go.
            source: where the encoder can be loaded from, to be remembered.
            progress: show progress on a terminal.
            encoding_counts: as of `Index`.

        Returns:
            The index, open; its `counts` say what was done.

        Raises:
            ConfigError: there is an index, made by another encoder.
            InputError: an item cannot be stored; those before it are.
        """
        width = dimensions or encoder.dimensions
        # Merged once at the end: inserting piece by piece would take longer.
        store = Store.open(path, dimensions=width, background=False)
        with cls(store, encoder, encoding_counts=encoding_counts) as index:
            if source is not None:
                index.store.remember(source=source)
            counts = index.add(items, namespace=namespace, progress=progress)
            index.store.merge()
        made = cls.open(path, encoder, encoding_counts=encoding_counts)
        made.counts = counts
        return made

    @classmethod
    def open(
        cls,
        path: str | Path,
        encoder: Encoder | None = None,
        *,
        encoding_counts: EncodingCounts | None = None,
    ) -> Self:
        """Open an index that was built; close it, or use it as a context.

        Raises:
            InputError: there is none.
            ConfigError: it was made by another encoder.
        """
        return cls(Store.open(path), encoder, encoding_counts=encoding_counts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def add(
        self, items: Iterable[Item], *, namespace: str = "", progress: bool = False
    ) -> Counter[str]:
        """Add or replace items, and make their vectors where text or vector are new.

        Args:
            items: a stream; of two items with one id the later one stays.
            namespace: where they go.
            progress: show progress on a terminal.

        Returns:
            How many were `written`, `unchanged`, or left out because their text is `empty` to the
            encoder: nothing could find them, and what stood there under their ids is deleted.

        Raises:
            InputError: an item cannot be stored; those before it are.
        """
        counts = Counter[str]()
        for batch in _shown(_batches(items), progress):
            counts += self._add(list({item.id: item for item in batch}.values()), namespace)
        return counts

    def _add(self, batch: list[Item], namespace: str) -> Counter[str]:
        old = self.store.fetch((item.id for item in batch), namespace=namespace)
        changed = [
            item
            for item in batch
            if (before := old.get(item.id)) is None
            or (before.text, before.metadata) != (item.text, item.metadata)
        ]
        for item in changed:
            check_text(item)
        known = self.store.fetch(
            [item.id for item in changed if item.id in old and old[item.id].text == item.text],
            namespace=namespace,
            vectors=True,
        )
        vectors = self._encode([item.text for item in changed if item.id not in known], "document")
        made = iter(vectors)
        ready = [
            replace(item, vector=known[item.id].vector if item.id in known else next(made))
            for item in changed
        ]
        kept = [item for item in ready if item.vector is not None and item.vector.any()]
        self.store.upsert(kept, namespace=namespace)
        left = {item.id for item in kept}
        gone = [item.id for item in changed if item.id in old and item.id not in left]
        if gone:  # what they were is not what they are
            self.store.delete(gone, namespace=namespace)
        return Counter(
            written=len(kept),
            unchanged=len(batch) - len(changed),
            empty=len(changed) - len(kept),
        )

    def search(
        self,
        text: str,
        top_k: int = 10,
        *,
        mode: Mode = "hybrid",
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
        fusion: Fusion | None = None,
        weights: tuple[float, float] | None = None,
        mmr_diversity: float = 0.0,
        highlight: tuple[str, str] | None = None,
    ) -> Hits:
        """Find the k items that answer a text best, best first.

        Args:
            text: the query.
            top_k: how many, 1 to 10,000.
            mode: `dense` by vectors (the score is a cosine), `lexical` by words (BM25), or
                `hybrid`, both joined (see `idiolect.search.fusion.fuse`).
            filter: see `idiolect.search.filters`.
            namespace: where to search.
            fusion: how hybrid joins: `reciprocal` or `weighted`; by default as `fit_fusion` found,
                or reciprocal where it was not asked.
            weights: of meaning and of words in hybrid.
            mmr_diversity: 0 to 1; how much results should differ from one another.
            highlight: strings to put before and after the query's words in `Hit.highlight`.

        Raises:
            InputError: the mode is unknown, or k, filter or variety is bad.
            ConfigError: there is no encoder, and the mode needs one.
        """
        if mode not in get_args(Mode):
            raise InputError(f"unknown mode {mode!r}", hint=f"known: {', '.join(get_args(Mode))}")
        wanted = check_count(top_k)
        if mmr_diversity:
            wanted = min(max(_DEEPER * top_k, _DEPTH), 10_000)
        elif mode == "hybrid":
            wanted = max(top_k, _DEPTH)
        where: dict[str, Any] = {"filter": filter, "namespace": namespace}
        if mode == "hybrid":
            method, usual = self.fusion if fusion is None else (fusion, None)
            sides = (
                self._dense(text, wanted, where),
                self._lexical(text, wanted, highlight, where),
            )
            hits = fuse(sides, method=method, weights=weights or usual)
        elif mode == "dense":
            hits = self._dense(text, wanted, where)
        else:
            hits = self._lexical(text, wanted, highlight, where)
        if mmr_diversity:
            found = self.store.fetch((hit.id for hit in hits), namespace=namespace, vectors=True)
            vectors = {id: item.vector for id, item in found.items() if item.vector is not None}
            hits = diversify(hits, vectors, top_k, mmr_diversity)
        return hits[:top_k]

    @property
    def fusion(self) -> tuple[Fusion, tuple[float, float] | None]:
        """How hybrid joins where a search does not say: the method, and the weights."""
        share = self.store.settings.get("meaning")
        if share is None:
            return "reciprocal", None
        return "weighted", (int(share) / 100, 1 - int(share) / 100)

    def fit_fusion(
        self, answers: Mapping[str, Collection[str]], *, namespace: str = ""
    ) -> tuple[float, float]:
        """Fit the weights of hybrid search to queries with known answers, and store them.

        Args:
            answers: queries with the ids of the items that answer them; ones the encoder was
                trained on would make meaning look better than it is.
            namespace: where to search.

        Returns:
            The weights of meaning and of words; see `choose_weights`.

        Raises:
            InputError: there are no queries.
            ConfigError: there is no encoder.
        """
        where: dict[str, Any] = {"filter": None, "namespace": namespace}
        weights = choose_weights(
            (
                self._dense(query, _DEPTH, where),
                self._lexical(query, _DEPTH, None, where),
                right,
            )
            for query, right in answers.items()
        )
        self.store.remember(meaning=round(100 * weights[0]))
        return weights

    def similar(
        self,
        item_id: str,
        top_k: int = 10,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
    ) -> Hits:
        """Find the k items nearest to an item, itself left out; no encoder is needed.

        Raises:
            InputError: there is no such item, or k or the filter is bad.
        """
        check_count(top_k)
        found = self.store.fetch([item_id], namespace=namespace, vectors=True)
        if item_id not in found:
            raise InputError(f"no item {item_id!r}", hint="is it in another namespace?")
        vector = found[item_id].vector
        assert vector is not None
        hits = self.store.query(vector, min(top_k + 1, 10_000), filter=filter, namespace=namespace)
        return [hit for hit in hits if hit.id != item_id][:top_k]

    def _dense(self, text: str, k: int, where: Mapping[str, Any]) -> Hits:
        (vector,) = self._encode([text], "query")
        return self.store.query(vector, k, **where) if vector.any() else []

    def _lexical(
        self, text: str, k: int, highlight: tuple[str, str] | None, where: Mapping[str, Any]
    ) -> Hits:
        return self.store.match(text, k, marks=highlight, **where)

    def _encode(self, texts: list[str], kind: str) -> NDArray[np.float32]:
        if self.encoder is None:
            raise ConfigError(
                "without an encoder there is no meaning to search by",
                hint="open the index with its encoder, or use mode='lexical'",
            )
        width = self.store.dimensions
        shorter = None if width == self.encoder.dimensions else width
        return self.encoder.encode(
            texts, prompt_name=kind, dimensions=shorter, counts=self.encoding_counts
        )


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    stream = iter(items)
    while batch := list(islice(stream, _AT_ONCE)):
        yield batch


def _shown(batches: Iterator[list[Item]], progress: bool) -> Iterator[list[Item]]:
    """Yield batches and report progress on standard error."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:,} items  {task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=not progress
    ) as bar:
        task = bar.add_task("", total=None, rate=0.0)
        for batch in batches:
            yield batch
            shown = bar.tasks[task]
            seconds = shown.elapsed or 1.0
            bar.update(task, advance=len(batch), rate=(shown.completed + len(batch)) / seconds)
