"""Deleting for good: rows are taken out of the graph and the hole is closed.

A deleted row first only stops being found; searches still walk through it. A merge then gives
each row that points at deleted ones their neighbours to choose from instead (FreshDiskANN, Singh et
al. 2021, algorithm 4) and frees the deleted rows for new vectors. It works on a copy of the graph,
so searches go on meanwhile.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.prune import choose, sort_candidates
from idiolect.search.diskann.rows import Rows
from idiolect.search.diskann.threads import Crew

__all__ = ["repaired"]


@kernel
def _repair(vectors, lift, neighbours, alive, alpha, start, stop, out):  # type: ignore[no-untyped-def]
    """Write rows start..stop-1 of the graph without deleted ones."""
    wide = vectors.shape[1] // 16
    degree = neighbours.shape[1]
    candidates = np.empty(degree * (degree + 1), np.int32)
    for row in range(start, stop):
        out[row] = -1
        if not alive[row]:
            continue
        count, lost = 0, False
        for near in neighbours[row]:
            if near < 0:
                break
            if alive[near]:
                candidates[count] = near
                count += 1
                continue
            lost = True
            for far in neighbours[near]:
                if far < 0:
                    break
                if alive[far]:
                    candidates[count] = far
                    count += 1
        if lost:
            keys = sort_candidates(vectors.ctypes.data, wide, lift, row, candidates, count)
            choose(vectors.ctypes.data, wide, lift, row, keys, alpha, out[row])
        else:
            out[row, :count] = candidates[:count]


def repaired(rows: Rows, alpha: float, crew: Crew) -> NDArray[np.int32]:
    """Return the graph without its deleted rows; nothing is changed."""
    out = np.full_like(rows.neighbours, -1)
    factor = np.float32(alpha)
    crew.share(
        lambda a, b: _repair(
            rows.vectors, rows.lift, rows.neighbours, rows.alive, factor, a, b, out
        ),
        rows.count,
        512,
    )
    return out
