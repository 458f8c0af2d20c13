"""Selection of neighbours: robust pruning (Subramanya et al. 2019, algorithm 2).

Candidates are taken nearest first. One is skipped if an already selected neighbour is nearer to it,
by a factor `alpha`, than the row itself: the search can reach it through that neighbour. With
`alpha` above one some of these stay, which makes long edges and short search paths.

Distances are exact, squared and Euclidean, whatever the metric of the queries.
"""

from __future__ import annotations

import numpy as np

from idiolect.search.diskann.greedy_search import candidate_row, pack_candidate
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.scalar_quantizer import prefetch_row
from idiolect.search.diskann.simd import squared_distance

__all__ = ["robust_prune", "row_distance", "sort_candidates"]


@kernel
def row_distance(vectors, lines, left, right):  # type: ignore[no-untyped-def]
    """Return the squared distance of two rows; `vectors` is an address."""
    stride = lines * 64
    return squared_distance(vectors + left * stride, vectors + right * stride, lines)


@kernel
def sort_candidates(vectors, lines, row, candidates, count):  # type: ignore[no-untyped-def]
    """Return the packed candidates of a row, nearest first, without duplicates and the row itself.

    Rows with the same vector start at the next larger number, so that they form a ring.
    """
    keys = np.empty(count, np.int64)
    for j in range(count):
        prefetch_row(vectors, np.int64(candidates[j]), lines)
    used = 0
    for j in range(count):
        other = np.int64(candidates[j])
        if other != row:
            keys[used] = pack_candidate(row_distance(vectors, lines, row, other), other)
            used += 1
    keys = np.sort(keys[:used])
    distinct = 0
    for j in range(used):
        if j == 0 or keys[j] != keys[j - 1]:
            keys[distinct] = keys[j]
            distinct += 1
    twins = after = 0
    while twins < distinct and keys[twins] >> 32 == 0:
        after += candidate_row(keys[twins]) < row
        twins += 1
    keys[:twins] = np.concatenate((keys[after:twins], keys[:after]))
    return keys[:distinct]


@kernel
def robust_prune(vectors, lines, row, keys, alpha, chosen):  # type: ignore[no-untyped-def]
    """Fill `chosen` (int32) from sorted candidates; pad with -1. Return the number.

    A duplicate of the row would prune every other candidate, and duplicates would lose each other;
    so duplicates may take only a quarter of the places and prune nothing.
    """
    count = twins = 0
    for key in keys:
        other = candidate_row(key)
        distance = row_distance(vectors, lines, np.int64(row), other)
        selected = True
        if distance == 0:
            selected = twins < max(1, chosen.shape[0] // 4)
            twins += 1
        for j in range(count if distance > 0 else 0):
            if alpha * row_distance(vectors, lines, np.int64(chosen[j]), other) <= distance:
                selected = False
                break
        if selected:
            chosen[count] = other
            count += 1
            if count == chosen.shape[0]:
                break
    for j in range(count, chosen.shape[0]):
        chosen[j] = -1
    return count
