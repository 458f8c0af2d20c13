"""Search in memory: greedy search over codes, then exact reranking of its candidates."""

from __future__ import annotations

import numpy as np

from idiolect.search.diskann.greedy_search import (
    candidate_distance,
    candidate_row,
    greedy_search,
    insert_sorted,
    pack_candidate,
)
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.queries import allocate_query, load_query
from idiolect.search.diskann.scalar_quantizer import (
    allocate_query_code,
    prefetch_row,
    quantize_query,
)
from idiolect.search.diskann.simd import dot, squared_distance

__all__ = ["next_tag", "rerank", "search_graph", "write_results"]


@kernel
def next_tag(visited):  # type: ignore[no-untyped-def]
    """Return an unused tag. The last byte of `visited` has the last tag, which wraps after 255."""
    last = visited.shape[0] - 1
    if visited[last] == 255:
        visited[:] = 0
    visited[last] += 1
    return visited[last]


@kernel
def write_results(best, found, ids, scores):  # type: ignore[no-untyped-def]
    """Unpack candidates into row numbers and scores; pad with -1 and minus infinity."""
    for j in range(found):
        ids[j] = candidate_row(best[j])
        scores[j] = -candidate_distance(best[j])
    for j in range(found, best.shape[0]):
        ids[j] = -1
        scores[j] = -np.inf


@kernel
def rerank(vectors, metric, query, pool, size, best, ids, scores):  # type: ignore[no-untyped-def]
    """Write the best candidates of a list by exact score.

    `best` (int64, as long as the result) is a scratch buffer. The score is `query · x` for cosine
    and inner product, and the negated squared distance for L2. Results are padded with -1 and minus
    infinity.
    """
    lines = vectors.shape[1] // 16
    base = vectors.ctypes.data
    place = query.ctypes.data
    found = 0
    for j in range(min(2, size)):
        prefetch_row(base, candidate_row(pool[j]), lines)
    for j in range(size):
        if j + 2 < size:
            prefetch_row(base, candidate_row(pool[j + 2]), lines)
        row = candidate_row(pool[j])
        at = base + row * (lines * 64)
        distance = squared_distance(at, place, lines) if metric == 2 else -dot(at, place, lines)
        insert_sorted(best, found, pack_candidate(distance, row))
        found = min(found + 1, best.shape[0])
    write_results(best, found, ids, scores)


@kernel
def search_graph(  # type: ignore[no-untyped-def]
    vectors, codes, bits, step, norm_terms, metric, neighbours, hubs, entry, queries, list_size,
    visited, ids, scores,
):  # fmt: skip
    """Answer queries (q, dimension); `ids` and `scores` are (q, k).

    Return the first query that is not valid (see `load_query`), which ends the search, or -1.
    """
    lines = codes.shape[1] // 64
    code = allocate_query_code(lines, bits)
    pool = np.empty(list_size, np.int64)
    best = np.empty(ids.shape[1], np.int64)
    expanded = np.empty(0, np.int32)
    weight = np.float32(1) if metric == 2 else np.float32(0)
    query = allocate_query(vectors.shape[1])
    for i in range(queries.shape[0]):
        if not load_query(queries[i], metric == 0, query):
            return i
        scale = quantize_query(query, step, bits, code)
        size = greedy_search(
            codes.ctypes.data, lines, bits, norm_terms, weight, neighbours, hubs, entry,
            code.ctypes.data, scale, pool, visited, next_tag(visited), expanded,
        )  # fmt: skip
        rerank(vectors, metric, query, pool, size, best, ids[i], scores[i])
    return -1
