"""The largest scores of each row, of a dense matrix or of a product of sparse ones.

A heap of the best so far stands between the scores and the result: almost all scores are compared
with its smallest one only. A sparse product is never held as a whole: a row is summed up in one
array, its largest entries are taken, and the entries that were touched are set back to zero.
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

    Shape: scores (rows, columns), both results (rows, min(top_k, columns)). A score of −∞ is never
    found; places that remain have the number −1.

    Args:
        scores: The scores.
        top_k: How many of each row.
        order: The place of each column among equal scores. Shape: (columns,).
    """
    numbers, best = _empty(len(scores), min(top_k, scores.shape[1]))
    _scan_rows(np.ascontiguousarray(scores, np.float32), order, numbers, best)
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

    Shape: both results (rows of left, min(top_k, columns of right)). Places that remain have the
    number −1.

    Args:
        left: Shape: (rows, inner).
        right: Shape: (inner, columns).
        top_k: How many of each row.
        order: The place of each column among equal entries; by default its number.
        hidden: Entries that are left out, wherever it has any. Shape: (rows, columns).
        lengths: Divide each entry by the product of its row's and its column's length.
        shrinkage: Added to that product.
        ranked: Whether the order matters: without it, rows are not sorted.
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
        ranked, numbers, best,
    )  # fmt: skip
    return numbers, best


def _parts(
    matrix: sparse.csr_matrix,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    # One type of index, so that a kernel is compiled once.
    starts, columns = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32, copy=False)
    return starts, columns, matrix.data.astype(np.float32, copy=False)


def _empty(rows: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return np.full((rows, count), -1, np.int64), np.full((rows, count), -np.inf, np.float32)


@kernel
def _scan_rows(
    scores: NDArray[np.float32],
    order: NDArray[np.int64],
    numbers: NDArray[np.int64],
    best: NDArray[np.float32],
) -> None:
    for row in range(scores.shape[0]):
        size = 0
        for column in range(scores.shape[1]):
            if size < best.shape[1] or scores[row, column] >= best[row, 0]:
                value = scores[row, column]
                if value > -np.inf:
                    size = _offer(value, column, order, best[row], numbers[row], size)
        _sort(order, best[row], numbers[row], size)


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
    ranked: bool,
    numbers: NDArray[np.int64],
    best: NDArray[np.float32],
) -> None:
    sums = np.zeros(len(order), np.float32)
    seen = np.zeros(len(order), np.bool_)
    touched = np.empty(len(order), np.int32)
    for row in range(len(left_starts) - 1):
        count = 0
        for place in range(left_starts[row], left_starts[row + 1]):
            inner, weight = left_columns[place], left_values[place]
            for other in range(right_starts[inner], right_starts[inner + 1]):
                column = right_columns[other]
                sums[column] += weight * right_values[other]
                if not seen[column]:
                    seen[column] = True
                    touched[count] = column
                    count += 1
        for place in range(hidden_starts[row], hidden_starts[row + 1]):
            sums[hidden_columns[place]] = 0
        size = 0
        all_fit = not ranked and count <= best.shape[1]
        for place in range(count):
            column = touched[place]
            value = sums[column] / (row_lengths[row] * column_lengths[column] + shrinkage)
            sums[column] = 0
            seen[column] = False
            if value > 0 and all_fit:
                best[row, size], numbers[row, size] = value, column
                size += 1
            elif value > 0 and (size < best.shape[1] or value >= best[row, 0]):
                size = _offer(value, column, order, best[row], numbers[row], size)
        if ranked:
            _sort(order, best[row], numbers[row], size)


@kernel
def _offer(
    value: np.float32,
    number: int,
    order: NDArray[np.int64],
    values: NDArray[np.float32],
    numbers: NDArray[np.int64],
    size: int,
) -> int:
    """Put a score into a heap whose worst is first, and take that out if it is full."""
    if size == len(values):
        if value > values[0] or (value == values[0] and order[number] < order[numbers[0]]):
            _sink(value, number, order, values, numbers, size)
        return size
    place = size
    while place > 0:
        parent = (place - 1) // 2
        if values[parent] < value or (
            values[parent] == value and order[numbers[parent]] > order[number]
        ):
            break
        values[place], numbers[place] = values[parent], numbers[parent]
        place = parent
    values[place], numbers[place] = value, number
    return size + 1


@kernel
def _sink(
    value: np.float32,
    number: int,
    order: NDArray[np.int64],
    values: NDArray[np.float32],
    numbers: NDArray[np.int64],
    size: int,
) -> None:
    """Replace the worst score of a heap of some size."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and (
            values[child + 1] < values[child]
            or (
                values[child + 1] == values[child]
                and order[numbers[child + 1]] > order[numbers[child]]
            )
        ):
            child += 1
        if values[child] > value or (
            values[child] == value and order[numbers[child]] < order[number]
        ):
            break
        values[place], numbers[place] = values[child], numbers[child]
        place = child
    values[place], numbers[place] = value, number


@kernel
def _sort(
    order: NDArray[np.int64], values: NDArray[np.float32], numbers: NDArray[np.int64], size: int
) -> None:
    """Turn a heap into a list with the best first."""
    for end in range(size - 1, 0, -1):
        value, number = values[end], numbers[end]
        values[end], numbers[end] = values[0], numbers[0]
        _sink(value, number, order, values, numbers, end)
