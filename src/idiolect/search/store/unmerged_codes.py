"""8-bit codes of unmerged vectors, so that an exhaustive search reads a quarter of the bytes.

A vector `x` is `scale * c + e`, with integers `c` from -127 to 127 and a rounding error `e`. The
query `q` is encoded in the same way, and the product of the integers estimates `x · q`. The error
of the estimate is at most `|e_x| |q| + |x - e_x| |e_q|`. A search computes exact scores only for
vectors that can be among the best, given these bounds, so its results are exact.

This module imports numba, so it is imported only if there is a graph, which needs numba, too.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.scalar_quantizer import CACHE_LINE, aligned_zeros
from idiolect.search.diskann.simd import dot_int8

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from idiolect.search.diskann.metric import Metric

__all__ = ["UnmergedCodes"]

_ROUNDING = 1e-5  # relative error of products in float32, with room to spare


@kernel
def _bound_products(codes, scales, errors, lengths, query, scale, error, length, least, most):  # type: ignore[no-untyped-def]
    """Bound the inner products of a query with each vector, in `least` (n,) and `most` (n,).

    `query` is int8; `scale`, `error` and `length` are those of the query.
    """
    lines = codes.shape[1] // 64
    offset = np.int32(0)  # codes are stored plus 128
    for number in query:
        offset += 128 * np.int32(np.int8(number))
    for i in range(least.shape[0]):
        place = codes.ctypes.data + i * codes.shape[1]
        whole = dot_int8(place, query.ctypes.data, lines) - offset
        estimate = scale * scales[i] * np.float32(whole)
        margin = errors[i] * length + (lengths[i] + errors[i]) * error
        margin += np.float32(_ROUNDING) * lengths[i] * length
        least[i] = estimate - margin
        most[i] = estimate + margin


class UnmergedCodes:
    """The codes of the first vectors of an array that grows in place.

    Args:
        size: Maximum number of vectors.
        dimensions: Width of the vectors.
    """

    def __init__(self, size: int, dimensions: int) -> None:
        width = -(-dimensions // CACHE_LINE) * CACHE_LINE
        self._codes = aligned_zeros(size, width, np.uint8)
        self._scales = np.empty(size, np.float32)
        self._errors = np.empty(size, np.float32)
        self._lengths = np.empty(size, np.float32)
        self._count = 0
        self._lock = threading.Lock()

    def candidates(
        self,
        vectors: NDArray[np.float32],
        query: NDArray[np.float32],
        metric: Metric,
        k: int,
        places: NDArray[np.intp],
    ) -> NDArray[np.intp]:
        """Return those of `places` whose vectors can be among the k best.

        Args:
            vectors: (m, d) all current vectors.
            query: (d,).
            metric: the metric of the scores.
            k: number of results; at most the number of places.
            places: ascending indices of the vectors to search.
        """
        self._encode(vectors)
        count = len(vectors)
        code, scales = _round(query[None])
        error = np.linalg.norm(query - code[0] * scales[0])
        signed = aligned_zeros(1, self._codes.shape[1], np.int8)[0]
        signed[: len(query)] = code[0]
        least, most = np.empty(count, np.float32), np.empty(count, np.float32)
        _bound_products(
            self._codes, self._scales, self._errors, self._lengths, signed.view(np.uint8),
            scales[0], error, np.linalg.norm(query), least, most,
        )  # fmt: skip
        if metric == "l2":  # -|x - q|² is 2 x · q - |x|², up to a constant
            squares = self._lengths[:count] ** 2
            least = 2 * least - (1 + _ROUNDING) * squares
            most = 2 * most - (1 - _ROUNDING) * squares
        if len(places) < count:
            least, most = least[places], most[places]
        found: NDArray[np.intp] = places[most >= np.partition(least, -k)[-k]]
        return found

    def _encode(self, vectors: NDArray[np.float32]) -> None:
        """Encode the vectors that are not encoded yet."""
        with self._lock:
            start, stop = self._count, len(vectors)
            if start >= stop:
                return
            new = slice(start, stop)
            given = vectors[new]
            codes, scales = _round(given)
            self._codes[new, : given.shape[1]] = (codes + 128).astype(np.uint8)
            self._scales[new] = scales
            self._errors[new] = np.linalg.norm(given - codes * scales[:, None], axis=1)
            self._lengths[new] = np.linalg.norm(given, axis=1)
            self._count = stop


def _round(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return integers (n, d) from -127 to 127 as floats, and the scale of each vector (n,)."""
    scales = np.abs(vectors).max(1) / np.float32(127)
    used = np.where(scales > 0, scales, np.float32(1))
    return np.rint(vectors / used[:, None]), scales
