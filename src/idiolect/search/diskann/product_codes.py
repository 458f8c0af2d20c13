"""Product quantisation: a byte for every few dimensions (Jégou et al. 2011).

The dimensions are cut into parts, each part has 256 centres, and a vector is the numbers of its
nearest centres. A query makes a table of its score with every centre; the score of a row is then a
sum of looked-up numbers. The table holds `q · c - |c|²/2`, which ranks by distance: for vectors of
unit length that undoes the shortening by rounding, for inner products the square is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.thread_pool import ThreadPool

__all__ = ["ProductCodes", "build_lookup_table", "lookup_score"]

_CENTROIDS = 256
_SAMPLE = 25_000
_ROUNDS = 12


@kernel
def _assign_centroids(vectors, centres, start, stop, codes):  # type: ignore[no-untyped-def]
    """Number the nearest centre of each part of rows start..stop-1."""
    parts, width = centres.shape[0], centres.shape[1]
    scores = np.empty(_CENTROIDS, np.float32)
    for part in range(parts):
        half = np.zeros(_CENTROIDS, np.float32)
        for j in range(width):
            for c in range(_CENTROIDS):
                half[c] += np.float32(0.5) * centres[part, j, c] * centres[part, j, c]
        for row in range(start, stop):
            for c in range(_CENTROIDS):
                scores[c] = half[c]
            for j in range(width):
                value = vectors[row, part * width + j]
                for c in range(_CENTROIDS):
                    scores[c] -= value * centres[part, j, c]
            best = 0
            for c in range(_CENTROIDS):
                if scores[c] < scores[best]:
                    best = c
            codes[row, part] = best


@kernel
def _update_centroids(vectors, codes, centres, start, stop):  # type: ignore[no-untyped-def]
    """Move centres of parts start..stop-1 to the mean of what they stand for."""
    width = centres.shape[1]
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
                    centres[part, j, c] = sums[j, c] / counts[c]


@kernel
def build_lookup_table(query, centres, squares, table):  # type: ignore[no-untyped-def]
    """Fill `table` (parts, 256) with a query's score with each centre."""
    parts, width = centres.shape[0], centres.shape[1]
    for part in range(parts):
        for c in range(_CENTROIDS):
            table[part, c] = 0
        for j in range(width):
            value = query[part * width + j]
            half = np.float32(0.5) if squares else np.float32(0)
            for c in range(_CENTROIDS):
                centre = centres[part, j, c]
                table[part, c] += (value - half * centre) * centre


@kernel
def lookup_score(codes, row, table):  # type: ignore[no-untyped-def]
    """Return the score of a row; four sums, so that they do not wait for each other."""
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
    """Codes of all rows and what they mean.

    `codes` is uint8 (rows, parts), `centres` float32 (parts, dimensions of a part, 256).
    """

    codes: NDArray[np.uint8]
    centres: NDArray[np.float32]

    @classmethod
    def of(
        cls, vectors: NDArray[np.float32], dimension: int, seed: int, pool: ThreadPool
    ) -> ProductCodes:
        """Learn the centres from a sample of vectors (n, padded dimension) and encode all.

        A byte stands for one dimension where there are few, for four where there are many.
        """
        width = 1 if dimension <= 32 else 4
        parts = -(-dimension // width)
        random = np.random.default_rng(seed)
        chosen = np.sort(random.permutation(len(vectors))[:_SAMPLE])
        sample = _widened(vectors[chosen], parts * width)
        first = random.integers(0, max(1, len(sample)), (parts, _CENTROIDS))
        cut = sample.reshape(len(sample), parts, width)
        centres = np.zeros((parts, width, _CENTROIDS), np.float32)
        if len(sample):
            picked = cut[first, np.arange(parts)[:, None]]  # (parts, centres, width)
            centres[:] = picked.transpose(0, 2, 1)
        codes = np.empty((len(sample), parts), np.uint8)
        for _ in range(_ROUNDS):
            pool.parallel_for(
                lambda a, b: _assign_centroids(sample, centres, a, b, codes), len(sample), 512
            )
            pool.parallel_for(
                lambda a, b: _update_centroids(sample, codes, centres, a, b), parts, 8
            )
        codes = np.empty((len(vectors), parts), np.uint8)

        def encode(start: int, stop: int) -> None:
            chunk = _widened(vectors[start:stop], parts * width)
            _assign_centroids(chunk, centres, 0, stop - start, codes[start:stop])

        pool.parallel_for(encode, len(vectors), 1024)
        return cls(codes, centres)


def _widened(vectors: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Return rows of exactly `width`, cut or with zeros behind."""
    if vectors.shape[1] >= width:
        return np.ascontiguousarray(vectors[:, :width])
    return np.pad(vectors, ((0, 0), (0, width - vectors.shape[1])))
