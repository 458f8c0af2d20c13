"""Product quantization (PQ): one byte for every few dimensions (Jégou et al. 2011).

The dimensions are split into parts (subspaces). Each part has a codebook of 256 centroids, and a
vector is encoded as the number of its nearest centroid in each part. For a query, a lookup table
holds the score of each centroid; the score of a row is a sum of table entries. The entries are
`q · c - |c|²/2`, which ranks by distance. Under cosine this corrects for the shorter norm of
quantized vectors; for inner products the second term is omitted.

Vectors are rotated first, so that the parts are independent and have equal shares of the variance
(the parametric solution of optimized product quantization, Ge et al. 2013, §3.2): to their
principal components, which are dealt out to the parts. Half the bytes then lose less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idiolect.search.diskann.array_file import StreamedArray
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.thread_pool import ThreadPool

__all__ = [
    "SAMPLE",
    "ProductCodes",
    "build_lookup_table",
    "code_widths",
    "decode_row",
    "lookup_score",
]

_CENTROIDS = 256
SAMPLE = 25_000
"""Maximum number of vectors that codebooks are learned from."""
_ITERATIONS = 12  # of k-means
_NEGLIGIBLE = 1e-9  # variance, relative to the largest


def code_widths(dimension: int) -> tuple[int, ...]:
    """Return the possible numbers of dimensions per byte, most precise first."""
    if dimension <= 32:
        return (1,)
    return (4, 8, 16) if dimension <= 128 else (8, 16)


@kernel
def _assign_centroids(vectors, centroids, start, stop, codes):  # type: ignore[no-untyped-def]
    """Encode rows start..stop-1: write the nearest centroid of each part."""
    parts, width = centroids.shape[0], centroids.shape[1]
    scores = np.empty(_CENTROIDS, np.float32)
    for part in range(parts):
        half = np.zeros(_CENTROIDS, np.float32)
        for j in range(width):
            for c in range(_CENTROIDS):
                half[c] += np.float32(0.5) * centroids[part, j, c] * centroids[part, j, c]
        for row in range(start, stop):
            for c in range(_CENTROIDS):
                scores[c] = half[c]
            for j in range(width):
                value = vectors[row, part * width + j]
                for c in range(_CENTROIDS):
                    scores[c] -= value * centroids[part, j, c]
            best = 0
            for c in range(_CENTROIDS):
                if scores[c] < scores[best]:
                    best = c
            codes[row, part] = best


@kernel
def _update_centroids(vectors, codes, centroids, start, stop):  # type: ignore[no-untyped-def]
    """Move the centroids of parts start..stop-1 to the mean of their vectors."""
    width = centroids.shape[1]
    for part in range(start, stop):
        sums = np.zeros((width, _CENTROIDS), np.float64)
        counts = np.zeros(_CENTROIDS, np.int64)
        for row in range(codes.shape[0]):
            c = codes[row, part]
            counts[c] += 1
            for j in range(width):
                sums[j, c] += vectors[row, part * width + j]
        for c in range(_CENTROIDS):
            if counts[c]:
                for j in range(width):
                    centroids[part, j, c] = sums[j, c] / counts[c]


@kernel
def build_lookup_table(query, centroids, use_norms, table):  # type: ignore[no-untyped-def]
    """Fill `table` (parts, 256) with the score of each centroid for a query."""
    parts, width = centroids.shape[0], centroids.shape[1]
    for part in range(parts):
        for c in range(_CENTROIDS):
            table[part, c] = 0
        for j in range(width):
            value = query[part * width + j]
            half = np.float32(0.5) if use_norms else np.float32(0)
            for c in range(_CENTROIDS):
                centroid = centroids[part, j, c]
                table[part, c] += (value - half * centroid) * centroid


@kernel
def decode_row(codes, row, centroids, out):  # type: ignore[no-untyped-def]
    """Write the decoded vector of a row to `out` (padded dimension)."""
    width = centroids.shape[1]
    for j in range(out.shape[0]):
        part = j // width
        out[j] = centroids[part, j % width, codes[row, part]] if part < codes.shape[1] else 0


@kernel
def lookup_score(codes, row, table):  # type: ignore[no-untyped-def]
    """Return the score of a row; four independent sums hide the latency of the additions."""
    a = b = c = d = np.float32(0)
    parts = table.shape[0]
    whole = parts & ~3
    for part in range(0, whole, 4):
        a += table[part, codes[row, part]]
        b += table[part + 1, codes[row, part + 1]]
        c += table[part + 2, codes[row, part + 2]]
        d += table[part + 3, codes[row, part + 3]]
    for part in range(whole, parts):
        a += table[part, codes[row, part]]
    return (a + b) + (c + d)


@dataclass(frozen=True)
class ProductCodes:
    """The codebooks, and the rotation that is applied to vectors before encoding."""

    centroids: NDArray[np.float32]
    """float32 (parts, dimensions of a part, 256)."""
    rotation: NDArray[np.float32]
    """float32 (dimension, parts x dimensions of a part), with orthonormal rows."""

    @property
    def parts(self) -> int:
        """Number of parts: the bytes of a code."""
        return len(self.centroids)

    @classmethod
    def fit(
        cls,
        sample: NDArray[np.float32],
        dimension: int,
        seed: int,
        pool: ThreadPool,
        *,
        width: int | None = None,
    ) -> ProductCodes:
        """Learn the codebooks by k-means on a sample of vectors (n, padded dimension).

        A part has `width` dimensions, by default `code_widths(dimension)[0]`.
        """
        if width is None:
            width = code_widths(dimension)[0]
        parts = -(-dimension // width)
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.permutation(len(sample))[:SAMPLE])
        rotation = _balanced_rotation(sample[chosen, :dimension], parts, width)
        sample = sample[chosen, :dimension] @ rotation
        first = rng.integers(0, max(1, len(sample)), (parts, _CENTROIDS))
        split = sample.reshape(len(sample), parts, width)
        centroids = np.zeros((parts, width, _CENTROIDS), np.float32)
        if len(sample):
            picked = split[first, np.arange(parts)[:, None]]  # (parts, centroids, width)
            centroids[:] = picked.transpose(0, 2, 1)
        codes = np.empty((len(sample), parts), np.uint8)
        for _ in range(_ITERATIONS):
            pool.parallel_for(
                lambda a, b: _assign_centroids(sample, centroids, a, b, codes), len(sample), 512
            )
            pool.parallel_for(
                lambda a, b: _update_centroids(sample, codes, centroids, a, b), parts, 8
            )
        return cls(centroids, rotation)

    def arrays(
        self, codes: NDArray[np.uint8] | StreamedArray
    ) -> dict[str, NDArray[Any] | StreamedArray]:
        """Return the arrays to save: codes (n, parts), the centroids and the rotation."""
        return {"products": codes, "centres": self.centroids, "rotation": self.rotation}

    def rotate(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rotate vectors (n, padded dimension) for encoding: (n, columns of `rotation`)."""
        rotated: NDArray[np.float32] = vectors[:, : len(self.rotation)] @ self.rotation
        return rotated

    def encode(self, vectors: NDArray[np.float32], pool: ThreadPool) -> NDArray[np.uint8]:
        """Return the codes (n, parts) of vectors (n, padded dimension)."""
        codes = np.empty((len(vectors), self.parts), np.uint8)

        def encode(start: int, stop: int) -> None:
            chunk = self.rotate(vectors[start:stop])
            _assign_centroids(chunk, self.centroids, 0, stop - start, codes[start:stop])

        pool.parallel_for(encode, len(vectors), 1024)
        return codes


def _balanced_rotation(sample: NDArray[np.float32], parts: int, width: int) -> NDArray[np.float32]:
    """Return a rotation (dimension, parts x width) to principal components.

    Components are assigned in order of decreasing variance, each to the part with the smallest
    product of variances that is not full. Unused columns are zero. A sample with no more vectors
    than centroids is not rotated.
    """
    dimension = sample.shape[1]
    if len(sample) <= _CENTROIDS:
        return np.eye(dimension, parts * width, dtype=np.float32)
    variances, components = np.linalg.eigh(np.cov(sample, rowvar=False).reshape(dimension, -1))
    logs = np.log(np.maximum(variances, variances[-1] * _NEGLIGIBLE + np.finfo(float).tiny))
    rotation = np.zeros((dimension, parts * width), np.float32)
    room, products = np.full(parts, width), np.zeros(parts)
    for i in range(dimension - 1, -1, -1):
        part = int(np.where(room, products, np.inf).argmin())
        rotation[:, part * width + width - room[part]] = components[:, i]
        room[part] -= 1
        products[part] += logs[i] - logs[0]
    return rotation
