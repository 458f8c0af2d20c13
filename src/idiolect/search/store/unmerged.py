"""`Unmerged`: the newest vectors of a namespace, which are not in its graph yet.

They lie in one array that grows in place, and a search compares the query with all of them. Each
batch of writes adds to the array, so a reader reads every vector from the ledger once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from idiolect.search.diskann.metric import Metric

__all__ = ["Unmerged"]

_GATHER = 0.25  # fraction of the vectors below which copying them is faster than scoring all
_BLOCK = 4096  # vectors copied or subtracted at once


@dataclass(frozen=True)
class Unmerged:
    """One state of the vectors. Later states share the array: `append` only writes beyond it."""

    rows: NDArray[np.int64]  # (m,) ledger rows, ascending
    vectors: NDArray[np.float32]  # (m, d), normalized for the cosine metric
    alive: NDArray[np.bool_]  # (m,)
    _buffer: tuple[NDArray[np.int64], NDArray[np.float32]]

    @classmethod
    def empty(cls, dimensions: int) -> Unmerged:
        """Return no vectors."""
        rows, vectors = np.empty(0, np.int64), np.empty((0, dimensions), np.float32)
        return cls(rows, vectors, np.empty(0, bool), (rows, vectors))

    def __len__(self) -> int:
        """Return the number of vectors that are not deleted."""
        return int(self.alive.sum())

    def without(self, deleted: NDArray[np.int64]) -> Unmerged:
        """Return the state after rows were deleted; rows that are not here are skipped."""
        places = np.searchsorted(self.rows, deleted)
        places = places[places < len(self.rows)]
        alive = self.alive.copy()
        alive[places[np.isin(self.rows[places], deleted)]] = False
        return Unmerged(self.rows, self.vectors, alive, self._buffer)

    def after(self, row: int) -> Unmerged:
        """Return the vectors of rows above `row` in an array of their own."""
        kept = np.flatnonzero(self.alive & (self.rows > row))
        empty = Unmerged.empty(self.vectors.shape[1])
        return empty.append(self.rows[kept], self.vectors[kept])

    def append(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> Unmerged:
        """Return the state after rows were added; they are above all others."""
        kept, added = len(self.rows), len(rows)
        all_rows, all_vectors = self._buffer
        alive = self.alive
        if kept + added > len(all_rows):
            live = np.flatnonzero(alive)
            size = 2 * (len(live) + added)
            all_rows = np.empty(size, np.int64)
            all_vectors = np.empty((size, vectors.shape[1]), np.float32)
            kept = len(live)
            all_rows[:kept], all_vectors[:kept] = self.rows[live], self.vectors[live]
            alive = np.ones(kept, bool)
        end = kept + added
        all_rows[kept:end], all_vectors[kept:end] = rows, vectors
        alive = np.concatenate([alive, np.ones(added, bool)])
        return Unmerged(all_rows[:end], all_vectors[:end], alive, (all_rows, all_vectors))

    def search(
        self, query: NDArray[np.float32], metric: Metric, k: int, chosen: NDArray[np.bool_] | None
    ) -> list[tuple[int, float]]:
        """Return the k best (row, score) in any order, of the chosen rows or of all."""
        places = np.flatnonzero(self.alive if chosen is None else chosen)
        if len(places) > _GATHER * len(self.rows):
            scores = _scores(self.vectors, query, metric)[places]
        else:
            scores = np.empty(len(places), np.float32)
            for start in range(0, len(places), _BLOCK):
                part = slice(start, start + _BLOCK)
                scores[part] = _scores(self.vectors[places[part]], query, metric)
        best = np.argpartition(-scores, k - 1)[:k] if k < len(scores) else slice(None)
        rows = self.rows[places[best]]
        return list(zip(rows.tolist(), scores[best].tolist(), strict=True))


def _scores(
    vectors: NDArray[np.float32], query: NDArray[np.float32], metric: Metric
) -> NDArray[np.float32]:
    """Score vectors (m, d).

    `vectors @ query` would start the threads of the linear algebra library. Where other processes
    use the processors too, waiting for these threads takes a hundred times as long as the product.
    """
    if metric != "l2":
        products: NDArray[np.float32] = np.vecdot(vectors, query)
        return products
    scores = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), _BLOCK):
        difference = vectors[start : start + _BLOCK] - query
        scores[start : start + _BLOCK] = -np.vecdot(difference, difference)
    return scores
