"""Prepare queries for kernels, allocate their results, and distribute a batch over threads.

A query may take only a few microseconds, so the overhead of a call must be small: one pass of a
kernel validates and normalizes queries.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from idiolect.search.diskann.graph_rows import check_shape, invalid_vector, padded_width
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.metric import METRICS
from idiolect.search.diskann.scalar_quantizer import aligned_zeros
from idiolect.search.diskann.simd import dot
from idiolect.search.diskann.thread_pool import ThreadPool

__all__ = ["empty_results", "prepare_queries", "run_in_parallel"]

_CHUNK_POINTS = 16
"""Queries per task."""


@kernel
def _check_and_normalize(rows, normalize):  # type: ignore[no-untyped-def]
    """Validate aligned, padded rows, and optionally normalize them in place.

    Return the first row that is not finite, too large, or zero if it is to be normalized; -1 if all
    rows are valid.
    """
    lines = rows.shape[1] // 16
    for i in range(rows.shape[0]):
        place = rows.ctypes.data + i * lines * 64
        square = dot(place, place, lines)
        if not np.isfinite(square) or (normalize and square == 0):
            return i
        if normalize:
            length = np.sqrt(square)
            for j in range(rows.shape[1]):
                rows[i, j] /= length
    return -1


def prepare_queries(queries: ArrayLike, metric: int, dimension: int) -> NDArray[np.float32]:
    """Return queries (q, padded dimension), normalized under cosine; accept one as (dimension,).

    Raises:
        InputError: a query has another dimension, is not finite, or is zero under cosine.
    """
    given = np.atleast_2d(np.asarray(queries, np.float32))
    check_shape(given, dimension)
    padded = aligned_zeros(len(given), padded_width(dimension), np.float32)
    padded[:, :dimension] = given
    row = _check_and_normalize(padded, metric == METRICS["cosine"])
    if row >= 0:
        raise invalid_vector(row, zero=bool(np.abs(padded[row]).max() < 1))
    return padded


def empty_results(queries: int, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return ids of -1 and scores of minus infinity, both (queries, k)."""
    ids, scores = np.empty((queries, k), np.int64), np.empty((queries, k), np.float32)
    ids.fill(-1)  # `np.full` is slower
    scores.fill(-np.inf)
    return ids, scores


def run_in_parallel(task: Callable[[slice], object], queries: int, threads: int | None) -> None:
    """Call `task` for slices of a batch in parallel; use one slice for one query or thread."""
    if queries == 1 or threads == 1:
        task(slice(0, queries))
    else:
        with ThreadPool(threads) as pool:
            pool.parallel_for(lambda start, stop: task(slice(start, stop)), queries, _CHUNK_POINTS)
