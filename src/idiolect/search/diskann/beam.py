"""Greedy search in a graph held in memory: the loop that every query and every insertion runs.

A candidate is one 64-bit number: its distance as an integer of the same order in the upper half,
its row in the next 31 bits and, in the lowest, whether it was expanded. The list of the `width`
nearest is then sorted by comparing integers and shifted by one move of memory, and equal distances
have an order, the same in every run.

Distances here are estimates from codes (smaller is nearer): `-(query · x + weight · side[x])`,
where `side` makes an inner product rank by distance (see `rows`); at weight zero it is not read.
"""

from __future__ import annotations

import numpy as np

from idiolect.search.diskann.codes import estimate, load_row
from idiolect.search.diskann.jit import kernel

__all__ = ["beam", "collect", "insert", "pack", "row_of"]


@kernel
def pack(distance, row):  # type: ignore[no-untyped-def]
    """Make one sortable int64 of a float32 distance and a row."""
    bits = np.int64(np.float32(distance).view(np.int32))
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered << 32) | (np.int64(row) << 1)


@kernel
def row_of(key):  # type: ignore[no-untyped-def]
    """Return the row of a candidate."""
    return (key & 0xFFFFFFFF) >> 1


@kernel
def insert(pool, size, key):  # type: ignore[no-untyped-def]
    """Put a candidate in its place in a sorted list, the farthest falls off; returns the place."""
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
def collect(row, seen, tag, fresh, count, codes, lines):  # type: ignore[no-untyped-def]
    """Append the rows of a list not met before to `fresh`, and ask for their codes."""
    for other in row:
        if other < 0:
            break
        if seen[other] != tag:
            seen[other] = tag
            fresh[count] = other
            count += 1
            load_row(codes, np.int64(other), lines)
    return count


@kernel
def beam(  # type: ignore[no-untyped-def]
    codes, lines, bits, side, weight, neighbours, hubs, entry, query, scale, pool, seen, tag, trail,
):  # fmt: skip
    """Fill `pool` with the nearest rows found from `entry`, nearest first; returns their number.

    `codes` and `query` are addresses; `seen[row] == tag` marks what was met; `trail` (int32, may be
    empty) receives the rows expanded, in order, and its last element how many there are.
    """
    fresh = np.empty(neighbours.shape[1] + hubs.shape[1], np.int32)
    seen[entry] = tag
    distance = -estimate(codes, entry, lines, bits, query, scale)
    if weight != 0:
        distance -= weight * side[entry]
    pool[0] = pack(distance, entry)
    size, width, at, steps = 1, pool.shape[0], 0, 0
    while at < size:
        if pool[at] & 1:
            at += 1
            continue
        here = row_of(pool[at])
        pool[at] |= 1
        if at + 1 < size:  # the likely next one: its row of neighbours comes while this one is read
            load_row(neighbours.ctypes.data, row_of(pool[at + 1]), neighbours.shape[1] >> 4)
        if steps < trail.shape[0] - 1:
            trail[steps] = here
            steps += 1
        count = collect(neighbours[here], seen, tag, fresh, 0, codes, lines)
        count = collect(hubs[here], seen, tag, fresh, count, codes, lines)
        first = size
        for j in range(count):
            other = np.int64(fresh[j])
            distance = -estimate(codes, other, lines, bits, query, scale)
            if weight != 0:
                distance -= weight * side[other]
            key = pack(distance, other)
            if size == width and key >= pool[size - 1]:
                continue
            first = min(first, insert(pool, size, key))
            size = min(size + 1, width)
        at = min(first, at + 1)
    if trail.shape[0]:
        trail[trail.shape[0] - 1] = steps
    return size
