"""RaBitQ: one bit per dimension, the signs of a rotated vector (Gao and Long 2024).

A random rotation spreads a vector (minus the mean) evenly over its dimensions. The signs of the
result encode its direction, and one factor per row makes the estimated score unbiased. The query
has four bits per dimension, stored as four bit planes. The inner product is computed with AND and
population count, 64 dimensions at a time.

The rotation alternates random sign flips and Walsh–Hadamard transforms. A transform needs a power
of two, so the rounds alternate between the first and the last dimensions. The rotation is
orthogonal and fast, and is stored as its sign flips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.metric import METRICS
from idiolect.search.diskann.simd import popcount
from idiolect.search.diskann.thread_pool import ThreadPool

__all__ = ["SignCodes", "quantize_query_bits", "score_signs"]

_ROUNDS = 4  # of sign flips and transforms


@kernel
def _rotate(vector, flips):  # type: ignore[no-untyped-def]
    """Rotate a vector in place; `flips` (rounds, dimension) has elements -1 and 1."""
    width = vector.shape[0]
    span = 1
    while span * 2 <= width:
        span *= 2
    scale = np.float32(1 / np.sqrt(span))
    for round_ in range(flips.shape[0]):
        for j in range(width):
            vector[j] *= flips[round_, j]
        part = vector[:span] if round_ % 2 == 0 else vector[width - span :]
        step = 1
        while step < span:
            for block in range(0, span, 2 * step):
                for j in range(block, block + step):
                    left, right = part[j], part[j + step]
                    part[j] = left + right
                    part[j + step] = left - right
            step *= 2
        for j in range(span):
            part[j] *= scale


@kernel
def _encode(vectors, mean, flips, use_norms, codes, factors):  # type: ignore[no-untyped-def]
    """Write the signs of vectors as bits, and the factor and the constant of each."""
    width = mean.shape[0]
    rotated = np.empty(width, np.float32)
    for row in range(vectors.shape[0]):
        square = np.float32(0)
        length = np.float32(0)
        for j in range(width):
            value = vectors[row, j]
            square += value * value
            rotated[j] = value - mean[j]
            length += rotated[j] * rotated[j]
        _rotate(rotated, flips)
        total = np.float32(0)
        codes[row] = 0
        for j in range(width):
            total += abs(rotated[j])
            if rotated[j] > 0:
                codes[row, j >> 6] |= np.uint64(1) << np.uint64(j & 63)
        factors[row, 0] = length / total if total > 0 else np.float32(0)
        factors[row, 1] = np.float32(-0.5) * square if use_norms else np.float32(0)


@kernel
def quantize_query_bits(query, flips, rotated, planes, factors):  # type: ignore[no-untyped-def]
    """Rotate a query and quantize it to four bit planes (4, words).

    `factors` receives its minimum, its step and its sum.
    """
    width = rotated.shape[0]
    for j in range(width):
        rotated[j] = query[j]
    _rotate(rotated, flips)
    low, high, total = rotated[0], rotated[0], np.float32(0)
    for j in range(width):
        low, high = min(low, rotated[j]), max(high, rotated[j])
        total += rotated[j]
    step = (high - low) / np.float32(15)
    inverse = np.float32(1) / step if step > 0 else np.float32(0)
    planes[:] = 0
    for j in range(width):
        level = np.uint64(np.rint((rotated[j] - low) * inverse))
        for plane in range(4):
            bit = (level >> np.uint64(plane)) & np.uint64(1)
            planes[plane, j >> 6] |= bit << np.uint64(j & 63)
    factors[0], factors[1], factors[2] = low, step, total


@kernel
def score_signs(codes, factors, row, planes, query):  # type: ignore[no-untyped-def]
    """Return the estimated score of a row, up to a constant of the query."""
    ones = np.int64(0)
    levels = np.int64(0)
    for word in range(codes.shape[1]):
        bits = codes[row, word]
        ones += popcount(bits)
        for plane in range(4):
            levels += popcount(bits & planes[plane, word]) << plane
    product = np.float32(2) * (query[0] * np.float32(ones) + query[1] * np.float32(levels))
    return factors[row, 0] * (product - query[2]) + factors[row, 1]


@dataclass(frozen=True)
class SignCodes:
    """The codes of all rows, and the rotation.

    `codes` is uint64 (rows, words). `factors` is float32 (rows, 2): a factor and a constant.
    """

    codes: NDArray[np.uint64]
    factors: NDArray[np.float32]
    flips: NDArray[np.float32]

    @classmethod
    def of(
        cls, vectors: NDArray[np.float32], dimension: int, metric: int, seed: int, pool: ThreadPool
    ) -> SignCodes:
        """Encode vectors (n, padded dimension)."""
        rng = np.random.default_rng(seed)
        flips = rng.choice(np.array([-1, 1], np.float32), (_ROUNDS, dimension))
        mean = np.zeros(dimension, np.float32)
        if len(vectors):
            mean = vectors[:, :dimension].mean(0, dtype=np.float64).astype(np.float32)
        codes = np.zeros((len(vectors), -(-dimension // 64)), np.uint64)
        factors = np.zeros((len(vectors), 2), np.float32)
        use_norms = metric == METRICS["l2"]
        pool.parallel_for(
            lambda a, b: _encode(vectors[a:b], mean, flips, use_norms, codes[a:b], factors[a:b]),
            len(vectors),
            1024,
        )
        return cls(codes, factors, flips)
