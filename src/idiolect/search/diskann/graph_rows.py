"""The arrays of a graph: one row per vector, with spare capacity.

| array        | shape                         | content                                     |
|--------------|-------------------------------|---------------------------------------------|
| `vectors`    | (capacity, padded dimension)  | float32; normalized under cosine            |
| `codes`      | (capacity, 64 · lines)        | uint8; quantized vectors, see below         |
| `norm_terms` | (capacity,), empty for cosine | float32; `-|x|²/2` of the decoded vector    |
| `neighbours` | (capacity, degree)            | int32; edges, padded with -1                |
| `hubs`       | (capacity, degree)            | int32; extra edges for inner products       |
| `alive`      | (capacity,)                   | False for deleted and for unused rows       |

A search scores codes: `query · x + weight · norm_terms[x]`. A weight of one ranks by Euclidean
distance, a weight of zero by inner product.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError
from idiolect.search.diskann.metric import METRICS, Metric
from idiolect.search.diskann.scalar_quantizer import ScalarQuantizer, aligned_zeros
from idiolect.search.diskann.thread_pool import VisitedSets

__all__ = [
    "GraphRows",
    "check_shape",
    "check_vectors",
    "invalid_vector",
    "metric_name",
    "padded_width",
]

_Floats = NDArray[np.float32]

_SAMPLE = 10_000
"""Number of rows that the quantizer is fitted to."""
_CHUNK = 16_384
"""Rows processed at once."""
_REFIT = 4
"""The quantizer is refitted when the number of rows has grown by this factor."""


def padded_width(dimension: int) -> int:
    """Return the dimension rounded up to whole cache lines of float32."""
    return -(-dimension // 16) * 16


def check_shape(vectors: NDArray[np.float32], dimension: int | None) -> None:
    """Validate the shape of vectors (n, dimension).

    Raises:
        InputError: the array has another number of axes, or another dimension.
    """
    if vectors.ndim != 2:
        raise InputError(
            f"vectors have {vectors.ndim} axes, not 2", hint="use an array of shape (n, dimension)"
        )
    if dimension is not None and vectors.shape[1] != dimension:
        raise InputError(
            f"vectors have {vectors.shape[1]} dimensions, the index has {dimension}",
            hint="encode them with the encoder the index was built with",
        )


def check_vectors(vectors: NDArray[np.float32], metric: int, dimension: int | None) -> None:
    """Validate vectors.

    Raises:
        InputError: a vector has another dimension, is not finite, or is zero under cosine.
    """
    check_shape(vectors, dimension)
    with np.errstate(over="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
    bad = ~np.isfinite(squares)
    if metric == METRICS["cosine"]:
        bad |= squares == 0
    if bad.any():
        row = int(bad.argmax())
        raise invalid_vector(row, zero=bool(squares[row] == 0))


def invalid_vector(row: int, *, zero: bool) -> InputError:
    """Return the error for a vector that is zero, or otherwise not finite or too large."""
    if zero:
        return InputError(
            f"vector {row} is zero, so its cosine is undefined", hint="omit it, or use metric l2"
        )
    return InputError(
        f"vector {row} has values that are not finite or too large",
        hint="omit it, or check its source",
    )


def metric_name(metric: int) -> Metric:
    """Return the name of a metric by its number."""
    return next(name for name, number in METRICS.items() if number == metric)


@dataclass
class GraphRows:
    """Vectors and the arrays derived from them.

    One thread may write at a time. A search uses the arrays that it started with.
    """

    metric: int
    dimension: int
    quantizer: ScalarQuantizer
    vectors: NDArray[np.float32]
    codes: NDArray[np.uint8]
    norm_terms: NDArray[np.float32]
    neighbours: NDArray[np.int32]
    hubs: NDArray[np.int32]
    alive: NDArray[np.bool_]
    count: int
    """Number of rows in use, including deleted ones; the others are spare capacity."""
    entry: int
    """The medoid, where searches start; -1 if there are no rows."""
    fitted: int
    """Number of rows when the quantizer was fitted."""
    free: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """Row numbers freed by a merge, ascending; the next insertions reuse them."""
    deleted: int = 0
    """Number of deleted rows that are still in the graph."""

    @cached_property
    def visited_sets(self) -> VisitedSets:
        """A pool of visited sets for searches in these arrays."""
        return VisitedSets(len(self.alive))

    @classmethod
    def of(cls, vectors: NDArray[np.float32], metric: int, degree: int) -> GraphRows:
        """Create rows for vectors (n, dimension), without neighbours.

        Raises:
            InputError: see `check_vectors`.
        """
        check_vectors(vectors, metric, None)
        count, dimension = vectors.shape
        width = padded_width(dimension)
        hubs = degree // 2 if metric == METRICS["inner"] else 0
        empty = cls(
            metric=metric,
            dimension=dimension,
            quantizer=ScalarQuantizer.fit(np.empty((0, width), np.float32), 32),
            vectors=aligned_zeros(0, width, np.float32),
            codes=aligned_zeros(0, 4 * width, np.uint8),
            norm_terms=np.empty(0, np.float32),
            neighbours=np.empty((0, degree - hubs), np.int32),
            hubs=np.empty((0, hubs), np.int32),
            alive=np.empty(0, np.bool_),
            count=0,
            entry=-1,
            fitted=0,
        )
        rows = empty._reallocated(count)
        rows.write(np.arange(count), vectors, count)
        rows.entry = rows.medoid()
        return rows

    @property
    def kernel_arrays(self) -> tuple[_Floats, NDArray[np.uint8], int, _Floats, _Floats]:
        """Arguments of kernels: vectors, codes, bits and steps of the quantizer, `norm_terms`."""
        return self.vectors, self.codes, self.quantizer.bits, self.quantizer.step, self.norm_terms

    def edges(self) -> NDArray[np.int32]:
        """Return neighbours and hubs together (count, degree), padded with -1."""
        used = self.neighbours[: self.count]
        if not self.hubs.shape[1]:
            return used
        both = np.concatenate([used, self.hubs[: self.count]], axis=1)
        return np.take_along_axis(both, np.argsort(both < 0, axis=1, kind="stable"), 1)

    def _fit_quantizer(self) -> None:
        """Choose a quantizer for the current rows, and re-encode them."""
        count = self.fitted = self.count
        sample = self.vectors[: count : -(-count // _SAMPLE)]
        self.quantizer = ScalarQuantizer.choose(sample)
        if self.quantizer.bits == 32:
            self.codes = self.vectors.view(np.uint8)
        else:
            self.codes = aligned_zeros(len(self.vectors), self.quantizer.lines * 64, np.uint8)
        self._encode_rows(np.arange(count))

    def medoid(self) -> int:
        """Return the row nearest to the mean, ignoring deleted rows; -1 if there is none."""
        alive = np.flatnonzero(self.alive[: self.count])
        if not len(alive):
            return -1
        pieces = [alive[start : start + _CHUNK] for start in range(0, len(alive), _CHUNK)]
        mean = sum(self.vectors[piece].sum(0, dtype=np.float64) for piece in pieces) / len(alive)
        distances = [((self.vectors[piece] - mean) ** 2).sum(1) for piece in pieces]
        return int(alive[np.concatenate(distances).argmin()])

    def write(self, places: NDArray[np.int64], vectors: NDArray[np.float32], count: int) -> None:
        """Write vectors to rows `places`; afterwards, `count` rows are in use.

        Refit the quantizer if the number of rows has grown by the factor `_REFIT`.
        """
        for start in range(0, len(places), _CHUNK):
            chunk = vectors[start : start + _CHUNK]
            if self.metric == METRICS["cosine"]:
                chunk = chunk / np.linalg.norm(chunk, axis=1, keepdims=True)
            self.vectors[places[start : start + _CHUNK], : self.dimension] = chunk
        self.neighbours[places] = -1
        self.hubs[places] = -1
        self.alive[places] = True
        self.count = count
        if count > _REFIT * self.fitted:
            self._fit_quantizer()
        else:
            self._encode_rows(places)

    def _encode_rows(self, places: NDArray[np.int64]) -> None:
        for start in range(0, len(places), _CHUNK):
            self._encode(places[start : start + _CHUNK])

    def _encode(self, places: NDArray[np.int64]) -> None:
        chunk = self.vectors[places]
        if self.quantizer.bits < 32:
            self.codes[places] = self.quantizer.encode(chunk)
        if self.metric != METRICS["cosine"]:
            decoded = self.quantizer.decode(chunk)
            self.norm_terms[places] = -0.5 * np.einsum("ij,ij->i", decoded, decoded)

    def _reallocated(self, capacity: int) -> GraphRows:
        """Return a copy with larger arrays."""
        old = len(self.alive)
        vectors = aligned_zeros(capacity, self.vectors.shape[1], np.float32)
        vectors[:old] = self.vectors
        codes = vectors.view(np.uint8)
        if self.quantizer.bits < 32:
            codes = aligned_zeros(capacity, self.codes.shape[1], np.uint8)
            codes[:old] = self.codes
        norm_terms = np.zeros(0 if self.metric == METRICS["cosine"] else capacity, np.float32)
        norm_terms[: len(self.norm_terms)] = self.norm_terms
        neighbours = np.full((capacity, self.neighbours.shape[1]), -1, np.int32)
        neighbours[:old] = self.neighbours
        hubs = np.full((capacity, self.hubs.shape[1]), -1, np.int32)
        hubs[:old] = self.hubs
        alive = np.zeros(capacity, np.bool_)
        alive[:old] = self.alive
        return replace(
            self,
            vectors=vectors,
            codes=codes,
            norm_terms=norm_terms,
            neighbours=neighbours,
            hubs=hubs,
            alive=alive,
        )

    def with_capacity(self, count: int) -> GraphRows:
        """Return rows with capacity for `count`: these, or a copy at least a quarter larger.

        If the quantizer has to be refitted, return a copy, so that running searches keep their
        codes.
        """
        refit = count > _REFIT * self.fitted
        if count <= len(self.alive) and not refit:
            return self
        return self._reallocated(max(count, len(self.alive) * 5 // 4))
