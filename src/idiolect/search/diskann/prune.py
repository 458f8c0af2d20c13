"""Choosing a row's neighbours: robust pruning (Subramanya et al. 2019, algorithm 2).

Candidates are taken nearest first; one is passed over when a neighbour already chosen is nearer to
it, by a factor `alpha`, than the row itself: the search can reach it through that neighbour. With
`alpha` above one some of these stay, which gives long edges and short walks.

Distances are exact, squared and Euclidean, whatever the metric of the queries.
"""

from __future__ import annotations

import numpy as np

from idiolect.search.diskann.beam import pack, row_of
from idiolect.search.diskann.codes import load_row
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.simd import squared_distance

__all__ = ["choose", "gap", "sort_candidates"]


@kernel
def gap(vectors, lines, left, right):  # type: ignore[no-untyped-def]
    """Return the squared distance of two rows; `vectors` is an address."""
    stride = lines * 64
    return squared_distance(vectors + left * stride, vectors + right * stride, lines)


@kernel
def sort_candidates(vectors, lines, row, candidates, count):  # type: ignore[no-untyped-def]
    """Return the packed candidates of a row, nearest first, each once and not the row itself.

    Rows with the same vector begin with the next larger number, so that they form a ring.
    """
    keys = np.empty(count, np.int64)
    for j in range(count):
        load_row(vectors, np.int64(candidates[j]), lines)
    used = 0
    for j in range(count):
        other = np.int64(candidates[j])
        if other != row:
            keys[used] = pack(gap(vectors, lines, row, other), other)
            used += 1
    keys = np.sort(keys[:used])
    distinct = 0
    for j in range(used):
        if j == 0 or keys[j] != keys[j - 1]:
            keys[distinct] = keys[j]
            distinct += 1
    twins = after = 0
    while twins < distinct and keys[twins] >> 32 == 0:
        after += row_of(keys[twins]) < row
        twins += 1
    keys[:twins] = np.concatenate((keys[after:twins], keys[:after]))
    return keys[:distinct]


@kernel
def choose(vectors, lines, row, keys, alpha, chosen):  # type: ignore[no-untyped-def]
    """Fill `chosen` (int32) from sorted candidates; what stays empty is -1. Returns the number.

    Any row hides all others from its twins, and they would lose each other; so a quarter of the
    places is open to them.
    """
    count = twins = 0
    for key in keys:
        other = row_of(key)
        distance = gap(vectors, lines, np.int64(row), other)
        keep = True
        if distance == 0:
            keep = twins < max(1, chosen.shape[0] // 4)
            twins += 1
        for j in range(count if distance > 0 else 0):
            if alpha * gap(vectors, lines, np.int64(chosen[j]), other) <= distance:
                keep = False
                break
        if keep:
            chosen[count] = other
            count += 1
            if count == chosen.shape[0]:
                break
    for j in range(count, chosen.shape[0]):
        chosen[j] = -1
    return count
