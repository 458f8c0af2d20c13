"""Quantize vectors to one byte or one bit per dimension, and search them with rescoring.

    int8      round(x / scale), one scale per dimension: a quarter of the memory
    binary    the sign: one thirty-second of the memory (Yamada et al. 2021, 2106.00882)

Search ranks all codes approximately, then rescores the best candidates with the float query:
against the exact vectors if they are available (for example on disk), otherwise against the codes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.models.model_directory import replacing

__all__ = ["Precision", "QuantizedVectors"]

Precision = Literal["int8", "binary"]
"""8 bits or 1 bit per dimension."""

_BLOCK = 1 << 16


class QuantizedVectors:
    """Quantized vectors.

    >>> vectors = np.eye(16, dtype=np.float32)
    >>> QuantizedVectors.of(vectors, "int8").search(vectors[3:4], 1)[0]
    array([[3]])

    Args:
        codes: int8 (n, dimensions), or uint8 (n, ⌈dimensions / 8⌉) with the first dimension in the
            highest bit.
        scale: Size of one step of a code. Shape: (dimensions,).
        precision: `int8` or `binary`.
    """

    def __init__(
        self, codes: NDArray[Any], scale: NDArray[np.float32], precision: Precision
    ) -> None:
        self.codes = codes
        self.scale = scale
        self.precision: Precision = precision

    @classmethod
    def of(cls, vectors: NDArray[np.float32], precision: Precision) -> Self:
        """Quantize vectors block by block; they may be memory-mapped.

        Args:
            vectors: Shape (n, dimensions).
            precision: `int8` or `binary`.

        Raises:
            InputError: A vector is not finite.
            ConfigError: An unknown precision.
        """
        if precision not in get_args(Precision):
            raise ConfigError(
                f"unknown precision {precision!r}", hint="one of " + ", ".join(get_args(Precision))
            )
        blocks = [vectors[i : i + _BLOCK] for i in range(0, len(vectors), _BLOCK)]
        maximum = np.zeros(vectors.shape[1], dtype=np.float32)
        for block in blocks:
            maximum = np.maximum(maximum, np.abs(block).max(0))
        if not np.isfinite(maximum).all():
            raise InputError("vectors hold values that are not finite", hint="encode them again")
        if precision == "binary":
            bits = [np.packbits(block > 0, axis=1) for block in blocks]
            empty = np.empty((0, -(-vectors.shape[1] // 8)), dtype=np.uint8)
            return cls(np.concatenate([empty, *bits]), np.ones_like(maximum), precision)
        scale = np.where(maximum > 0, maximum / 127, 1).astype(np.float32)
        codes = np.empty(vectors.shape, dtype=np.int8)
        for number, block in enumerate(blocks):
            codes[number * _BLOCK :][: len(block)] = np.rint(block / scale)
        return cls(codes, scale, precision)

    def __len__(self) -> int:
        """Number of vectors."""
        return len(self.codes)

    @property
    def dimensions(self) -> int:
        """Width of the vectors."""
        return len(self.scale)

    def decode(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Return some vectors as floats; a bit becomes ±1. Shape: (rows, dimensions)."""
        codes = self.codes[rows]
        if self.precision == "binary":
            bits = np.unpackbits(codes.astype(np.uint8), axis=-1, count=self.dimensions)
            return bits.astype(np.float32) * 2 - 1
        return codes.astype(np.float32) * self.scale

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        exact: NDArray[np.float32] | None = None,
        rescore: int = 4,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the vectors with the largest inner product.

        Args:
            queries: Shape (q, dimensions).
            k: Number of vectors to find.
            exact: The float vectors, read for the candidates only.
            rescore: Rescore this many times k candidates.

        Returns:
            Row numbers and scores, best first. Shape: (q, k), both.

        Raises:
            InputError: The shapes of codes, queries and exact vectors do not match.
        """
        if queries.ndim != 2 or queries.shape[1] != self.dimensions:
            raise InputError(
                f"queries of the shape {queries.shape} for vectors of {self.dimensions} dimensions"
            )
        if exact is not None and exact.shape != (len(self), self.dimensions):
            raise InputError(
                f"{exact.shape} exact vectors for {(len(self), self.dimensions)} codes"
            )
        k = min(k, len(self))
        ids = np.empty((len(queries), k), dtype=np.int64)
        scores = np.empty((len(queries), k), dtype=np.float32)
        for number, query in enumerate(np.asarray(queries, dtype=np.float32)):
            candidates = _largest(self._coarse(query), min(k * max(rescore, 1), len(self)))
            rows = self.decode(candidates) if exact is None else exact[candidates]
            fine = rows @ query
            best = np.argsort(-fine, kind="stable")[:k]
            ids[number], scores[number] = candidates[best], fine[best]
        return ids, scores

    def _coarse(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score every code approximately; larger is nearer. Shape: (n,)."""
        scores = np.empty(len(self), dtype=np.float32)
        for start in range(0, len(self), _BLOCK):
            codes = self.codes[start : start + _BLOCK]
            if self.precision == "binary":
                apart = np.bitwise_count(codes ^ np.packbits(query > 0))
                scores[start : start + _BLOCK] = -apart.sum(1, dtype=np.int32)
            else:
                scores[start : start + _BLOCK] = codes.astype(np.float32) @ (query * self.scale)
        return scores

    def save(self, directory: str | Path) -> None:
        """Write `codes.npy` and `scale.npy` atomically.

        Raises:
            InputError: The directory cannot be written to.
        """
        with replacing(directory) as fresh:
            np.save(fresh / "codes.npy", self.codes, allow_pickle=False)
            np.save(fresh / "scale.npy", self.scale, allow_pickle=False)

    @classmethod
    def open(cls, directory: str | Path) -> Self:
        """Memory-map saved codes.

        Raises:
            CheckpointError: Files are missing or damaged, or have different shapes.
        """
        try:
            codes = np.load(Path(directory) / "codes.npy", mmap_mode="r", allow_pickle=False)
            scale = np.load(Path(directory) / "scale.npy", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"cannot read codes in {directory}: {error}", hint="quantize the vectors again"
            ) from error
        precision: Precision = "binary" if codes.dtype == np.uint8 else "int8"
        width = -(-len(scale) // 8) if precision == "binary" else len(scale)
        if codes.ndim != 2 or codes.shape[1] != width or scale.dtype != np.float32:
            raise CheckpointError(
                f"codes and scale in {directory} have different shapes",
                hint="quantize the vectors again",
            )
        return cls(codes, scale, precision)


def _largest(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the indices of the largest scores; ties are broken by index."""
    if count >= len(scores):
        return np.arange(len(scores))
    border = np.partition(scores, len(scores) - count)[len(scores) - count]
    above = np.flatnonzero(scores > border)
    level = np.flatnonzero(scores == border)[: count - len(above)]
    return np.concatenate([above, level])
