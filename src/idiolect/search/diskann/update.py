"""Deleting for good: rows are taken out of the graph and the hole is closed.

A deleted row first only stops being found; searches still walk through it. A merge then gives
each row that points at deleted ones their neighbours to choose from instead (FreshDiskANN, Singh et
al. 2021, algorithm 4) and frees the deleted rows for new vectors. It works on a copy of the graph,
so searches go on meanwhile.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from idiolect.search.diskann.build import BuildPlan
from idiolect.search.diskann.graph_rows import GraphRows
from idiolect.search.diskann.hubs import attract
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.prune import choose, sort_candidates
from idiolect.search.diskann.threads import Crew

__all__ = ["repaired"]


@kernel
def _repair(vectors, neighbours, alive, alpha, start, stop, out):  # type: ignore[no-untyped-def]
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
            keys = sort_candidates(vectors.ctypes.data, wide, row, candidates, count)
            choose(vectors.ctypes.data, wide, row, keys, alpha, out[row])
        else:
            out[row, :count] = candidates[:count]


def repaired(rows: GraphRows, plan: BuildPlan, crew: Crew) -> GraphRows:
    """Return rows whose graph does not lead to deleted ones; those given are not changed."""
    neighbours = np.full_like(rows.neighbours, -1)
    alpha = np.float32(plan.alpha)
    crew.share(
        lambda a, b: _repair(rows.vectors, rows.neighbours, rows.alive, alpha, a, b, neighbours),
        rows.count,
        512,
    )
    hubs = rows.hubs.copy()
    dead = (hubs >= 0) & ~rows.alive[hubs]
    hubs[~rows.alive] = -1
    lost = np.flatnonzero(dead.any(1) & rows.alive)
    hubs[lost] = -1  # found anew below
    free = np.flatnonzero(~rows.alive[: rows.count])
    after = replace(rows, neighbours=neighbours, hubs=hubs, free=free, deleted=0)
    after.entry = after.centre()
    attract(after, lost, plan.width, crew)
    return after
