"""The search on disk: codes in memory choose what to read, what was read is ranked exactly.

The list of candidates is that of `greedy_search`, ordered by codes. The nearest few not yet
read are read together; each brings its exact score, which goes to the results, and its
neighbours; their codes are scored next. With a mask, the search still reads rows outside it;
if the mask keeps few rows, it scores the codes of all of them and reads the best.
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
def _distance(row, products, table, signs, facts, planes, query_facts):  # type: ignore[no-untyped-def]
    """Estimate by whichever codes there are; the others are empty."""
    if table.shape[0]:
        return -lookup_score(products, row, table)
    return -score_signs(signs, facts, row, planes, query_facts)


@kernel
def _visit(  # type: ignore[no-untyped-def]
    rows, visited, tag, pool, first, size, products, table, signs, facts, planes, query_facts
):
    """Put rows not met before among the candidates by their codes; a negative one ends the list.

    Returns the first place where a candidate may be unread, and how many candidates there are.
    """
    for row in rows:
        if row < 0:
            break
        if visited[row] == tag:
            continue
        visited[row] = tag
        distance = _distance(np.int64(row), products, table, signs, facts, planes, query_facts)
        key = pack_candidate(distance, row)
        if size < pool.shape[0] or key < pool[size - 1]:
            first = min(first, insert_sorted(pool, size, key))
            size = min(size + 1, pool.shape[0])
    return first, size


@kernel
def _take_unread(pool, first, size, rows):  # type: ignore[no-untyped-def]
    """Take the nearest candidates not yet read, from place `first` on, as many as `rows` holds.

    Returns the place of the first of them, and their number.
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
    products, centres, squares, signs, facts, flips, file, place, page, per_page, node, vector,
    degree, metric, queries, list_size, seeds, follow, mask, buffer, visited, ids, scores,
):  # fmt: skip
    """Answer queries (q, padded dimension); returns -1, or the number of a damaged page.

    Codes are either `products` (with `centres`) or `signs` (with `facts` and `flips`). The pages of
    the open `file` begin at `place`; `buffer` (pages of a beam, page) is where they are read to.
    The search begins from all of `seeds` and goes on to neighbours if `follow`; `mask` (bool, may
    be empty) tells the rows that may be found.
    """
    table = np.empty((centres.shape[0], 256), np.float32)
    rotated = np.empty(flips.shape[1], np.float32)
    planes = np.empty((4, signs.shape[1]), np.uint64)
    query_facts = np.empty(3, np.float32)
    pool = np.empty(list_size, np.int64)
    best = np.empty(ids.shape[1], np.int64)
    where = np.empty(buffer.shape[0], np.int64)
    numbers = np.empty(buffer.shape[0], np.int64)
    lines = vector // 64
    for i in range(queries.shape[0]):
        if centres.shape[0]:
            build_lookup_table(queries[i], centres, squares, table)
        else:
            quantize_query_bits(queries[i], flips, rotated, planes, query_facts)
        query_address = queries[i].ctypes.data
        tag = next_tag(visited)
        first, size = _visit(
            seeds, visited, tag, pool, 0, 0, products, table, signs, facts, planes, query_facts
        )
        found = 0
        while True:
            first, count = _take_unread(pool, first, size, where)
            if count == 0:
                break
            for j in range(count):
                numbers[j] = where[j] // per_page
            damaged = read_pages(file, place, page, numbers, count, buffer)
            if damaged >= 0:
                return damaged
            for j in range(count):
                start = (where[j] % per_page) * node
                if not mask.shape[0] or mask[where[j]]:
                    at = buffer.ctypes.data + j * page + start
                    exact = (
                        squared_distance(at, query_address, lines)
                        if metric == 2
                        else -dot(at, query_address, lines)
                    )
                    insert_sorted(best, found, pack_candidate(exact, where[j]))
                    found = min(found + 1, best.shape[0])
                if follow:
                    edges = buffer[j, start + vector : start + vector + 4 * degree].view(np.int32)
                    first, size = _visit(
                        edges, visited, tag, pool, first, size, products, table, signs, facts,
                        planes, query_facts,
                    )  # fmt: skip
        write_results(best, found, ids[i], scores[i])
    return np.int64(-1)
