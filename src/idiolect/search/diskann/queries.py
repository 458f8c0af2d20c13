"""Prepare queries for kernels, allocate their results, and distribute a batch over threads.

A query may take only a few microseconds, so the overhead of a call must be small: a search in
memory is one call of one kernel, which also validates, aligns and normalizes the queries.
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

__all__ = [
    "allocate_query",
    "check_loaded",
    "empty_results",
    "load_query",
    "prepare_queries",
    "query_rows",
    "run_in_parallel",
]

_CHUNK_POINTS = 16
"""Queries per task."""


@kernel
def allocate_query(width):  # type: ignore[no-untyped-def]
    """Return an aligned buffer of zeros for `load_query`; `width` is the padded dimension."""
    buffer = np.zeros(width + 16, np.float32)
    first = (-buffer.ctypes.data % 64) // 4
    return buffer[first : first + width]


@kernel
def load_query(given, normalize, query):  # type: ignore[no-untyped-def]
    """Copy a query (dimension,) to an aligned buffer (padded dimension,), optionally normalized.

    Return whether it is valid: finite, not too large, and not zero if it is to be normalized.
    """
    for j in range(given.shape[0]):
        query[j] = given[j]
    place = query.ctypes.data
    square = dot(place, place, query.shape[0] // 16)
    if not np.isfinite(square) or (normalize and square == 0):
        return False
    if normalize:
        length = np.sqrt(square)
        for j in range(query.shape[0]):
            query[j] /= length
    return True


@kernel
def _load_all(given, normalize, queries):  # type: ignore[no-untyped-def]
    """Load queries, and return the first row that is not valid; -1 if all rows are."""
    for i in range(given.shape[0]):
        if not load_query(given[i], normalize, queries[i]):
            return i
    return -1


def query_rows(queries: ArrayLike, dimension: int) -> NDArray[np.float32]:
    """Return a copy of queries (q, dimension); accept one as (dimension,). Values are not checked.

    A kernel is compiled for each array layout, so the copy always has the same layout.

    Raises:
        InputError: a query has another dimension.
    """
    given = np.array(queries, np.float32, order="C", ndmin=2)
    check_shape(given, dimension)
    return given


def check_loaded(invalid: int, given: NDArray[np.float32]) -> None:
    """Raise an error if a row of queries was found to be invalid; -1 stands for none.

    Raises:
        InputError: the query is not finite, too large, or zero under cosine.
    """
    if invalid >= 0:
        raise invalid_vector(invalid, zero=bool(np.abs(given[invalid]).max() < 1))


def prepare_queries(queries: ArrayLike, metric: int, dimension: int) -> NDArray[np.float32]:
    """Return queries (q, padded dimension), normalized under cosine; accept one as (dimension,).

    Raises:
        InputError: a query has another dimension, is not finite, or is zero under cosine.
    """
    given = query_rows(queries, dimension)
    padded = aligned_zeros(len(given), padded_width(dimension), np.float32)
    check_loaded(_load_all(given, metric == METRICS["cosine"], padded), given)
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
