"""Find the items with the largest inner products by 8-bit products, and verify the results.

Vectors are quantized to bytes. Products of bytes take a quarter of the time of float32 products,
and are compared while they are in registers. The quantization errors are bounded: with

    x = low + step · code + e        an item, code a byte per dimension, e the rounding error
    u · step = scale · q + f         a user, q a signed byte per dimension, f the rounding error

and the mean code m,

    u·x = (u·low + f·m) + scale · (q·code) + (f·(code − m) + u·e)

the first term is equal for all items, and the last one is at most |f| max|code − m| + |u| max|e|.
So more candidates than requested are selected by q·code, and reranked by exact products. If the
worst returned item scores above the upper bound of all items that are not candidates, the result is
exact. Otherwise it is marked as uncertain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.scalar_quantizer import CACHE_LINE, aligned_zeros
from idiolect.search.diskann.simd import TILE_QUERIES, TILE_ROWS, dot, dot_int8_tile, popcount

__all__ = ["ItemCodes", "is_hidden"]

_BLOCK = 512 * 1024
"""Bytes of a block of codes, which stays in the cache while all users are compared with it."""
_GROUP = 16
"""Items per line of codes; a line has four dimensions of each item."""
_FLOAT_ERROR = 1e-6
"""Rounding error of a float32 inner product, relative to the norms."""
_UNKNOWN, _NEVER = np.int32(-(2**31)), np.int32(2**31 - 1)


@dataclass(frozen=True)
class ItemCodes:
    """The vectors of items and their codes, with bounds of the quantization errors.

    `items` has rows padded to a multiple of 16 dimensions. `codes` has lines for groups of 16
    items. `low`, `step` and `middle` (the mean code) have `width` dimensions. `error` is the
    largest norm of a quantization error, plus a margin for float32 rounding; `spread` is the
    largest distance of a code from the middle.
    """

    items: NDArray[np.float32]
    codes: NDArray[np.uint8]
    low: NDArray[np.float32]
    step: NDArray[np.float32]
    middle: NDArray[np.float32]
    error: float
    spread: float

    @classmethod
    def of(cls, items: NDArray[np.float32]) -> ItemCodes:
        """Quantize the vectors of items (items, width)."""
        count, width = items.shape
        low, high = items.min(0), items.max(0)
        step = (high - low) / np.float32(255)
        inverse = np.divide(np.float32(1), step, out=np.zeros_like(step), where=step > 0)
        middle = (items.mean(0) - low) * inverse
        padded = _padded(items, 1, _GROUP)
        groups = -(-count // TILE_ROWS) * TILE_ROWS // _GROUP
        codes = aligned_zeros(groups, -(-width // 4) * CACHE_LINE, np.uint8)
        error, spread = _encode(padded, low, step, inverse, middle, codes)
        error += _FLOAT_ERROR * float(np.linalg.norm(low) + np.linalg.norm(high))
        return cls(padded, codes, low, step, middle, error, spread)

    def largest(
        self, users: NDArray[np.float32], hidden: sparse.csr_matrix, top_k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
        """Find the items with the largest inner products, best first.

        Shape: users (users, width), result (users, top_k), (users, top_k) and (users,): item
        numbers, scores, and whether the result is certain to be exact. The lower item number wins a
        tie.

        Args:
            users: User vectors.
            hidden: Stored entries mark items to exclude. Shape: (users, items).
            top_k: Number of items per user; at most the number of items.
        """
        count, width = len(users), users.shape[1]
        scaled = users * self.step
        scale = np.maximum(np.abs(scaled).max(1), np.finfo(np.float32).tiny) / np.float32(127)
        whole = np.rint(scaled / scale[:, None])
        rest = scaled - scale[:, None] * whole
        queries = _padded(whole, TILE_QUERIES, 4, np.int8)
        # With this many candidates, almost all results are certain; the bound grows with the number
        # of dimensions.
        half = 2 * top_k + 8 + width // 16
        kept, sizes = np.zeros((len(queries), 2 * half), np.int64), np.zeros(len(queries), np.int64)
        least = np.full(len(queries), _NEVER)
        least[:count] = _UNKNOWN
        groups = max(1, _BLOCK // (TILE_ROWS // _GROUP * self.codes.shape[1])) * 2
        for first in range(0, len(self.codes), groups):
            block = self.codes[first : first + groups]
            _keep_largest(
                block, queries, first * _GROUP, len(self.items), hidden.indptr, hidden.indices,
                kept, sizes, least,
            )  # fmt: skip
        numbers = np.full((count, top_k), -1, np.int64)
        scores = np.full((count, top_k), -np.inf, np.float32)
        _rank(_padded(users, 1, _GROUP), self.items, kept, sizes, numbers, scores)
        reach = users @ self.low + rest @ self.middle + scale * least[:count]
        reach += np.linalg.norm(rest, axis=1) * self.spread
        reach += np.linalg.norm(users, axis=1) * self.error
        return numbers, scores, scores[:, -1] > reach


def _padded(
    values: NDArray[np.float32], rows: int, columns: int, dtype: Any = np.float32
) -> NDArray[Any]:
    """Return an aligned copy, padded with zeros to multiples of `rows` and `columns`."""
    count, width = values.shape
    copy = aligned_zeros(-(-count // rows) * rows, -(-width // columns) * columns, dtype)
    copy[:count, :width] = values
    return copy


@kernel
def _encode(
    items: NDArray[np.float32],
    low: NDArray[np.float32],
    step: NDArray[np.float32],
    inverse: NDArray[np.float32],
    middle: NDArray[np.float32],
    codes: NDArray[np.uint8],
) -> tuple[float, float]:
    """Write codes; return the largest quantization error and the largest distance from `middle`."""
    largest_error = largest_spread = np.float32(0)
    for row in range(len(items)):
        error = spread = np.float32(0)
        group, place = row // _GROUP, row % _GROUP
        for j in range(len(low)):
            code = np.rint((items[row, j] - low[j]) * inverse[j])
            codes[group, j // 4 * 64 + place * 4 + j % 4] = np.uint8(code)
            error += (items[row, j] - (low[j] + step[j] * code)) ** 2
            spread += (code - middle[j]) ** 2
        largest_error, largest_spread = max(largest_error, error), max(largest_spread, spread)
    return np.sqrt(largest_error), np.sqrt(largest_spread)


@kernel
def _keep_largest(
    codes: NDArray[np.uint8],
    queries: NDArray[np.int8],
    first: int,
    count: int,
    starts: NDArray[np.int32],
    hidden: NDArray[np.int32],
    kept: NDArray[np.int64],
    sizes: NDArray[np.int64],
    least: NDArray[np.int32],
) -> None:
    """Add the items of a block whose products exceed a user's threshold `least`.

    When a user's buffer is full, keep the better half and raise the threshold. A kept item is one
    integer, with its product in the upper and its number in the lower 32 bits.
    """
    products = np.empty((TILE_QUERIES, TILE_ROWS), np.int32)
    over = np.empty(TILE_QUERIES, np.uint32)
    quads, half = queries.shape[1] // 4, kept.shape[1] // 2
    tile = TILE_ROWS // _GROUP * codes.shape[1]
    for user in range(0, len(queries), TILE_QUERIES):
        for row in range(0, len(codes) * _GROUP, TILE_ROWS):
            dot_int8_tile(
                codes.ctypes.data + row // TILE_ROWS * tile,
                queries.ctypes.data + user * queries.shape[1],
                quads,
                least.ctypes.data + user * 4,
                products.ctypes.data,
                over.ctypes.data,
            )
            for one in range(TILE_QUERIES):
                bits = np.uint64(over[one])
                while bits:
                    place = popcount((bits & (~bits + np.uint64(1))) - np.uint64(1))
                    bits &= bits - np.uint64(1)
                    number = first + row + place
                    if number >= count:
                        break
                    if is_hidden(number, user + one, starts, hidden):
                        continue
                    own = kept[user + one]
                    own[sizes[user + one]] = np.int64(products[one, place]) << 32 | number
                    sizes[user + one] += 1
                    if sizes[user + one] == len(own):
                        least[user + one] = _halve(own) >> 32
                        sizes[user + one] = half


@kernel
def is_hidden(number: int, user: int, starts: NDArray[np.int32], hidden: NDArray[np.int32]) -> bool:
    """Return whether an item is hidden for a user: in the user's row of a sparse matrix."""
    low, high = starts[user], starts[user + 1]
    while low < high:
        middle = (low + high) // 2
        if hidden[middle] < number:
            low = middle + 1
        else:
            high = middle
    return bool(low < starts[user + 1] and hidden[low] == number)


@kernel
def _halve(values: NDArray[np.int64]) -> int:
    """Move the larger half of the values to the front; return the largest remaining value."""
    half, start, last = len(values) // 2, 0, len(values) - 1
    while start < last:  # quickselect, without unpredictable branches
        middle = (start + last) // 2
        pivot, values[middle] = values[middle], values[last]
        place = start
        for other in range(start, last):
            value = values[other]
            values[other] = values[place]
            values[place] = value
            place += value > pivot
        values[last], values[place] = values[place], pivot
        if place == half:
            break
        if place > half:
            last = place - 1
        else:
            start = place + 1
    return int(values[half])


@kernel
def _rank(
    users: NDArray[np.float32],
    items: NDArray[np.float32],
    kept: NDArray[np.int64],
    sizes: NDArray[np.int64],
    numbers: NDArray[np.int64],
    scores: NDArray[np.float32],
) -> None:
    """Compute the products of kept items from the vectors, and write the largest, best first."""
    lines, stride = users.shape[1] // _GROUP, users.shape[1] * 4
    for user in range(len(users)):
        size = 0
        for candidate in kept[user, : sizes[user]]:
            number = candidate & 0xFFFFFFFF
            score = dot(
                users.ctypes.data + user * stride, items.ctypes.data + number * stride, lines
            )
            place = size
            while place > 0 and (
                scores[user, place - 1] < score
                or (scores[user, place - 1] == score and numbers[user, place - 1] > number)
            ):
                place -= 1
            if place == scores.shape[1]:
                continue
            for later in range(min(size, scores.shape[1] - 1), place, -1):
                scores[user, later] = scores[user, later - 1]
                numbers[user, later] = numbers[user, later - 1]
            scores[user, place], numbers[user, place] = score, number
            size = min(size + 1, scores.shape[1])
