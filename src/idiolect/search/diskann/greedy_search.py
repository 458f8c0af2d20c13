"""Greedy search in a graph held in memory: the inner loop of every query and every insertion.

A candidate is one 64-bit integer: its distance in the upper 32 bits, mapped to an integer with the
same order; its row in the next 31 bits; and in the lowest bit, whether it was expanded. The search
list of the `list_size` nearest (L in the paper) is sorted by these integers. Equal distances are
ordered by row, so results are reproducible.

Distances are estimates from codes (smaller is nearer): `-(query · x + weight * norm_terms[x])`.
`norm_terms` makes an inner product rank by distance (see `graph_rows`). It is not read if the
weight is zero.
"""

from __future__ import annotations

import numpy as np

from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.scalar_quantizer import estimate_product, prefetch_row

__all__ = [
    "candidate_distance",
    "candidate_row",
    "collect_unvisited",
    "greedy_search",
    "insert_sorted",
    "pack_candidate",
]


@kernel
def pack_candidate(distance, row):  # type: ignore[no-untyped-def]
    """Pack a float32 distance and a row into one sortable int64."""
    bits = np.int64(np.float32(distance).view(np.int32))
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered << 32) | (np.int64(row) << 1)


@kernel
def candidate_row(key):  # type: ignore[no-untyped-def]
    """Return the row of a candidate."""
    return (key & 0xFFFFFFFF) >> 1


@kernel
def candidate_distance(key):  # type: ignore[no-untyped-def]
    """Return the float32 distance of a candidate."""
    ordered = key >> 32
    return np.int32(ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(np.float32)


@kernel
def insert_sorted(pool, size, key):  # type: ignore[no-untyped-def]
    """Insert a candidate into a sorted list and drop the farthest; return its position."""
    if size == pool.shape[0] and key >= pool[size - 1]:
        return size
    low, high = 0, size
    while low < high:
        middle = (low + high) >> 1
        if pool[middle] < key:
            low = middle + 1
        else:
            high = middle
    for place in range(min(size, pool.shape[0] - 1), low, -1):
        pool[place] = pool[place - 1]
    pool[low] = key
    return low


@kernel
def collect_unvisited(edges, visited, tag, unvisited, count, codes, lines):  # type: ignore[no-untyped-def]
    """Append the unvisited neighbours to `unvisited`, mark them and prefetch their codes."""
    for other in edges:
        if other < 0:
            break
        if visited[other] != tag:
            visited[other] = tag
            unvisited[count] = other
            count += 1
            prefetch_row(codes, np.int64(other), lines)
    return count


@kernel
def greedy_search(  # type: ignore[no-untyped-def]
    codes, lines, bits, norm_terms, weight, neighbours, hubs, entry, query, scale, pool, visited,
    tag, expanded,
):  # fmt: skip
    """Fill `pool` with the nearest rows found from `entry`, nearest first; return their number.

    `codes` and `query` are addresses. `visited[row] == tag` marks visited rows. `expanded` (int32,
    may be empty) receives the expanded rows in order; its last element is their number.
    """
    unvisited = np.empty(neighbours.shape[1] + hubs.shape[1], np.int32)
    visited[entry] = tag
    distance = -estimate_product(codes, entry, lines, bits, query, scale)
    if weight != 0:
        distance -= weight * norm_terms[entry]
    pool[0] = pack_candidate(distance, entry)
    size, list_size, cursor, steps = 1, pool.shape[0], 0, 0
    while cursor < size:
        if pool[cursor] & 1:
            cursor += 1
            continue
        row = candidate_row(pool[cursor])
        pool[cursor] |= 1
        if cursor + 1 < size:  # prefetch the neighbours of the likely next row
            prefetch_row(
                neighbours.ctypes.data, candidate_row(pool[cursor + 1]), neighbours.shape[1] >> 4
            )
        if steps < expanded.shape[0] - 1:
            expanded[steps] = row
            steps += 1
        count = collect_unvisited(neighbours[row], visited, tag, unvisited, 0, codes, lines)
        count = collect_unvisited(hubs[row], visited, tag, unvisited, count, codes, lines)
        first = size
        for j in range(count):
            other = np.int64(unvisited[j])
            distance = -estimate_product(codes, other, lines, bits, query, scale)
            if weight != 0:
                distance -= weight * norm_terms[other]
            key = pack_candidate(distance, other)
            if size == list_size and key >= pool[size - 1]:
                continue
            first = min(first, insert_sorted(pool, size, key))
            size = min(size + 1, list_size)
        cursor = min(first, cursor + 1)
    if expanded.shape[0]:
        expanded[expanded.shape[0] - 1] = steps
    return size
