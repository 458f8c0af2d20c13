"""Delete consolidation: remove deleted rows from the graph and reconnect their neighbours.

A deletion only excludes a row from results; searches still traverse it. Consolidation replaces
each edge to a deleted row with edges to the neighbours of that row, prunes, and frees the deleted
rows for new vectors (FreshDiskANN, Singh et al. 2021, algorithm 4). It writes a copy of the graph,
so searches continue meanwhile.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from idiolect.search.diskann.build import BuildConfig
from idiolect.search.diskann.graph_rows import GraphRows
from idiolect.search.diskann.hubs import connect_hubs
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.prune import robust_prune, sort_candidates
from idiolect.search.diskann.thread_pool import ThreadPool

__all__ = ["consolidate"]


@kernel
def _repair_rows(vectors, neighbours, alive, alpha, start, stop, out):  # type: ignore[no-untyped-def]
    """Write rows start..stop-1 of the graph, with edges to deleted rows replaced."""
    vector_lines = vectors.shape[1] // 16
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
            keys = sort_candidates(vectors.ctypes.data, vector_lines, row, candidates, count)
            robust_prune(vectors.ctypes.data, vector_lines, row, keys, alpha, out[row])
        else:
            out[row, :count] = candidates[:count]


def consolidate(rows: GraphRows, config: BuildConfig, pool: ThreadPool) -> GraphRows:
    """Return rows whose graph has no edges to deleted rows; `rows` is unchanged."""
    neighbours = np.full_like(rows.neighbours, -1)
    alpha = np.float32(config.alpha)
    pool.parallel_for(
        lambda a, b: _repair_rows(
            rows.vectors, rows.neighbours, rows.alive, alpha, a, b, neighbours
        ),
        rows.count,
        512,
    )
    hubs = rows.hubs.copy()
    dead = (hubs >= 0) & ~rows.alive[hubs]
    hubs[~rows.alive] = -1
    lost = np.flatnonzero(dead.any(1) & rows.alive)
    hubs[lost] = -1  # found again below
    free = np.flatnonzero(~rows.alive[: rows.count])
    result = replace(rows, neighbours=neighbours, hubs=hubs, free=free, deleted=0)
    result.entry = result.medoid()
    connect_hubs(result, lost, config.list_size, pool)
    return result
