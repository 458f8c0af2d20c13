"""Edges for inner products: from each row to its hubs, the rows with the largest inner product.

The largest inner products belong to long vectors, which may be far from the query. A graph of near
neighbours does not lead to them. Half of the edges of a row are therefore reserved for hubs, as in
ip-NSW+ (Liu et al. 2020): near neighbours give the direction, hubs lead to long vectors. Hubs are
found by searching the graph with each row as the query.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from idiolect.search.diskann.graph_rows import GraphRows
from idiolect.search.diskann.graph_search import next_tag
from idiolect.search.diskann.greedy_search import (
    candidate_row,
    greedy_search,
    insert_sorted,
    pack_candidate,
)
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.scalar_quantizer import allocate_query_code, quantize_query
from idiolect.search.diskann.simd import dot
from idiolect.search.diskann.thread_pool import ThreadPool, group_by_target

__all__ = ["connect_hubs"]

_CHUNK_POINTS = 32


@kernel
def _select_hubs(vectors, row, candidates, count, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the candidates with the largest inner product, largest first."""
    lines = vectors.shape[1] // 16
    base = vectors.ctypes.data
    best = np.empty(out.shape[0], np.int64)
    found = 0
    for j in range(count):
        other = np.int64(candidates[j])
        if other == row:
            continue
        key = pack_candidate(-dot(base + row * lines * 64, base + other * lines * 64, lines), other)
        known = False
        for i in range(found):
            known |= best[i] == key
        if not known:
            insert_sorted(best, found, key)
            found = min(found + 1, out.shape[0])
    for j in range(out.shape[0]):
        out[j] = candidate_row(best[j]) if j < found else -1


@kernel
def _find_hubs(  # type: ignore[no-untyped-def]
    vectors, codes, bits, step, norm_terms, alive, neighbours, hubs, entry, points,
    list_size, visited, chosen,
):  # fmt: skip
    """Find the hubs of each point by a graph search."""
    lines = codes.shape[1] // 64
    code = allocate_query_code(lines, bits)
    pool = np.empty(max(list_size, 2 * hubs.shape[1]), np.int64)
    candidates = np.empty(pool.shape[0], np.int32)
    expanded = np.empty(0, np.int32)
    for i in range(points.shape[0]):
        scale = quantize_query(vectors[points[i]], step, bits, code)
        size = greedy_search(
            codes.ctypes.data, lines, bits, norm_terms, np.float32(0), neighbours, hubs, entry,
            code.ctypes.data, scale, pool, visited, next_tag(visited), expanded,
        )  # fmt: skip
        count = 0
        for j in range(size):
            if alive[candidate_row(pool[j])]:
                candidates[count] = candidate_row(pool[j])
                count += 1
        _select_hubs(vectors, points[i], candidates, count, chosen[i])


@kernel
def _add_reverse_hubs(vectors, hubs, targets, starts, sources):  # type: ignore[no-untyped-def]
    """Select the hubs of each target from its hubs and the points that selected it."""
    degree = hubs.shape[1]
    for i in range(targets.shape[0]):
        count = starts[i + 1] - starts[i]
        candidates = np.empty(degree + count, np.int32)
        candidates[:count] = sources[starts[i] : starts[i + 1]]
        for other in hubs[targets[i]]:
            if other >= 0:
                candidates[count] = other
                count += 1
        _select_hubs(vectors, targets[i], candidates, count, hubs[targets[i]])


def connect_hubs(
    rows: GraphRows, points: NDArray[np.int64], list_size: int, pool: ThreadPool
) -> None:
    """Find the hubs of points, and consider each point as a hub of its own hubs.

    This does nothing for metrics other than inner product.
    """
    if not rows.hubs.shape[1]:
        return
    chosen = np.empty((len(points), rows.hubs.shape[1]), np.int32)

    def find(start: int, stop: int) -> None:
        visited = rows.visited_sets.acquire()
        _find_hubs(
            *rows.kernel_arrays, rows.alive, rows.neighbours, rows.hubs, rows.entry,
            points[start:stop], list_size, visited, chosen[start:stop],
        )  # fmt: skip
        rows.visited_sets.release(visited)

    pool.parallel_for(find, len(points), _CHUNK_POINTS)
    rows.hubs[points] = chosen
    targets, starts, sources = group_by_target(chosen, points)

    def offer(start: int, stop: int) -> None:
        part, bounds = targets[start:stop], starts[start : stop + 1]
        _add_reverse_hubs(rows.vectors, rows.hubs, part, bounds, sources)

    pool.parallel_for(offer, len(targets), 8 * _CHUNK_POINTS)
