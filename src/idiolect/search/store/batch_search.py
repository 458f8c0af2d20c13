"""Exhaustive search for a batch of queries, by matrix products.

One product of many queries with a block of vectors takes a fraction of the time of separate
products for each query, since every vector is read only once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from idiolect.search.diskann.metric import Metric

__all__ = ["best_rows"]

_BLOCK = 4096  # vectors compared at once
_MAX_SCORES = 1 << 22  # scores held at once


def best_rows(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
    rows: NDArray[np.int64],
    mask: NDArray[np.bool_],
    metric: Metric,
    k: int,
) -> list[list[tuple[int, float]]]:
    """Return the k best (row, score) of each query in any order, larger being better.

    Args:
        queries: (q, d); like the vectors, normalized for the cosine metric.
        vectors: (m, d).
        rows: (m,) the row number of each vector.
        mask: (m,) the vectors to search.
        metric: the metric of the scores.
        k: number of results per query.
    """
    places = np.flatnonzero(mask)
    if not len(places):
        return [[] for _ in queries]
    rows = rows[places]
    step = max(1, _MAX_SCORES // len(places))
    found = []
    for start in range(0, len(queries), step):
        for scores in _scores(queries[start : start + step], vectors, places, metric):
            best = np.argpartition(-scores, k - 1)[:k] if k < len(scores) else slice(None)
            found.append(list(zip(rows[best].tolist(), scores[best].tolist(), strict=True)))
    return found


def _scores(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
    places: NDArray[np.intp],
    metric: Metric,
) -> NDArray[np.float32]:
    """Return the scores (q, places) of some vectors."""
    everything = len(places) == len(vectors)
    scores = np.empty((len(queries), len(places)), np.float32)
    for start in range(0, len(places), _BLOCK):
        part = slice(start, start + _BLOCK)
        block = vectors[part if everything else places[part]]
        if metric == "l2":
            for own, query in zip(scores, queries, strict=True):
                difference = block - query
                own[part] = -np.einsum("nd,nd->n", difference, difference)
        else:
            scores[:, part] = queries @ block.T
    return scores
