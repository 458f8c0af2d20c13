"""`Unmerged`: the newest vectors of a namespace, which are not in its graph yet.

They are in one array that grows in place, and a search compares the query with all of them. New
writes are appended to the array, so a reader reads every vector from the ledger only once. If the
namespace has a graph, short codes of the vectors are compared first (`unmerged_codes`). Otherwise
they are not used: loading numba takes as long as hundreds of searches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from idiolect.search.diskann.metric import Metric
    from idiolect.search.store.unmerged_codes import UnmergedCodes

__all__ = ["Unmerged"]

_GATHER = 0.25  # fraction of the vectors below which copying them is faster than scoring all
_BLOCK = 4096  # vectors copied or subtracted at once
_CODED = 2000  # number of vectors from which codes are faster


class _Buffer:
    """Arrays shared by all states of the vectors; only the newest state writes to them."""

    def __init__(self, size: int, dimensions: int) -> None:
        self.rows = np.empty(size, np.int64)
        self.vectors = np.empty((size, dimensions), np.float32)
        self._codes: UnmergedCodes | None = None

    def codes(self) -> UnmergedCodes:
        """Return the codes of the vectors."""
        if self._codes is None:
            from idiolect.search.store.unmerged_codes import UnmergedCodes

            self._codes = UnmergedCodes(*self.vectors.shape)
        return self._codes


@dataclass(frozen=True)
class Unmerged:
    """One state of the vectors. Later states share the array: `append` only writes beyond it."""

    rows: NDArray[np.int64]  # (m,) ledger rows, ascending
    vectors: NDArray[np.float32]  # (m, d), normalized for the cosine metric
    alive: NDArray[np.bool_]  # (m,)
    _buffer: _Buffer

    @classmethod
    def empty(cls, dimensions: int) -> Unmerged:
        """Return no vectors."""
        buffer = _Buffer(0, dimensions)
        return cls(buffer.rows, buffer.vectors, np.empty(0, bool), buffer)

    def __len__(self) -> int:
        """Return the number of vectors that are not deleted."""
        return int(self.alive.sum())

    def without(self, deleted: NDArray[np.int64]) -> Unmerged:
        """Return the state after rows were deleted; unknown rows are skipped."""
        places = np.searchsorted(self.rows, deleted)
        places = places[places < len(self.rows)]
        alive = self.alive.copy()
        alive[places[np.isin(self.rows[places], deleted)]] = False
        return Unmerged(self.rows, self.vectors, alive, self._buffer)

    def after(self, row: int) -> Unmerged:
        """Return the vectors of rows above `row` in a new array."""
        kept = np.flatnonzero(self.alive & (self.rows > row))
        empty = Unmerged.empty(self.vectors.shape[1])
        return empty.append(self.rows[kept], self.vectors[kept])

    def append(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> Unmerged:
        """Return the state after rows were added; their numbers are above all others."""
        kept, added = len(self.rows), len(rows)
        buffer, alive = self._buffer, self.alive
        if kept + added > len(buffer.rows):
            live = np.flatnonzero(alive)
            kept = len(live)
            buffer = _Buffer(2 * (kept + added), vectors.shape[1])
            buffer.rows[:kept], buffer.vectors[:kept] = self.rows[live], self.vectors[live]
            alive = np.ones(kept, bool)
        end = kept + added
        buffer.rows[kept:end], buffer.vectors[kept:end] = rows, vectors
        alive = np.concatenate([alive, np.ones(added, bool)])
        return Unmerged(buffer.rows[:end], buffer.vectors[:end], alive, buffer)

    def search(
        self,
        query: NDArray[np.float32],
        metric: Metric,
        k: int,
        chosen: NDArray[np.bool_] | None,
        *,
        coded: bool = False,
    ) -> list[tuple[int, float]]:
        """Return the k best (row, score) in any order.

        Args:
            query: (d,).
            metric: the metric of the scores.
            k: number of results.
            chosen: (m,) the rows to search, by default those that are not deleted.
            coded: whether to compare codes first. The results are the same; it loads numba.
        """
        places = np.flatnonzero(self.alive if chosen is None else chosen)
        if coded and len(places) > max(k, _CODED, _GATHER * len(self.rows)):
            codes = self._buffer.codes()
            places = codes.candidates(self.vectors, query, metric, k, places)
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

    This avoids `vectors @ query`, which starts the threads of the BLAS library. If other processes
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
