"""Compiled products of few rows with a matrix: each weight is read once, in memory order.

The product of one row is memory-bound, and torch's libraries reach about half of the memory
bandwidth. For several rows they repack the matrix at each call. These loops read the rows of
weights sequentially, in blocks that stay in the cache while they are multiplied by all rows of the
other factor, four at a time. Sums are reordered for vectorization, so results equal those of torch
up to rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from idiolect.words.compiled import compiled, kernel

__all__ = ["multiply_q8_0", "multiply_rows"]

_BLOCK = 1 << 16
"""Number of weights per block."""
_ZERO = np.float32(0)
_SUMS = {"reassoc", "contract", "nsz"}


@kernel
def multiply_rows(
    weight: NDArray[Any],
    scales: NDArray[np.float32],
    bias: NDArray[np.float32],
    x: NDArray[np.float32],
    result: NDArray[np.float32],
    start: int,
    stop: int,
) -> None:
    """Write the columns from `start` to `stop` of x·weightᵀ·scales + bias.

    Shape: weight (out, in), float32 or int8; x (rows, in), result (rows, out).

    Args:
        weight: The matrix.
        scales: A factor for each row of the matrix, or an empty array. Shape: (out,) or (0,).
        bias: Added to the result, or an empty array. Shape: (out,) or (0,).
        x: The rows.
        result: Where to write.
        start: The first row of the matrix.
        stop: The one after the last.
    """
    rows = len(x)
    step = max(3, _BLOCK // x.shape[1] // 3 * 3)
    for first in range(start, stop, step):
        last = min(stop, first + step)
        fours = rows // 4 * 4
        for row in range(0, fours, 4):
            _four_rows(weight, x, result, row, first, last)
        for row in range(fours, rows):
            _one_row(weight, x, result, row, first, last)
        if len(scales):
            for row in range(rows):
                for i in range(first, last):
                    result[row, i] *= scales[i]
        if len(bias):
            for row in range(rows):
                for i in range(first, last):
                    result[row, i] += bias[i]


# Not `kernel`: it allocates an array.
@njit(nogil=True, cache=True, error_model="numpy", fastmath=_SUMS)  # type: ignore[untyped-decorator]
def multiply_q8_0(
    blocks: NDArray[np.int8],
    scales: NDArray[np.float32],
    x: NDArray[np.float32],
    result: NDArray[np.float32],
    start: int,
    stop: int,
) -> None:
    """Write the columns from `start` to `stop` of x·weightᵀ, of a matrix in GGUF's Q8_0.

    Shape: blocks (out, 34 · blocks of a row), scales (out, blocks of a row), x (rows, in),
    result (rows, out).

    Args:
        blocks: For each block, two bytes of its scale, which are ignored, and 32 int8 weights.
        scales: The scale of each block.
        x: The rows.
        result: Where to write.
        start: The first row of the matrix.
        stop: The one after the last.
    """
    # Accumulate separate sums for the positions in a block: summing a block takes longer than
    # multiplying it.
    sums = np.zeros(32, np.float32)
    for i in range(start, stop):
        for row in range(len(x)):
            sums[:] = _ZERO
            for block in range(scales.shape[1]):
                scale, code, place = scales[i, block], 34 * block + 2, 32 * block
                for j in range(32):
                    sums[j] += scale * (np.float32(blocks[i, code + j]) * x[row, place + j])
            total = _ZERO
            for j in range(32):
                total += sums[j]
            result[row, i] = total


@compiled(fastmath=_SUMS)
def _one_row(
    weight: NDArray[Any],
    x: NDArray[np.float32],
    result: NDArray[np.float32],
    row: int,
    first: int,
    last: int,
) -> None:
    for i in range(first, last):
        total = _ZERO
        for j in range(x.shape[1]):
            total += np.float32(weight[i, j]) * x[row, j]
        result[row, i] = total


@compiled(fastmath=_SUMS)
def _four_rows(
    weight: NDArray[Any],
    x: NDArray[np.float32],
    result: NDArray[np.float32],
    row: int,
    first: int,
    last: int,
) -> None:
    """Multiply four rows with three rows of weights at a time: twelve sums fill the registers."""
    end = first + (last - first) // 3 * 3
    for i in range(first, end, 3):
        a0 = a1 = a2 = b0 = b1 = b2 = c0 = c1 = c2 = d0 = d1 = d2 = _ZERO
        for j in range(x.shape[1]):
            u, v = np.float32(weight[i, j]), np.float32(weight[i + 1, j])
            w = np.float32(weight[i + 2, j])
            a, b, c, d = x[row, j], x[row + 1, j], x[row + 2, j], x[row + 3, j]
            a0, a1, a2 = a0 + u * a, a1 + v * a, a2 + w * a
            b0, b1, b2 = b0 + u * b, b1 + v * b, b2 + w * b
            c0, c1, c2 = c0 + u * c, c1 + v * c, c2 + w * c
            d0, d1, d2 = d0 + u * d, d1 + v * d, d2 + w * d
        result[row, i], result[row, i + 1], result[row, i + 2] = a0, a1, a2
        result[row + 1, i], result[row + 1, i + 1], result[row + 1, i + 2] = b0, b1, b2
        result[row + 2, i], result[row + 2, i + 1], result[row + 2, i + 2] = c0, c1, c2
        result[row + 3, i], result[row + 3, i + 1], result[row + 3, i + 2] = d0, d1, d2
    for one in range(row, row + 4):
        _one_row(weight, x, result, one, end, last)
