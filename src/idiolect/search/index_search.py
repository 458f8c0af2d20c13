"""`IndexSearch`: lexical, dense and hybrid search of an index."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, get_args

from idiolect.errors import InputError
from idiolect.search.fusion import Fusion, diversify, fuse
from idiolect.search.hybrid_weight import HybridWeight, fit_weight
from idiolect.search.index_contents import IndexContents
from idiolect.search.items import Hits, check_count
from idiolect.text.arguments import check_mapping, checked, list_of_texts, wrong_type
from idiolect.text.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["IndexSearch", "Mode"]

Mode = Literal["hybrid", "dense", "lexical"]
"""How to search: by vectors (dense), by words (lexical, BM25), or by both (hybrid)."""

_QUERIES = 256
"""Queries per batch; the candidates of a whole batch are in memory."""
_MMR_FACTOR = 5  # candidates per result for diversification
_DEPTH = 100
"""Candidates per ranking in hybrid search. Scores are scaled among these, regardless of `top_k`."""


class IndexSearch(IndexContents):
    """The items of an index, and searches of them."""

    def search(
        self,
        text: str,
        top_k: int = 10,
        mode: Mode = "hybrid",
        *,
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
                `hybrid`, the fusion of both (scores 0 to 1; see `idiolect.search.fusion.fuse`). In
                a hybrid search, dense search with weight 0 only fills up results if lexical search
                finds fewer than `top_k`. If all vectors came with the items, hybrid search is
                lexical search.
            filter: see `idiolect.search.filters`.
            namespace: the namespace to search.
            fusion: the fusion method of hybrid search, `weighted` by default, or `rrf`.
            weights: the weights of the dense and the lexical ranking; by default those of
                `hybrid_weight`, or equal ones with `rrf`.
            mmr_diversity: 0 to 1; how much the results should differ from one another.
            highlight: strings to insert before and after the matched words in `Hit.highlight`.

        Raises:
            InputError: the mode is unknown, or another argument is not valid.
            ConfigError: the mode needs an encoder and there is none.
        """
        if not isinstance(text, str):
            raise wrong_type(text, "the query", "a text", "search_many takes several")
        (hits,) = self.search_many(
            [text],
            top_k,
            mode,
            filter=filter,
            namespace=namespace,
            fusion=fusion,
            weights=weights,
            mmr_diversity=mmr_diversity,
            highlight=highlight,
        )
        return hits

    @checked
    def search_many(
        self,
        texts: Iterable[str],
        top_k: int = 10,
        mode: Mode = "hybrid",
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
        fusion: Fusion | None = None,
        weights: tuple[float, float] | None = None,
        mmr_diversity: float = 0.0,
        highlight: tuple[str, str] | None = None,
    ) -> Sequence[Hits]:
        """Find the k best items for each of several queries; faster than one search per query.

        Args:
            texts: the queries.
            top_k: the number of results of each query.
            mode: as in `search`.
            filter: as in `search`.
            namespace: as in `search`.
            fusion: as in `search`.
            weights: as in `search`.
            mmr_diversity: as in `search`.
            highlight: as in `search`.

        Returns:
            The hits of each query, best first.

        Raises:
            InputError: as in `search`.
            ConfigError: as in `search`.
        """
        if mode not in get_args(Mode):
            raise InputError(f"unknown mode {mode!r}", hint=did_you_mean(mode, get_args(Mode)))
        if weights is not None and not _is_pair(weights, Real):
            hint = "for example (0.7, 0.3), of the dense and the lexical ranking"
            raise wrong_type(weights, "weights", "a tuple of two numbers", hint)
        if highlight is not None and not _is_pair(highlight, str):
            hint = "for example ('<b>', '</b>')"
            raise wrong_type(highlight, "highlight", "a tuple of two texts", hint)
        if mode == "hybrid" and not self.has_encoder:
            mode = "lexical"
        depth = check_count(top_k)
        if mmr_diversity:
            depth = min(max(_MMR_FACTOR * top_k, _DEPTH), 10_000)
        elif mode == "hybrid":
            depth = max(top_k, _DEPTH)
        scope: dict[str, Any] = {"filter": filter, "namespace": namespace}
        queries, found = list_of_texts(texts), []
        for start in range(0, len(queries), _QUERIES):
            some = queries[start : start + _QUERIES]
            if mode == "dense":
                ranked = self._dense(some, depth, scope)
            else:
                marks = {"marks": highlight, **scope}
                ranked = [self.store.match(text, depth, **marks) for text in some]
            if mode == "hybrid":
                own = self.hybrid_weight.weights if fusion != "rrf" else None
                ranked = self._joined(some, ranked, top_k, depth, scope, fusion, weights or own)
            for hits in ranked:
                if mmr_diversity:
                    hits = self._diversified(hits, top_k, mmr_diversity, namespace)
                found.append(hits[:top_k])
        return found

    def _joined(
        self,
        texts: Sequence[str],
        words: Sequence[Hits],
        top_k: int,
        depth: int,
        scope: Mapping[str, Any],
        fusion: Fusion | None,
        weights: tuple[float, float] | None,
    ) -> Sequence[Hits]:
        """Fuse lexical with dense rankings; the latter are computed only where they are needed."""
        full = top_k if self._encoder.is_located else 0
        useless = weights is not None and weights[0] == 0
        places = [n for n, own in enumerate(words) if not (useless and len(own) >= full)]
        dense: list[Hits] = [[] for _ in texts]
        if places:
            vectors = self._dense([texts[n] for n in places], depth, scope)
            for place, hits in zip(places, vectors, strict=True):
                dense[place] = hits
        return [
            fuse(
                both,
                method=fusion or "weighted",
                weights=weights,
                complete=(False, len(both[1]) < depth),
            )
            for both in zip(dense, words, strict=True)
        ]

    def _diversified(self, hits: Hits, top_k: int, diversity: float, namespace: str) -> Hits:
        items = self.store.fetch((hit.id for hit in hits), namespace=namespace, vectors=True)
        vectors = {id: item.vector for id, item in items.items() if item.vector is not None}
        return diversify(hits, vectors, top_k, diversity)

    def search_vectors(
        self,
        vectors: ArrayLike,
        top_k: int = 10,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
    ) -> Sequence[Hits]:
        """Find the k items nearest to each of several vectors. This needs no encoder.

        Args:
            vectors: (queries, dimensions); one vector of (dimensions,) is one query.
            top_k: the number of results of each query, 1 to 10,000.
            filter: see `idiolect.search.filters`.
            namespace: where to search.

        Returns:
            The hits of each query, best first. The score depends on the metric of the store; it is
            the cosine by default.

        Raises:
            InputError: a vector has another width, is not finite, or is zero under cosine; or
                another argument is not valid.
        """
        return self.store.query_many(vectors, top_k, filter=filter, namespace=namespace)

    @property
    def hybrid_weight(self) -> HybridWeight:
        """The default weight of dense scores in hybrid search, and the evidence for it."""
        return HybridWeight.of(self.store.settings)

    @property
    def fusion(self) -> tuple[Fusion, tuple[float, float]]:
        """The default fusion method of hybrid search and its weights."""
        return "weighted", self.hybrid_weight.weights

    @checked
    def fit_fusion(
        self, answers: Mapping[str, Collection[str]], *, namespace: str = ""
    ) -> tuple[float, float]:
        """Fit the weights of hybrid search to queries with relevance judgements, and store them.

        Args:
            answers: the ids of the relevant items of each query. The encoder must not be trained on
                these; otherwise the dense weight is too large.
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
        dense = self._dense(list(answers), _DEPTH, scope)
        lexical = (self.store.match(query, _DEPTH, **scope) for query in answers)
        rankings = zip(dense, lexical, answers.values(), strict=True)
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
            near = did_you_mean(item_id, self.store.list(item_id[:2], namespace=namespace), "")
            hint = near if near.startswith("did") else "check the namespace"
            raise InputError(f"no item {item_id!r}", hint=hint)
        vector = found[item_id].vector
        assert vector is not None
        hits = self.store.query(vector, min(top_k + 1, 10_000), filter=filter, namespace=namespace)
        return [hit for hit in hits if hit.id != item_id][:top_k]

    def question_vector(self, text: str) -> NDArray[np.float32] | None:
        """Return the vector (dimensions,) of a query; None without an encoder."""
        return self._encode([text], "query")[0] if self.has_encoder else None

    def text_vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts as items are encoded. Shape: (texts, dimensions).

        Raises:
            ConfigError: there is no encoder.
        """
        return self._encode(texts, "document")

    def _dense(self, texts: Sequence[str], k: int, scope: Mapping[str, Any]) -> Sequence[Hits]:
        vectors = self._encode(texts, "query")
        known = [row for row, vector in enumerate(vectors) if vector.any()]
        found = dict(zip(known, self.store.query_many(vectors[known], k, **scope), strict=True))
        return [found.get(row, []) for row in range(len(texts))]  # no tokens: no hits


def _is_pair(value: Any, kind: type) -> bool:
    return isinstance(value, tuple | list) and [isinstance(v, kind) for v in value] == [True, True]
