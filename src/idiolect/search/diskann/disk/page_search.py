"""Beam search on disk: codes in memory choose the nodes to read, and the vectors read rank them.

The search list is that of `greedy_search`, ordered by scores of codes. Each step reads the nearest
unread candidates together (the beam). A node read provides its exact score, for the results, and
its neighbours, which are scored by their codes. With a mask, the search also reads rows outside the
mask. If the mask has few rows, it scores the codes of all of them and reads the best.
"""

from __future__ import annotations

import numpy as np

from idiolect.search.diskann.disk.pages import read_pages
from idiolect.search.diskann.graph_search import next_tag, write_results
from idiolect.search.diskann.greedy_search import candidate_row, insert_sorted, pack_candidate
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.product_codes import build_lookup_table, lookup_score
from idiolect.search.diskann.sign_codes import quantize_query_bits, score_signs
from idiolect.search.diskann.simd import dot, squared_distance

__all__ = ["search_pages"]


@kernel
def _distance(row, products, table, signs, factors, planes, query_factors):  # type: ignore[no-untyped-def]
    """Estimate the distance of a row from its `products` or `signs`; the unused kind is empty."""
    if table.shape[0]:
        return -lookup_score(products, row, table)
    return -score_signs(signs, factors, row, planes, query_factors)


@kernel
def _visit(  # type: ignore[no-untyped-def]
    rows, visited, tag, pool, first, size, products, table, signs, factors, planes, query_factors
):
    """Add unvisited rows to the candidates, scored by their codes; a negative row ends the list.

    Return the first position that may have an unread candidate, and the number of candidates.
    """
    for row in rows:
        if row < 0:
            break
        if visited[row] == tag:
            continue
        visited[row] = tag
        distance = _distance(np.int64(row), products, table, signs, factors, planes, query_factors)
        key = pack_candidate(distance, row)
        if size < pool.shape[0] or key < pool[size - 1]:
            first = min(first, insert_sorted(pool, size, key))
            size = min(size + 1, pool.shape[0])
    return first, size


@kernel
def _take_unread(pool, first, size, rows):  # type: ignore[no-untyped-def]
    """Fill `rows` with the nearest unread candidates from position `first`, and mark them as read.

    Return the position of the first of them, and their number.
    """
    while first < size and pool[first] & 1:
        first += 1
    count = 0
    for at in range(first, size):
        if not pool[at] & 1:
            rows[count] = candidate_row(pool[at])
            pool[at] |= 1
            count += 1
            if count == rows.shape[0]:
                break
    return first, count


@kernel
def search_pages(  # type: ignore[no-untyped-def]
    products, rotated_queries, centroids, use_norms, signs, factors, flips, file, place, page,
    per_page, node, vector, edges, degree, metric, queries, list_size, seeds, follow, mask, least,
    buffer, visited, ids, scores, trace_rows, trace_vectors,
):  # fmt: skip
    """Answer queries (q, padded dimension); return -1, or the number of a damaged page.

    Codes are either `products` (with `centroids` and `rotated_queries`, the queries rotated as for
    product quantization) or `signs` (with `factors` and `flips`). The pages of the open `file`
    start at offset `place` and are read into `buffer` (beam width, page). A node consists of
    `vector` bytes for its vector and, at byte `edges`, the row numbers of `degree` neighbours.

    The search starts from all `seeds`, and expands neighbours if `follow` is true. `mask` (bool,
    may be empty) is True for rows that can be results; `ids[i, 0] == -2` marks queries that read
    fewer than `least` of these. `trace_rows` (int64, may be empty) receives the nodes that the last
    query read, with their number as its last element; `trace_vectors` (nodes, padded dimension)
    receives their vectors.
    """
    table = np.empty((centroids.shape[0], 256), np.float32)
    rotated = np.empty(flips.shape[1], np.float32)
    planes = np.empty((4, signs.shape[1]), np.uint64)
    query_factors = np.empty(3, np.float32)
    pool = np.empty(list_size, np.int64)
    best = np.empty(ids.shape[1], np.int64)
    nodes = np.empty(buffer.shape[0], np.int64)
    page_numbers = np.empty(buffer.shape[0], np.int64)
    lines = vector // 64
    for i in range(queries.shape[0]):
        if centroids.shape[0]:
            build_lookup_table(rotated_queries[i], centroids, use_norms, table)
        else:
            quantize_query_bits(queries[i], flips, rotated, planes, query_factors)
        query_address = queries[i].ctypes.data
        tag = next_tag(visited)
        first, size = _visit(
            seeds, visited, tag, pool, 0, 0, products, table, signs, factors, planes, query_factors
        )
        found = matched = traced = 0
        while True:
            first, count = _take_unread(pool, first, size, nodes)
            if count == 0:
                break
            for j in range(count):
                page_numbers[j] = nodes[j] // per_page
            damaged = read_pages(file, place, page, page_numbers, count, buffer)
            if damaged >= 0:
                return damaged
            for j in range(count):
                start = (nodes[j] % per_page) * node
                if not mask.shape[0] or mask[nodes[j]]:
                    at = buffer.ctypes.data + j * page + start
                    exact = (
                        squared_distance(at, query_address, lines)
                        if metric == 2
                        else -dot(at, query_address, lines)
                    )
                    insert_sorted(best, found, pack_candidate(exact, nodes[j]))
                    found = min(found + 1, best.shape[0])
                    matched += 1
                if traced < trace_rows.shape[0] - 1:
                    trace_rows[traced] = nodes[j]
                    trace_vectors[traced] = buffer[j, start : start + vector].view(np.float32)
                    traced += 1
                if follow:
                    near = buffer[j, start + edges : start + edges + 4 * degree].view(np.int32)
                    first, size = _visit(
                        near, visited, tag, pool, first, size, products, table, signs, factors,
                        planes, query_factors,
                    )  # fmt: skip
        if trace_rows.shape[0]:
            trace_rows[trace_rows.shape[0] - 1] = traced
        write_results(best, found, ids[i], scores[i])
        if matched < least:
            ids[i, 0] = -2
    return np.int64(-1)
