"""The items with the largest inner products, from products of bytes, and which answers are certain.

Vectors are rounded to bytes, whose products take a quarter of the time of those of float32, and are
compared while they are in registers. The rounding errors have a bound: with

    x = low + step · code + e        an item, code a byte per dimension, e the rounding error
    u · step = scale · q + f         a user, q a signed byte per dimension, f the rounding error

and the mean code m,

    u·x = (u·low + f·m) + scale · (q·code) + (f·(code − m) + u·e)

the first term is equal for all items, and the last one at most |f| max|code − m| + |u| max|e|.
So a few more items than are wanted are kept by q·code, and their products computed from the
vectors. If the worst of the wanted ones is above what an item that was not kept could reach, the
answer is that of the full product. Otherwise it is called uncertain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.scalar_quantizer import CACHE_LINE, aligned_zeros
from idiolect.search.diskann.simd import TILE_QUERIES, TILE_ROWS, dot, dot_int8_tile, popcount

__all__ = ["certain_items"]

_BLOCK = 8192
"""Items whose codes stay in the cache while all users pass by: half a megabyte at 64 dimensions."""
_GROUP = 16
"""Items of a line of codes, which has four dimensions of each."""
_UNKNOWN, _NEVER = np.int32(-(2**31)), np.int32(2**31 - 1)


def certain_items(
    users: NDArray[np.float32], items: NDArray[np.float32], top_k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Find the items with the largest inner products, best first, and whether it is certain.

    Shape: users (users, width), items (items, width), first two results (users, top_k), last
    result (users,). Of equal products, the first item's comes first.

    Args:
        users: Finite vectors.
        items: Finite vectors; at least `top_k`.
        top_k: How many items of each user.
    """
    count, width = items.shape
    low = items.min(0)
    step = (items.max(0) - low) / np.float32(255)
    inverse = np.divide(np.float32(1), step, out=np.zeros_like(step), where=step > 0)
    middle = (items.mean(0) - low) * inverse
    padded = aligned_zeros(count, -(-width // _GROUP) * _GROUP, np.float32)
    padded[:, :width] = items
    quads = -(-width // 4)
    codes = aligned_zeros(-(-count // TILE_ROWS) * TILE_ROWS // _GROUP, quads * CACHE_LINE, np.uint8)
    item_error, item_spread = _encode(padded, low, step, inverse, middle, codes)

    scaled = users * step
    scale = np.abs(scaled).max(1) / np.float32(127)
    whole = np.rint(scaled / np.maximum(scale, np.finfo(np.float32).tiny)[:, None])
    rest = scaled - scale[:, None] * whole
    queries = aligned_zeros(-(-len(users) // TILE_QUERIES) * TILE_QUERIES, quads * 4, np.int8)
    queries[: len(users), :width] = whole

    kept = np.zeros((len(queries), 2 * _kept(top_k)), np.int64)
    sizes, least = np.zeros(len(kept), np.int64), np.full(len(kept), _UNKNOWN)
    least[len(users) :] = _NEVER
    for first in range(0, count, _BLOCK):
        block = codes[first // _GROUP : (first + _BLOCK) // _GROUP]
        _keep_largest(block, queries, first, count, kept, sizes, least)
    numbers = np.empty((len(users), top_k), np.int64)
    scores = np.empty((len(users), top_k), np.float32)
    wide = aligned_zeros(len(users), padded.shape[1], np.float32)
    wide[:, :width] = users
    _rank(wide, padded, kept, sizes, numbers, scores)
    reach = users @ low + rest @ middle + scale * least[: len(users)]
    reach += np.linalg.norm(rest, axis=1) * item_spread + np.linalg.norm(users, axis=1) * item_error
    return numbers, scores, scores[:, -1] > reach


def _kept(top_k: int) -> int:
    """Return how many items are kept at least."""
    return 2 * top_k + 28


@kernel
def _encode(
    items: NDArray[np.float32],
    low: NDArray[np.float32],
    step: NDArray[np.float32],
    inverse: NDArray[np.float32],
    middle: NDArray[np.float32],
    codes: NDArray[np.uint8],
) -> tuple[float, float]:
    """Write codes; return the largest rounding error, and distance from the middle, of an item."""
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
    kept: NDArray[np.int64],
    sizes: NDArray[np.int64],
    least: NDArray[np.int32],
) -> None:
    """Add the items of a block whose products exceed a user's `least`; raise it when all is full.

    A kept item is its product and its number in one integer.
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
                    own = kept[user + one]
                    own[sizes[user + one]] = np.int64(products[one, place]) << 32 | number
                    sizes[user + one] += 1
                    if sizes[user + one] == len(own):
                        least[user + one] = _halve(own) >> 32
                        sizes[user + one] = half


@kernel
def _halve(values: NDArray[np.int64]) -> int:
    """Move the larger half of the values to the front; return the largest of the others."""
    half, start, end = len(values) // 2, 0, len(values) - 1
    while start < end:  # quickselect
        pivot = values[(start + end) // 2]
        left, right = start, end
        while left <= right:
            while values[left] > pivot:
                left += 1
            while values[right] < pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if half <= right:
            end = right
        elif half >= left:
            start = left
        else:
            break
    return values[half]


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
