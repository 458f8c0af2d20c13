"""Combine rankings, and diversify one: rank fusion and maximal marginal relevance (MMR).

BM25 scores and cosines have different scales. Reciprocal rank fusion (RRF, Cormack et al. 2009)
uses only the ranks. Weighted fusion scales the scores of each ranking to 0..1 and averages them, so
that the margins between scores count. Both give scores from 0 to 1.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from idiolect.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from idiolect.search.items import Hit, Hits

__all__ = ["Fusion", "diversify", "fuse"]

Fusion = Literal["rrf", "weighted"]
"""A fusion method: reciprocal rank fusion, or a weighted sum of scaled scores."""

_RRF_CONSTANT = 60  # as in the paper


def fuse(
    rankings: Sequence[Hits],
    *,
    method: Fusion = "rrf",
    weights: Sequence[float] | None = None,
    complete: Sequence[bool] | None = None,
) -> Hits:
    """Combine rankings of the same items into one, best first; the smaller id wins a tie.

    Args:
        rankings: each best first. An item that occurs twice in one counts at its first place.
        method: `rrf`, the mean of 61 / (60 + rank), or `weighted`, the mean of scores, each scaled
            to 0..1 within its ranking.
        weights: one for each ranking; equal by default. A ranking of weight 0 does not change the
            order of the others; items that only it has are appended, with the score 0.
        complete: whether each ranking contains all items with a score above 0. In `weighted`
            fusion, the scores of a complete ranking are scaled from 0 instead of from its lowest
            score, so that its last item is better than a missing one. By default, a ranking that is
            shorter than another is complete.

    Raises:
        InputError: the method is unknown, or a weight or a score is not valid.
    """
    if method not in get_args(Fusion):
        raise InputError(f"unknown fusion {method!r}", hint=f"known: {', '.join(get_args(Fusion))}")
    weights = [1.0] * len(rankings) if weights is None else list(weights)
    if len(weights) != len(rankings) or not all(0 <= w < float("inf") for w in weights):
        raise InputError(
            f"weights {weights} for {len(rankings)} rankings",
            hint="use one of 0 or more for each",
        )
    total = sum(weights) or 1.0
    rankings = [_distinct(ranking) for ranking in rankings]
    if complete is None:
        longest = max(map(len, rankings), default=0)
        complete = [len(ranking) < longest for ranking in rankings]
    scores: defaultdict[str, float] = defaultdict(float)
    hits: dict[str, Hit] = {}
    for weight, ranking, whole in zip(weights, rankings, complete, strict=True):
        parts = _reciprocal_ranks(ranking) if method == "rrf" else _scaled(ranking, complete=whole)
        for hit, part in zip(ranking, parts, strict=True):
            if weight:
                scores[hit.id] += weight / total * part
            known = hits.setdefault(hit.id, hit)
            if hit.highlight and not known.highlight:
                hits[hit.id] = hit
    joined = [replace(hits[id], score=score) for id, score in scores.items()]
    joined.sort(key=lambda hit: (-hit.score, hit.id))
    return joined + [replace(hit, score=0.0) for id, hit in hits.items() if id not in scores]


def diversify(
    hits: Hits, vectors: Mapping[str, NDArray[np.float32]], top_k: int, mmr_diversity: float
) -> Hits:
    """Choose k relevant and mutually dissimilar hits by MMR (Carbonell & Goldstein 1998).

    Repeatedly choose the hit with the largest `(1 - mmr_diversity) * relevance - mmr_diversity *
    similarity`. The relevance is the score, scaled to 0..1. The similarity is the largest cosine
    with a hit already chosen.

    Args:
        hits: candidates, best first.
        vectors: the vector (dimensions,) of each id; a hit without one has no similarity.
        top_k: the number of hits to choose.
        mmr_diversity: 0 keeps the order; 1 ignores relevance after the first hit.

    Returns:
        The chosen hits in the order of choice, with their original scores.

    Raises:
        InputError: `mmr_diversity` is not from 0 to 1.
    """
    if not 0 <= mmr_diversity <= 1:
        raise InputError(f"mmr_diversity is {mmr_diversity}", hint="use a number from 0 to 1")
    if not hits or not vectors:
        return hits[:top_k]
    relevance = np.array(_scaled(hits))
    width = len(next(iter(vectors.values())))
    matrix = np.stack([vectors.get(hit.id, np.zeros(width, np.float32)) for hit in hits])
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    matrix = np.divide(matrix, norms, out=np.zeros_like(matrix), where=norms > 0)
    redundancy = np.zeros(len(hits))
    chosen: list[int] = []
    left = np.ones(len(hits), bool)
    for _ in range(min(top_k, len(hits))):
        value = np.where(
            left, (1 - mmr_diversity) * relevance - mmr_diversity * redundancy, -np.inf
        )
        best = int(value.argmax())
        similarity = matrix @ matrix[best]
        redundancy = np.maximum(redundancy, similarity) if chosen else similarity
        chosen.append(best)
        left[best] = False
    return [hits[i] for i in chosen]


def _distinct(ranking: Hits) -> Hits:
    """Return the first hit of each item.

    Raises:
        InputError: a score is not finite.
    """
    first: dict[str, Hit] = {}
    for hit in ranking:
        if not math.isfinite(hit.score):
            raise InputError(f"the score of item {hit.id!r} is {hit.score}", hint="must be finite")
        first.setdefault(hit.id, hit)
    return list(first.values())


def _reciprocal_ranks(ranking: Hits) -> list[float]:
    return [(_RRF_CONSTANT + 1) / (_RRF_CONSTANT + rank) for rank in range(1, len(ranking) + 1)]


def _scaled(ranking: Hits, *, complete: bool = False) -> list[float]:
    """Scale scores to 0..1; if all are equal, all become 1."""
    if not ranking:
        return []
    scores = [hit.score for hit in ranking]
    low, high = min(scores), max(scores)
    if complete and low > 0:
        low = 0.0
    spread = high / 2 - low / 2  # halves, because the difference of two large floats is infinite
    return [(score / 2 - low / 2) / spread if spread > 0 else 1.0 for score in scores]
