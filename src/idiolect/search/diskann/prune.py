"""Robust pruning: the selection of neighbours (Subramanya et al. 2019, algorithm 2).

Candidates are considered nearest first. A candidate is skipped if it is nearer, by a factor
`alpha`, to an already selected neighbour than to the row: the search can reach it through that
neighbour. An `alpha` above one keeps more long edges, which shorten search paths.

Distances are exact squared Euclidean distances under every metric.
"""

from __future__ import annotations

import numpy as np

from idiolect.search.diskann.greedy_search import (
    candidate_distance,
    candidate_row,
    pack_candidate,
)
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.scalar_quantizer import prefetch_row
from idiolect.search.diskann.simd import squared_distance

__all__ = ["robust_prune", "row_distance", "sort_candidates"]


@kernel
def row_distance(vectors, lines, left, right):  # type: ignore[no-untyped-def]
    """Return the squared distance between two rows; `vectors` is an address."""
    stride = lines * 64
    return squared_distance(vectors + left * stride, vectors + right * stride, lines)


@kernel
def sort_candidates(vectors, lines, row, candidates, count):  # type: ignore[no-untyped-def]
    """Return the distinct packed candidates of a row, nearest first, without the row itself.

    Candidates with the same vector as the row are rotated to start at the next larger row number,
    so that rows with equal vectors form a ring.
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
    duplicates = after = 0
    while duplicates < distinct and keys[duplicates] >> 32 == 0:
        after += candidate_row(keys[duplicates]) < row
        duplicates += 1
    keys[:duplicates] = np.concatenate((keys[after:duplicates], keys[:after]))
    return keys[:distinct]


@kernel
def robust_prune(vectors, lines, row, keys, alpha, chosen):  # type: ignore[no-untyped-def]
    """Fill `chosen` (int32) from sorted candidates, pad it with -1 and return the number chosen.

    A candidate with the same vector as the row would prune all others. Such duplicates therefore
    prune nothing, and take at most a quarter of the edges.
    """
    count = duplicates = 0
    for key in keys:
        other = candidate_row(key)
        distance = candidate_distance(key)
        selected = True
        if distance == 0:
            selected = duplicates < max(1, chosen.shape[0] // 4)
            duplicates += 1
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
