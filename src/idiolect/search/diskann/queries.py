"""Queries as kernels read them, room for their answers, and a batch of them shared by threads.

A query may be answered in a few microseconds, so what every call costs beside that is kept small:
one pass in a kernel checks the numbers, finds the lengths and divides by them.
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
"""Queries in the work of one thread."""


@kernel
def _check_and_normalize(rows, normalize):  # type: ignore[no-untyped-def]
    """Check rows (padded, aligned_zeros) and, if asked, normalize each by its length.

    Returns -1, or the first row that is not finite, too large, or zero where that is divided by.
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
    """Return queries (q, padded dimension), of unit length under cosine; one may lack its axis.

    Raises:
        InputError: another dimension, values that are not finite, or zeros under cosine.
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
    """Return answers that found nothing: rows of -1 and scores of minus infinity, (queries, k)."""
    ids, scores = np.empty((queries, k), np.int64), np.empty((queries, k), np.float32)
    ids.fill(-1)  # `np.full` takes longer than all of this
    scores.fill(-np.inf)
    return ids, scores


def run_in_parallel(task: Callable[[slice], object], queries: int, threads: int | None) -> None:
    """Call `task` for parts of a batch, side by side; for one query or one thread, for all."""
    if queries == 1 or threads == 1:
        task(slice(0, queries))
    else:
        with ThreadPool(threads) as pool:
            pool.parallel_for(lambda start, stop: task(slice(start, stop)), queries, _CHUNK_POINTS)
