"""Rankings joined into one, and made various: fusion and maximal marginal relevance.

BM25 scores and cosines live on different scales. Reciprocal-rank fusion (Cormack et al. 2009) only
asks at which place each ranking has an item; weighted fusion first brings the scores of each
ranking to 0..1, so that a clear winner counts for more than a narrow one.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from idiolect.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from idiolect.search.items import Hit, Hits

__all__ = ["Fusion", "choose_weights", "diversify", "fuse"]

Fusion = Literal["reciprocal", "weighted"]

_CONSTANT = 60  # of reciprocal ranks, as in the paper


def fuse(
    rankings: Sequence[Hits],
    *,
    method: Fusion = "reciprocal",
    weights: Sequence[float] | None = None,
) -> Hits:
    """Join rankings of the same items into one, best first; ties go to the smaller id.

    Args:
        rankings: each best first.
        method: `reciprocal`, the sum of weight / (60 + place), or `weighted`, the sum of weight
            times the score brought to 0..1 within its ranking.
        weights: of each ranking; equal by default.

    Raises:
        InputError: the method is unknown, or the weights do not fit.
    """
    if method not in get_args(Fusion):
        raise InputError(f"unknown fusion {method!r}", hint=f"known: {', '.join(get_args(Fusion))}")
    weights = [1.0] * len(rankings) if weights is None else list(weights)
    if len(weights) != len(rankings) or not all(0 <= w < float("inf") for w in weights):
        raise InputError(
            f"weights {weights} for {len(rankings)} rankings", hint="give one of 0 or more for each"
        )
    scores: defaultdict[str, float] = defaultdict(float)
    hits: dict[str, Hit] = {}
    for weight, ranking in zip(weights, rankings, strict=True):
        parts = _reciprocal(ranking) if method == "reciprocal" else _scaled(ranking)
        for hit, part in zip(ranking, parts, strict=True):
            scores[hit.id] += weight * part
            known = hits.setdefault(hit.id, hit)
            if hit.highlight and not known.highlight:
                hits[hit.id] = hit
    joined = [replace(hit, score=scores[id]) for id, hit in hits.items()]
    return sorted(joined, key=lambda hit: (-hit.score, hit.id))


def choose_weights(questions: Iterable[tuple[Hits, Hits, Collection[str]]]) -> tuple[float, float]:
    """Choose the weights of two rankings for weighted fusion, on questions with known answers.

    Of eleven shares from 0 to 1 the one with the highest mean reciprocal rank of the first right
    hit is taken; of equal ones, the nearest to a half.

    Args:
        questions: both rankings of each, and the ids that answer it.

    Raises:
        InputError: there are no questions.
    """
    shares = sorted((n / 10 for n in range(11)), key=lambda share: abs(share - 0.5))
    totals, asked = [0.0] * len(shares), 0
    for first, second, answers in questions:
        asked += 1
        for place, share in enumerate(shares):
            hits = fuse([first, second], method="weighted", weights=(share, 1 - share))
            ranks = (rank for rank, hit in enumerate(hits, 1) if hit.id in answers)
            totals[place] += 1 / next(ranks, float("inf"))
    if not asked:
        raise InputError("no questions to choose weights on", hint="give some with their answers")
    best = shares[totals.index(max(totals))]
    return best, round(1 - best, 1)


def diversify(
    hits: Hits, vectors: Mapping[str, NDArray[np.float32]], top_k: int, mmr_diversity: float
) -> Hits:
    """Choose k hits that are good and unlike one another (Carbonell & Goldstein 1998).

    One after the other, the hit with the largest `(1 - mmr_diversity) * relevance - mmr_diversity *
    likeness` is taken: its score brought to 0..1, and its largest cosine with those already taken.

    Args:
        hits: candidates, best first.
        vectors: (dimensions,) of each by its id; a hit without one is like nothing.
        top_k: how many to choose.
        mmr_diversity: 0 keeps the order, 1 asks for nothing but difference.

    Returns:
        The chosen ones in the order they were taken, with the scores they came with.

    Raises:
        InputError: variety is not from 0 to 1.
    """
    if not 0 <= mmr_diversity <= 1:
        raise InputError(
            f"mmr_diversity is {mmr_diversity}", hint="give 0 (none) to 1 (nothing else)"
        )
    if not hits or not vectors:
        return hits[:top_k]
    relevance = np.array(_scaled(hits))
    width = len(next(iter(vectors.values())))
    matrix = np.stack([vectors.get(hit.id, np.zeros(width, np.float32)) for hit in hits])
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    matrix = np.divide(matrix, norms, out=np.zeros_like(matrix), where=norms > 0)
    likeness = np.zeros(len(hits))
    chosen: list[int] = []
    left = np.ones(len(hits), bool)
    for _ in range(min(top_k, len(hits))):
        value = np.where(left, (1 - mmr_diversity) * relevance - mmr_diversity * likeness, -np.inf)
        best = int(value.argmax())
        similarity = matrix @ matrix[best]
        likeness = np.maximum(likeness, similarity) if chosen else similarity
        chosen.append(best)
        left[best] = False
    return [hits[i] for i in chosen]


def _reciprocal(ranking: Hits) -> list[float]:
    return [1 / (_CONSTANT + place) for place in range(1, len(ranking) + 1)]


def _scaled(ranking: Hits) -> list[float]:
    """Bring scores to 0..1; where all are equal, all are 1."""
    if not ranking:
        return []
    scores = [hit.score for hit in ranking]
    low, high = min(scores), max(scores)
    return [(score - low) / (high - low) if high > low else 1.0 for score in scores]
