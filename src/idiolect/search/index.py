"""`Index`: an encoder and a store together, for dense, lexical and hybrid search of texts.

- Building is adding: items that are stored with the same text and metadata are skipped. Run a
  killed build again to resume it.
- The index stores the fingerprint of its encoder. Vectors of different encoders cannot be compared,
  so another encoder is an error.

>>> index = Index.build("products", encoder, [Item("p1", "a red lamp")])   # doctest: +SKIP
>>> index.search("crimson light")                                          # doctest: +SKIP
[Hit(id='p1', score=1.0, text='a red lamp', metadata={}, highlight='')]
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from idiolect.errors import ConfigError, InputError
from idiolect.search.fusion import Fusion, diversify, fuse
from idiolect.search.hybrid_weight import HybridWeight, fit_weight
from idiolect.search.item_batches import read_batches
from idiolect.search.item_files import as_items
from idiolect.search.items import Hits, Item, check_count, check_item
from idiolect.search.metadata import encode_metadata, same_metadata
from idiolect.search.store.store import Store
from idiolect.search.tally import Tally
from idiolect.text.arguments import check_mapping, checked, load_if_named, wrong_type

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from idiolect.encoding.encoder import Encoder
    from idiolect.encoding.text_reader import EncodingCounts
    from idiolect.search.store.any_store import AnyStore

__all__ = ["Index", "Mode"]

Mode = Literal["hybrid", "dense", "lexical"]
"""How to search: by vectors (dense), by words (lexical, BM25), or by both (hybrid)."""

_MMR_FACTOR = 5  # candidates per result for diversification
_DEPTH = 100
"""Candidates of each ranking in hybrid search. Scores are scaled among these, so neither the first
results nor the effect of a weight depend on `top_k`."""


class Index:
    """A searchable collection of items.

    Args:
        store: holds the items and their vectors.
        encoder: computes vectors. Without one, only lexical search and `similar` are available.
        encoding_counts: counters that each encoding updates; without them, truncated and empty
            texts are logged as warnings.

    Raises:
        ConfigError: another encoder computed the vectors.
    """

    def __init__(
        self,
        store: AnyStore,
        encoder: Encoder | None = None,
        *,
        encoding_counts: EncodingCounts | None = None,
    ) -> None:
        encoder = None if encoder is None else _as_encoder(encoder)
        if not hasattr(store, "namespaces"):
            raise wrong_type(store, "store", "a store", "open an index with Index.open(path)")
        self.store = store
        self.encoder = encoder
        self.encoding_counts = encoding_counts
        self.counts = Counter[str]()
        if encoder is None:
            return
        stored = store.settings.get("encoder")
        if stored == encoder.fingerprint:
            return
        if not any(store.namespaces().values()):
            published = int(getattr(encoder, "published", True))
            store.remember(encoder=encoder.fingerprint, published=published)
        elif stored is None:
            raise ConfigError(
                "the store has vectors, but does not say which encoder computed them",
                hint="query the store with vectors, or build an index of its items",
            )
        else:
            raise ConfigError(
                f"the index was built with encoder {stored[:12]}…, this is"
                f" {encoder.fingerprint[:12]}…",
                hint="use that encoder, or build the index again in another folder",
            )

    @classmethod
    @checked
    def build(
        cls,
        path: str | Path,
        encoder: Encoder,
        items: Iterable[Item],
        *,
        dimensions: int | None = None,
        language: str | None = None,
        namespace: str = "",
        source: str | None = None,
        progress: bool = False,
        skip_invalid_metadata: bool = False,
        encoding_counts: EncodingCounts | None = None,
    ) -> Self:
        """Build an index of items, or resume building it, in bounded memory.

        Args:
            path: the folder of the index.
            encoder: computes the vectors.
            items: a stream; the last item with an id wins.
            dimensions: truncate vectors to this size (Matryoshka encoders).
            language: of the texts, by which lexical search stems words, such as `de`; English by
                default. See `idiolect.search.store.lexical_terms`.
            namespace: the namespace of the items.
            source: location of the encoder, stored in the index with the encoder's precision.
            progress: show progress on a terminal.
            skip_invalid_metadata: see `add`.
            encoding_counts: see `Index`.

        Returns:
            The open index; see its `counts` for the numbers of items.

        Raises:
            ConfigError: the folder has an index built with another encoder.
            InputError: an item is not valid; earlier batches are stored.
        """
        encoder = _as_encoder(encoder)
        width = dimensions or encoder.dimensions
        # Merge once at the end: many small insertions would take longer.
        store = Store.open(path, dimensions=width, language=language, background=False)
        with cls(store, encoder, encoding_counts=encoding_counts) as index:
            if source is not None:
                precision = getattr(encoder, "precision", "fp32")
                index.store.remember(source=source, precision=precision)
            counts = index.add(
                items,
                namespace=namespace,
                progress=progress,
                skip_invalid_metadata=skip_invalid_metadata,
            )
            index.store.merge()
        built = cls.open(path, encoder, encoding_counts=encoding_counts)
        built.counts = counts
        return built

    @classmethod
    @checked
    def open(
        cls,
        path: str | Path,
        encoder: Encoder | None = None,
        *,
        encoding_counts: EncodingCounts | None = None,
    ) -> Self:
        """Open an index. Close it, or use it as a context manager.

        Raises:
            InputError: the folder has no index.
            ConfigError: the index was built with another encoder.
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
        self,
        items: Iterable[Item],
        *,
        namespace: str = "",
        progress: bool = False,
        skip_invalid_metadata: bool = False,
    ) -> Counter[str]:
        """Add or replace items, and encode new and changed texts.

        Args:
            items: a stream of items, or of dicts with the fields of one; the last with an id wins.
            namespace: the namespace of the items.
            progress: show progress on a terminal.
            skip_invalid_metadata: leave out metadata fields that cannot be stored, such as NaN or
                bytes, instead of raising an error; see `idiolect.search.metadata`.

        Returns:
            The number of `written`, `unchanged`, `empty` and `duplicate` items, and of `left_out`
            metadata fields. An item is unchanged if its text and metadata are stored already (1,
            1.0 and true differ). An item is empty if the encoder finds no token in its text. It is
            not stored, and a stored item with its id is deleted. An item is a duplicate if an
            earlier one of this input has its id; each id is counted once among the others.
            Duplicates and what is left out are also logged as warnings.

        Raises:
            InputError: an item is not valid; earlier batches are stored.
        """
        tally = Tally()
        for batch in read_batches(as_items(items), progress=progress):
            for item in batch:
                check_item(item)
            distinct, _ = encode_metadata(
                tally.distinct(batch), tally.left_out if skip_invalid_metadata else None
            )
            for id, outcome in self._add(distinct, namespace).items():
                tally.record(id, outcome)
        return tally.finish()

    def _add(self, batch: list[Item], namespace: str) -> dict[str, str]:
        """Add checked items, and return the outcome of each id."""
        old = self.store.fetch((item.id for item in batch), namespace=namespace)
        changed = [
            item
            for item in batch
            if (before := old.get(item.id)) is None
            or before.text != item.text
            or not same_metadata(before.metadata, item.metadata)
        ]
        known = self.store.fetch(
            [item.id for item in changed if item.id in old and old[item.id].text == item.text],
            namespace=namespace,
            vectors=True,
        )
        vectors = self._encode([item.text for item in changed if item.id not in known], "document")
        new_vectors = iter(vectors)
        ready = [
            replace(item, vector=known[item.id].vector if item.id in known else next(new_vectors))
            for item in changed
        ]
        kept = [item for item in ready if item.vector is not None and item.vector.any()]
        self.store.upsert(kept, namespace=namespace)
        kept_ids = {item.id for item in kept}
        emptied = [item.id for item in changed if item.id in old and item.id not in kept_ids]
        if emptied:  # otherwise searches would find their old texts
            self.store.delete(emptied, namespace=namespace)
        outcomes = dict.fromkeys((item.id for item in batch), "unchanged")
        outcomes |= dict.fromkeys((item.id for item in changed), "empty")
        return outcomes | dict.fromkeys(kept_ids, "written")

    @checked
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
        """Find the k best items for a query, best first.

        Args:
            text: the query.
            top_k: the number of results, 1 to 10,000.
            mode: `dense` by vectors (the score is a cosine), `lexical` by words (BM25), or
                `hybrid`, the fusion of both (scores 0 to 1; see `idiolect.search.fusion.fuse`). If
                vectors have no weight, they only add items where words find fewer than `top_k`.
            filter: see `idiolect.search.filters`.
            namespace: where to search.
            fusion: the fusion method of hybrid search, `weighted` by default, or `rrf`.
            weights: of the dense and the lexical ranking; by default those of `hybrid_weight`, or
                equal ones with `rrf`.
            mmr_diversity: 0 to 1; how much the results should differ from one another.
            highlight: strings to insert before and after the matched words in `Hit.highlight`.

        Raises:
            InputError: the mode is unknown, or another argument is not valid.
            ConfigError: the mode needs an encoder and there is none.
        """
        if mode not in get_args(Mode):
            raise InputError(f"unknown mode {mode!r}", hint=f"known: {', '.join(get_args(Mode))}")
        if not isinstance(text, str):
            raise wrong_type(text, "the query", "a text", "search for one text at a time")
        if weights is not None and not _is_pair(weights, Real):
            hint = "for example (0.7, 0.3), of the dense and the lexical ranking"
            raise wrong_type(weights, "weights", "a tuple of two numbers", hint)
        if highlight is not None and not _is_pair(highlight, str):
            hint = "for example ('<b>', '</b>')"
            raise wrong_type(highlight, "highlight", "a tuple of two texts", hint)
        depth = check_count(top_k)
        if mmr_diversity:
            depth = min(max(_MMR_FACTOR * top_k, _DEPTH), 10_000)
        elif mode == "hybrid":
            depth = max(top_k, _DEPTH)
        scope: dict[str, Any] = {"filter": filter, "namespace": namespace}
        if mode == "hybrid":
            if weights is None and fusion != "rrf":
                weights = self.hybrid_weight.weights
            words = self.store.match(text, depth, marks=highlight, **scope)
            filled = len(words) >= top_k or self.encoder is None
            skip = filled and weights is not None and weights[0] == 0
            rankings = ([] if skip else self._dense(text, depth, scope), words)
            complete = (False, len(words) < depth)
            hits = fuse(rankings, method=fusion or "weighted", weights=weights, complete=complete)
        elif mode == "dense":
            hits = self._dense(text, depth, scope)
        else:
            hits = self.store.match(text, depth, marks=highlight, **scope)
        if mmr_diversity:
            found = self.store.fetch((hit.id for hit in hits), namespace=namespace, vectors=True)
            vectors = {id: item.vector for id, item in found.items() if item.vector is not None}
            hits = diversify(hits, vectors, top_k, mmr_diversity)
        return hits[:top_k]

    @property
    def hybrid_weight(self) -> HybridWeight:
        """The default weight of vectors in hybrid search, and what it is based on."""
        return HybridWeight.of(self.store.settings)

    @property
    def fusion(self) -> tuple[Fusion, tuple[float, float]]:
        """The default fusion method of hybrid search and its weights."""
        return "weighted", self.hybrid_weight.weights

    @checked
    def fit_fusion(
        self, answers: Mapping[str, Collection[str]], *, namespace: str = ""
    ) -> tuple[float, float]:
        """Fit the weights of hybrid search to queries with known answers, and store them.

        Args:
            answers: the ids of the relevant items of each query. Keep these queries and items out
                of the training of the encoder; otherwise the dense weight is too large.
            namespace: where to search.

        Returns:
            The weights of the dense and the lexical ranking; see
            `idiolect.search.hybrid_weight.fit_weight`, and `hybrid_weight` for the evidence.

        Raises:
            InputError: there are no queries.
            ConfigError: there is no encoder.
        """
        check_mapping(answers, "answers", "a dict of queries and their ids")
        scope: dict[str, Any] = {"filter": None, "namespace": namespace}
        rankings = (
            (self._dense(query, _DEPTH, scope), self.store.match(query, _DEPTH, **scope), relevant)
            for query, relevant in answers.items()
        )
        fitted = fit_weight(rankings, HybridWeight.default(self.store.settings), depth=_DEPTH)
        self.store.remember(dense_percent=round(100 * fitted.dense), dense_evidence=fitted.evidence)
        return fitted.weights

    @checked
    def similar(
        self,
        item_id: str,
        top_k: int = 10,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
    ) -> Hits:
        """Find the k items nearest to an item, without the item itself. This needs no encoder.

        Raises:
            InputError: the item does not exist, or `top_k` or the filter is not valid.
        """
        check_count(top_k)
        found = self.store.fetch([item_id], namespace=namespace, vectors=True)
        if item_id not in found:
            raise InputError(f"no item {item_id!r}", hint="check the namespace")
        vector = found[item_id].vector
        assert vector is not None
        hits = self.store.query(vector, min(top_k + 1, 10_000), filter=filter, namespace=namespace)
        return [hit for hit in hits if hit.id != item_id][:top_k]

    def _dense(self, text: str, k: int, scope: Mapping[str, Any]) -> Hits:
        (vector,) = self._encode([text], "query")
        return self.store.query(vector, k, **scope) if vector.any() else []

    def _encode(self, texts: list[str], prompt_name: str) -> NDArray[np.float32]:
        if self.encoder is None:
            raise ConfigError(
                "dense and hybrid search need an encoder",
                hint="open the index with its encoder, or use mode='lexical'",
            )
        width = self.store.dimensions
        truncated = None if width == self.encoder.dimensions else width
        return self.encoder.encode(
            texts, prompt_name=prompt_name, dimensions=truncated, counts=self.encoding_counts
        )


def _as_encoder(encoder: Any) -> Encoder:
    """Return an encoder; a name or path is loaded."""
    if hasattr(encoder, "dimensions") and hasattr(encoder, "fingerprint"):
        given: Encoder = encoder
        return given
    from idiolect.encoding.encoder import Encoder  # imports torch, which lexical search needs not

    return load_if_named(encoder, Encoder, "encoder")


def _is_pair(value: Any, kind: type) -> bool:
    two = isinstance(value, tuple | list) and len(value) == 2
    return two and all(isinstance(one, kind) for one in value)
