"""Top-k selection for each row of a dense matrix or of a product of sparse matrices.

The best scores so far are in a min-heap, so almost all scores are only compared with its smallest
one. An entry of the heap is one integer, which combines the bits of a score with the tie-breaking
rank of its column, so one comparison is enough. A sparse product is never stored as a whole: one
row is accumulated in an array, its largest entries are selected, and the changed elements are reset
to zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from idiolect.search.diskann.jit import kernel

__all__ = ["largest_of_product", "largest_of_rows"]


def largest_of_rows(
    scores: NDArray[np.float32], top_k: int, order: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the largest scores of each row, best first.

    Shape: scores (rows, columns), both results (rows, min(top_k, columns)). Scores of −∞ are
    skipped; results are padded with the number −1.

    Args:
        scores: The scores.
        top_k: Number of results per row.
        order: Rank of each column for breaking ties. Shape: (columns,).
    """
    numbers, best = _empty(len(scores), min(top_k, scores.shape[1]))
    _scan_rows(np.ascontiguousarray(scores, np.float32), order, np.argsort(order), numbers, best)
    return numbers, best


def largest_of_product(
    left: sparse.csr_matrix,
    right: sparse.csr_matrix,
    top_k: int,
    *,
    order: NDArray[np.int64] | None = None,
    hidden: sparse.csr_matrix | None = None,
    lengths: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
    shrinkage: float = 0.0,
    ranked: bool = True,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the largest positive entries of each row of a sparse product, best first.

    Shape: both results (rows of left, min(top_k, columns of right)). Results are padded with the
    number −1.

    Args:
        left: Shape: (rows, inner).
        right: Shape: (inner, columns).
        top_k: Number of results per row.
        order: Rank of each column for breaking ties; by default its number.
        hidden: Stored entries mark entries of the product to exclude. Shape: (rows, columns).
        lengths: Divide each entry by the product of its row's and its column's length.
        shrinkage: Added to that product of lengths.
        ranked: Whether to sort the results of each row.
    """
    rows, columns = left.shape[0], right.shape[1]
    numbers, best = _empty(rows, min(top_k, columns))
    if hidden is None:
        hidden = sparse.csr_matrix((rows, columns), dtype=np.float32)
    if order is None:
        order = np.arange(columns)
    if lengths is None:
        lengths = np.ones(rows, np.float32), np.ones(columns, np.float32)
    _multiply(
        *_parts(left), *_parts(right), *_parts(hidden)[:2], *lengths, np.float32(shrinkage), order,
        np.argsort(order), ranked, numbers, best,
    )  # fmt: skip
    return numbers, best


def _parts(
    matrix: sparse.csr_matrix,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    # Use one index type, so that a kernel is compiled once.
    starts, columns = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32, copy=False)
    return starts, columns, matrix.data.astype(np.float32, copy=False)


def _empty(rows: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return np.full((rows, count), -1, np.int64), np.full((rows, count), -np.inf, np.float32)


@kernel
def _scan_rows(
    scores: NDArray[np.float32],
    order: NDArray[np.int64],
    columns: NDArray[np.int64],
    numbers: NDArray[np.int64],
    best: NDArray[np.float32],
) -> None:
    heap = np.empty(best.shape[1], np.int64)
    for row in range(scores.shape[0]):
        size, least = 0, np.float32(-np.inf)
        for column in range(scores.shape[1]):
            value = scores[row, column]
            if value >= least and value > -np.inf:
                size = _offer(_entry(value, order[column]), heap, size)
                if size == len(heap):
                    least = _score(heap[0])
        _write(heap[:size], True, columns, numbers[row], best[row])


@kernel
def _multiply(
    left_starts: NDArray[np.int64],
    left_columns: NDArray[np.int32],
    left_values: NDArray[np.float32],
    right_starts: NDArray[np.int64],
    right_columns: NDArray[np.int32],
    right_values: NDArray[np.float32],
    hidden_starts: NDArray[np.int64],
    hidden_columns: NDArray[np.int32],
    row_lengths: NDArray[np.float32],
    column_lengths: NDArray[np.float32],
    shrinkage: np.float32,
    order: NDArray[np.int64],
    columns: NDArray[np.int64],
    ranked: bool,
    numbers: NDArray[np.int64],
    best: NDArray[np.float32],
) -> None:
    heap = np.empty(best.shape[1], np.int64)
    sums = np.zeros(len(order), np.float32)
    seen = np.zeros(len(order), np.bool_)
    touched = np.empty(len(order), np.int32)
    for row in range(len(left_starts) - 1):
        count = terms = 0
        for place in range(left_starts[row], left_starts[row + 1]):
            inner = left_columns[place]
            terms += right_starts[inner + 1] - right_starts[inner]
        dense = terms > len(order)  # most columns change: do not track them
        for place in range(left_starts[row], left_starts[row + 1]):
            inner, weight = left_columns[place], left_values[place]
            for other in range(right_starts[inner], right_starts[inner + 1]):
                column = right_columns[other]
                sums[column] += weight * right_values[other]
                if not dense and not seen[column]:
                    seen[column] = True
                    touched[count] = column
                    count += 1
        if dense:
            count = len(order)
        for place in range(hidden_starts[row], hidden_starts[row + 1]):
            sums[hidden_columns[place]] = 0
        size, least = 0, np.float32(0)
        all_fit = not ranked and count <= best.shape[1]
        for place in range(count):
            column = np.int32(place) if dense else touched[place]
            value = sums[column] / (row_lengths[row] * column_lengths[column] + shrinkage)
            sums[column] = 0
            seen[column] = False
            if value > 0 and all_fit:
                best[row, size], numbers[row, size] = value, column
                size += 1
            elif value > 0 and value >= least:
                size = _offer(_entry(value, order[column]), heap, size)
                if size == len(heap):
                    least = _score(heap[0])
        if not all_fit:
            _write(heap[:size], ranked, columns, numbers[row], best[row])


@kernel
def _entry(score: np.float32, place: int) -> int:
    """Return an integer that is larger for a larger score and, of equal scores, a lower `place`."""
    bits = np.float32(score + np.float32(0)).view(np.int32)  # the zeros have equal bits
    return int(_ordered(bits)) << 32 | (0x7FFFFFFF - place)


@kernel
def _ordered(bits: np.int32) -> np.int32:
    """Convert the bits of a float32 to an integer with the same order, or back."""
    return np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF))


@kernel
def _score(entry: int) -> np.float32:
    return np.int32(_ordered(np.int32(entry >> 32))).view(np.float32)


@kernel
def _offer(entry: int, heap: NDArray[np.int64], size: int) -> int:
    """Push an entry to a min-heap; if the heap is full, replace its smallest entry."""
    if size == len(heap):
        if entry <= heap[0]:
            return size
        place = 0
        while True:
            child = 2 * place + 1
            if child + 1 < size and heap[child + 1] < heap[child]:
                child += 1
            if child >= size or heap[child] > entry:
                break
            heap[place] = heap[child]
            place = child
        heap[place] = entry
        return size
    place = size
    while place > 0 and heap[(place - 1) // 2] > entry:
        heap[place] = heap[(place - 1) // 2]
        place = (place - 1) // 2
    heap[place] = entry
    return size + 1


@kernel
def _write(
    entries: NDArray[np.int64],
    ranked: bool,
    columns: NDArray[np.int64],
    numbers: NDArray[np.int64],
    best: NDArray[np.float32],
) -> None:
    """Write the columns and scores of entries, best first if `ranked`."""
    if ranked:
        entries.sort()
    for place in range(len(entries)):
        entry = entries[len(entries) - 1 - place]
        numbers[place], best[place] = columns[0x7FFFFFFF - (entry & 0xFFFFFFFF)], _score(entry)
