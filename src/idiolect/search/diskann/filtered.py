"""Searches that may return only some rows: those a filter keeps, or those not deleted.

The walk goes through rows of both kinds and collects only those of the right one, so a filter
cannot cut the graph into islands. It ends when nothing in sight is nearer than the worst of `width`
rows collected. The rarer such rows are, and the farther from the query, the longer it walks; where
it has cost as much as looking at every kept row would, it gives up and the caller does that.
"""

from __future__ import annotations

import numpy as np

from idiolect.search.diskann.beam import collect, insert, pack, row_of
from idiolect.search.diskann.codes import code_room, estimate, prepare_query
from idiolect.search.diskann.graph_search import next_tag, rank
from idiolect.search.diskann.jit import kernel

__all__ = ["search_kept"]


@kernel
def _push(heap, size, key):  # type: ignore[no-untyped-def]
    """Add to a heap whose smallest is first."""
    place = size
    while place > 0:
        parent = (place - 1) >> 1
        if heap[parent] <= key:
            break
        heap[place] = heap[parent]
        place = parent
    heap[place] = key


@kernel
def _pop(heap, size):  # type: ignore[no-untyped-def]
    """Take the smallest from a heap of `size`."""
    smallest, key = heap[0], heap[size - 1]
    place, child = 0, 1
    while child < size - 1:
        if child + 1 < size - 1 and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[place] = heap[child]
        place, child = child, 2 * child + 1
    heap[place] = key
    return smallest


@kernel
def _walk(  # type: ignore[no-untyped-def]
    codes,
    lines,
    bits,
    side,
    weight,
    neighbours,
    hubs,
    entry,
    query,
    scale,
    keep,
    pool,
    heap,
    seen,
    tag,
):
    """Collect the nearest kept rows in `pool`; returns their number, or -1 where `heap` is full."""
    fresh = np.empty(neighbours.shape[1] + hubs.shape[1], np.int32)
    fresh[0] = entry
    seen[entry] = tag
    count, size, waiting, met = 1, 0, 0, 0
    width = pool.shape[0]
    while True:
        met += count
        if met > heap.shape[0]:
            return -1
        for j in range(count):
            other = np.int64(fresh[j])
            distance = -estimate(codes, other, lines, bits, query, scale)
            if weight != 0:
                distance -= weight * side[other]
            key = pack(distance, other)
            if size == width and key >= pool[size - 1]:
                continue
            _push(heap, waiting, key)
            waiting += 1
            if other < keep.shape[0] and keep[other]:  # rows may be inserted meanwhile
                insert(pool, size, key)
                size = min(size + 1, width)
        if waiting == 0:
            return size
        key = _pop(heap, waiting)
        waiting -= 1
        if size == width and key >= pool[size - 1]:
            return size
        here = row_of(key)
        count = collect(neighbours[here], seen, tag, fresh, 0, codes, lines)
        count = collect(hubs[here], seen, tag, fresh, count, codes, lines)


@kernel
def search_kept(  # type: ignore[no-untyped-def]
    vectors, codes, bits, step, side, metric, neighbours, hubs, entry, queries, width, keep, effort,
    seen, ids, scores,
):  # fmt: skip
    """Answer queries from kept rows; `ids[i, 0] == -2` marks those that took more than `effort`.

    `effort` is the number of rows a query may look at.
    """
    lines = codes.shape[1] // 64
    code = code_room(lines, bits)
    pool = np.empty(width, np.int64)
    heap = np.empty(effort, np.int64)
    best = np.empty(ids.shape[1], np.int64)
    weight = np.float32(1) if metric == 2 else np.float32(0)
    for i in range(queries.shape[0]):
        scale = prepare_query(queries[i], step, bits, code)
        size = _walk(
            codes.ctypes.data, lines, bits, side, weight, neighbours, hubs, entry,
            code.ctypes.data, scale, keep, pool, heap, seen, next_tag(seen),
        )  # fmt: skip
        if size < 0:
            ids[i, 0] = -2
        else:
            rank(vectors, metric, queries[i], pool, size, best, ids[i], scores[i])
