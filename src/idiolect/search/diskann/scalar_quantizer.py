"""Scalar quantization: short codes for graph traversal; exact vectors rerank the results.

Each dimension is stored as a 4-bit or 8-bit number with `x ≈ low + step · code`, between bounds
taken from the data. The query, multiplied by `step`, is rounded to signed bytes. The inner product
is then one of small integers, which takes one instruction for 64 bytes. Its constant part,
`query · low`, is equal for all rows and is omitted. With 32 bits, the vectors are the codes.

Few bits are enough if the rounding error is small relative to the distances between near
neighbours. This depends on the data: 384-dimensional text embeddings need 4 bits, many points in a
plane need 32. So the number of bits is chosen by measurement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.simd import dot, dot_int4, dot_int8, prefetch

__all__ = [
    "CACHE_LINE",
    "ScalarQuantizer",
    "aligned_zeros",
    "allocate_query_code",
    "estimate_product",
    "prefetch_row",
    "quantize_query",
]

CACHE_LINE = 64
"""Bytes of a cache line; rows are aligned and padded to it."""

_REACH = {4: 2.6, 8: 5.0}
"""Bounds in standard deviations, by bits; for 4 bits, those with the least error on normal data."""

# Number of probes, rank of their neighbours, and the accepted relative error; see `choose`.
_PROBES, _NEAR, _TOLERANCE = 200, 10, 0.05


def aligned_zeros(rows: int, width: int, dtype: Any) -> NDArray[Any]:
    """Return zeros (rows, width), aligned to a cache line."""
    size = rows * width * np.dtype(dtype).itemsize
    raw = np.zeros(size + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    array: NDArray[Any] = raw[start : start + size].view(dtype).reshape(rows, width)
    return array


@dataclass(frozen=True)
class ScalarQuantizer:
    """Encodes vectors to codes.

    `low` and `step` are float32 of the padded dimension; `bits` is 4, 8 or 32.
    """

    bits: int
    low: NDArray[np.float32]
    step: NDArray[np.float32]

    @property
    def lines(self) -> int:
        """Cache lines per row of codes."""
        return -(-len(self.low) * self.bits // 8 // CACHE_LINE)

    @classmethod
    def fit(cls, sample: NDArray[np.float32], bits: int) -> ScalarQuantizer:
        """Fit the bounds of each dimension to a sample (n, padded dimension)."""
        width = sample.shape[1]
        if bits == 32:
            return cls(32, np.zeros(width, np.float32), np.ones(width, np.float32))
        padded = -(-width // 128) * 128 if bits == 4 else -(-width // CACHE_LINE) * CACHE_LINE
        mean, spread = sample.mean(0, dtype=np.float64), sample.std(0, dtype=np.float64)
        low = np.maximum(sample.min(0), mean - _REACH[bits] * spread)
        high = np.minimum(sample.max(0), mean + _REACH[bits] * spread)
        step = np.zeros(padded, np.float32)
        step[:width] = (high - low) / (2**bits - 1)
        bounds = np.zeros(padded, np.float32)
        bounds[:width] = low
        return cls(bits, bounds, step)

    @classmethod
    def choose(cls, sample: NDArray[np.float32]) -> ScalarQuantizer:
        """Fit a quantizer with the fewest bits whose rounding error is small enough.

        A rounding error of norm `e` changes the squared distance `r²` to a query by about
        `2 r e / √d`. This must be a small fraction of `r²` for near neighbours.
        """
        probes = sample[:: -(-len(sample) // _PROBES)]
        squares = np.einsum("ij,ij->i", sample, sample)
        near: list[float] = []
        for probe in probes:
            distances = squares - 2 * (sample @ probe) + probe @ probe
            distances = np.sort(distances[distances > 1e-6 * squares.max()])[:_NEAR]
            near.extend(distances[-1:])
        dimension = np.count_nonzero(sample.std(0))
        if not near or not dimension:
            return cls.fit(sample, 4)
        radius = np.sqrt(np.quantile(near, 0.25))
        for bits in (4, 8):
            quantizer = cls.fit(sample, bits)
            error = np.sqrt(((probes - quantizer.decode(probes)) ** 2).sum(1).mean())
            if 2 * error / (radius * np.sqrt(dimension)) < _TOLERANCE:
                return quantizer
        return cls.fit(sample, 32)

    def encode(self, vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the codes (n, 64 * lines) of vectors (n, padded dimension)."""
        if self.bits == 32:
            return np.ascontiguousarray(vectors).view(np.uint8)
        codes = self._levels(vectors)
        if self.bits == 4:
            halves = codes.reshape(len(codes), -1, 2, CACHE_LINE)
            codes = (halves[:, :, 0] | halves[:, :, 1] * np.uint8(16)).reshape(len(codes), -1)
        return codes

    def decode(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return vectors (n, padded dimension) after a round trip through their codes."""
        if self.bits == 32:
            return vectors
        width = vectors.shape[1]
        return (self.low + self.step * self._levels(vectors))[:, :width]

    def _levels(self, vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
        levels = np.zeros((len(vectors), len(self.low)), np.float32)
        width = vectors.shape[1]
        used = np.where(self.step[:width] > 0, self.step[:width], 1)
        np.subtract(vectors, self.low[:width], out=levels[:, :width])
        levels[:, :width] /= used
        return np.clip(np.rint(levels, out=levels), 0, 2**self.bits - 1).astype(np.uint8)


@kernel
def allocate_query_code(lines, bits):  # type: ignore[no-untyped-def]
    """Return an aligned buffer for `quantize_query`; `lines` is the length of a row of codes."""
    buffer = np.empty(lines * (128 if bits == 4 else 64) + 64, np.uint8)
    return buffer[-buffer.ctypes.data % 64 :]


@kernel
def quantize_query(query, step, bits, place):  # type: ignore[no-untyped-def]
    """Write a query (float32) to `place` (uint8) as signed bytes; return its scale."""
    if bits == 32:
        floats = place.view(np.float32)
        for j in range(query.shape[0]):
            floats[j] = query[j]
        return np.float32(1)
    # Bits of non-negative floats sort like the floats, and only integer comparisons are vectorized.
    bits_of_largest = np.int32(0)
    for j in range(query.shape[0]):
        bits_of_largest = max(
            bits_of_largest, np.float32(query[j] * step[j]).view(np.int32) & np.int32(0x7FFFFFFF)
        )
    scale = np.int32(bits_of_largest).view(np.float32) / np.float32(127)
    inverse = np.float32(1) / scale if scale > 0 else np.float32(0)
    for j in range(query.shape[0]):
        place[j] = np.uint8(np.int8(np.rint(query[j] * step[j] * inverse)))
    return scale


@kernel
def prefetch_row(codes, row, lines):  # type: ignore[no-untyped-def]
    """Prefetch the codes of a row; `codes` is an address."""
    place = codes + row * (lines * 64)
    for line in range(min(lines, 8)):
        prefetch(place + line * 64)


@kernel
def estimate_product(codes, row, lines, bits, query, scale):  # type: ignore[no-untyped-def]
    """Estimate the inner product of a row and the query, up to a constant of the query.

    `codes` and `query` are addresses.
    """
    place = codes + row * (lines * 64)
    if bits == 4:
        return scale * np.float32(dot_int4(place, query, lines))
    if bits == 8:
        return scale * np.float32(dot_int8(place, query, lines))
    return dot(place, query, lines)
