"""Filtered search: search restricted to a mask of rows, which excludes deleted rows.

There are two methods. `scan_masked` compares the codes of all rows of the mask, and reranks the
best. Its cost does not depend on where the rows are, and its recall is that of a very large search
list.

`search_masked` is a greedy search. It expands rows inside and outside the mask but collects only
those inside, so a filter cannot disconnect the graph. It ends when no unexpanded row is nearer than
the worst of `list_size` collected rows. It takes longer if the rows of the mask are few or far from
the query. If it exceeds its budget, it stops, and the caller scans instead.

`prefers_graph` chooses between them by measured costs (see docs/disk.md).
"""

from __future__ import annotations

import numpy as np

from idiolect.search.diskann.graph_search import next_tag, rerank
from idiolect.search.diskann.greedy_search import (
    candidate_row,
    collect_unvisited,
    insert_sorted,
    pack_candidate,
)
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.scalar_quantizer import (
    allocate_query_code,
    estimate_product,
    prefetch_row,
    quantize_query,
)

__all__ = ["prefers_graph", "scan_masked", "search_masked"]

_VISIT_COST = 2
"""Cost of visiting a row in a greedy search, relative to a row of a scan."""
_AHEAD = 8
"""Number of rows by which a scan prefetches codes ahead."""


def prefers_graph(list_size: int, degree: int, kept: int, rows: int) -> bool:
    """Return whether a greedy search is expected to be faster than a scan of a mask.

    To collect `list_size` of the `kept` rows of the mask, a greedy search expands about
    `list_size * rows / kept` rows; about half of the neighbours of each are unvisited.
    """
    return _VISIT_COST * list_size * rows / kept * degree / 2 < kept


@kernel
def _push(heap, size, key):  # type: ignore[no-untyped-def]
    """Push onto a min-heap."""
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
    """Pop the smallest from a min-heap of `size`."""
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
def _greedy_search_masked(  # type: ignore[no-untyped-def]
    codes,
    lines,
    bits,
    norm_terms,
    weight,
    neighbours,
    hubs,
    entry,
    query,
    scale,
    mask,
    pool,
    heap,
    visited,
    tag,
):
    """Collect the nearest rows of the mask in `pool`; return their number, -1 if `heap` is full."""
    unvisited = np.empty(neighbours.shape[1] + hubs.shape[1], np.int32)
    unvisited[0] = entry
    visited[entry] = tag
    count, size, waiting, seen = 1, 0, 0, 0
    list_size = pool.shape[0]
    while True:
        seen += count
        if seen > heap.shape[0]:
            return -1
        for j in range(count):
            other = np.int64(unvisited[j])
            distance = -estimate_product(codes, other, lines, bits, query, scale)
            if weight != 0:
                distance -= weight * norm_terms[other]
            key = pack_candidate(distance, other)
            if size == list_size and key >= pool[size - 1]:
                continue
            _push(heap, waiting, key)
            waiting += 1
            if other < mask.shape[0] and mask[other]:  # later insertions exceed the mask
                insert_sorted(pool, size, key)
                size = min(size + 1, list_size)
        if waiting == 0:
            return size
        key = _pop(heap, waiting)
        waiting -= 1
        if size == list_size and key >= pool[size - 1]:
            return size
        row = candidate_row(key)
        count = collect_unvisited(neighbours[row], visited, tag, unvisited, 0, codes, lines)
        count = collect_unvisited(hubs[row], visited, tag, unvisited, count, codes, lines)


@kernel
def search_masked(  # type: ignore[no-untyped-def]
    vectors, codes, bits, step, norm_terms, metric, neighbours, hubs, entry, queries, list_size,
    mask, budget, visited, ids, scores,
):  # fmt: skip
    """Answer queries with rows of the mask.

    `budget` is the number of rows a query may visit; `ids[i, 0] == -2` marks queries that exceeded
    it.
    """
    lines = codes.shape[1] // 64
    code = allocate_query_code(lines, bits)
    pool = np.empty(list_size, np.int64)
    heap = np.empty(budget, np.int64)
    best = np.empty(ids.shape[1], np.int64)
    weight = np.float32(1) if metric == 2 else np.float32(0)
    for i in range(queries.shape[0]):
        scale = quantize_query(queries[i], step, bits, code)
        size = _greedy_search_masked(
            codes.ctypes.data, lines, bits, norm_terms, weight, neighbours, hubs, entry,
            code.ctypes.data, scale, mask, pool, heap, visited, next_tag(visited),
        )  # fmt: skip
        if size < 0:
            ids[i, 0] = -2
        else:
            rerank(vectors, metric, queries[i], pool, size, best, ids[i], scores[i])


@kernel
def scan_masked(  # type: ignore[no-untyped-def]
    vectors, codes, bits, step, norm_terms, metric, rows, queries, list_size, ids, scores
):
    """Answer queries by comparing the codes of all given rows and reranking the best.

    If there are at most `list_size` rows, the results are exact.
    """
    lines = codes.shape[1] // 64
    base = codes.ctypes.data
    code = allocate_query_code(lines, bits)
    pool = np.empty(list_size, np.int64)
    best = np.empty(ids.shape[1], np.int64)
    for i in range(queries.shape[0]):
        scale = quantize_query(queries[i], step, bits, code)
        size = 0
        for j in range(rows.shape[0]):
            if j + _AHEAD < rows.shape[0]:
                prefetch_row(base, rows[j + _AHEAD], lines)
            row = rows[j]
            distance = -estimate_product(base, row, lines, bits, code.ctypes.data, scale)
            if metric == 2:
                distance -= norm_terms[row]
            key = pack_candidate(distance, row)
            if size < list_size or key < pool[size - 1]:
                insert_sorted(pool, size, key)
                size = min(size + 1, list_size)
        rerank(vectors, metric, queries[i], pool, size, best, ids[i], scores[i])
