"""DiskANN's graph in memory: build, search, insert, delete, merge, save and open.

A row keeps its number until it is deleted, so the number can identify an item elsewhere. After a
merge, the numbers of deleted rows are reused. One thread writes at a time; others wait. Searches
need no lock. They see the graph before or after a write, or with some of its rows written.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from idiolect.errors import ConfigError, InputError
from idiolect.search.diskann.build import BuildConfig, build_graph, insert_points
from idiolect.search.diskann.consolidate import consolidate
from idiolect.search.diskann.filtered_search import prefers_graph, scan_masked, search_masked
from idiolect.search.diskann.graph_file import read_rows, write_rows
from idiolect.search.diskann.graph_rows import (
    GraphRows,
    check_vectors,
    metric_name,
)
from idiolect.search.diskann.graph_search import search_graph
from idiolect.search.diskann.metric import METRICS, Metric
from idiolect.search.diskann.queries import (
    check_loaded,
    empty_results,
    prepare_queries,
    query_rows,
    run_in_parallel,
)
from idiolect.search.diskann.row_mask import RowMask, check_mask
from idiolect.search.diskann.thread_pool import ThreadPool

__all__ = ["Graph"]

_ALPHA = 1.2
_LIST_SIZE = 160
"""Default search list: recall 0.996 on 10,000 product titles with real, short queries (three
seeds); 128 has 0.991."""


class Graph:
    """A vector index in memory; create it with `build` or `open`.

    Example:
        >>> graph = Graph.build(vectors)                    # float32 (n, dimension)
        >>> ids, scores = graph.search(queries, 10)         # int64 and float32, (q, 10)
    """

    def __init__(self, rows: GraphRows, *, list_size: int, seed: int) -> None:
        self._rows = rows
        self._config = BuildConfig(list_size, _ALPHA, seed)
        self._lock = threading.RLock()

    @classmethod
    def build(
        cls,
        vectors: ArrayLike,
        *,
        metric: Metric = "cosine",
        degree: int = 64,
        list_size: int = 100,
        seed: int = 0,
        threads: int | None = None,
    ) -> Graph:
        """Build a graph of vectors; row `i` is vector `i`.

        Args:
            vectors: float32 (n, dimension); may be empty; copied.
            metric: `cosine`, `inner` (inner product) or `l2` (Euclidean distance).
            degree: Maximum edges per row (R in the paper), 4 bytes each; more are faster at high
                recall.
            list_size: Size of the search list while building (L in the paper; `ef_construction` of
                HNSW). Larger is slower to build and has better recall.
            seed: Seed of the insertion order. The same seed builds the same graph.
            threads: Number of threads, by default one per processor; it does not affect the graph.

        Raises:
            InputError: vectors of a wrong shape, not finite, or zero under cosine.
            ConfigError: an unknown metric, or a degree or list size below 2.
        """
        if metric not in METRICS:
            raise ConfigError(f"unknown metric {metric!r}", hint=f"one of {', '.join(METRICS)}")
        if degree < 2 or list_size < 2:
            raise ConfigError(
                f"degree {degree}, list_size {list_size}", hint="use 2 or more for both"
            )
        given = np.asarray(vectors, np.float32)
        rows = GraphRows.of(given, METRICS[metric], degree)
        graph = cls(rows, list_size=list_size, seed=seed)
        if rows.count:
            with ThreadPool(threads) as pool:
                build_graph(rows, graph._config, pool)
        return graph

    def __len__(self) -> int:
        """Return the number of rows that are not deleted."""
        rows = self._rows
        return rows.count - len(rows.free) - rows.deleted

    @property
    def rows(self) -> int:
        """Number of rows, including deleted ones: the length of a mask."""
        return self._rows.count

    @property
    def dimension(self) -> int:
        """Number of vector dimensions."""
        return self._rows.dimension

    @property
    def metric(self) -> Metric:
        """The metric of the index."""
        return metric_name(self._rows.metric)

    @property
    def memory(self) -> int:
        """Size of the arrays in bytes."""
        rows = self._rows
        arrays = [rows.vectors, rows.norm_terms, rows.neighbours, rows.hubs, rows.alive]
        if rows.quantizer.bits < 32:
            arrays.append(rows.codes)
        return sum(array.nbytes for array in arrays)

    @property
    def deleted(self) -> int:
        """Number of deleted rows that are still in the graph; a merge removes them."""
        return self._rows.deleted

    def vectors(self, ids: ArrayLike) -> NDArray[np.float32]:
        """Return the vectors (n, dimension) of rows; normalized under cosine."""
        return self._rows.vectors[np.asarray(ids, np.int64), : self.dimension]

    def search(
        self,
        queries: ArrayLike,
        k: int,
        *,
        list_size: int | None = None,
        mask: RowMask | NDArray[np.bool_] | None = None,
        threads: int | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the nearest rows of each query.

        Args:
            queries: float32 (q, dimension), or (dimension,) for one.
            k: Number of results.
            list_size: Size of the search list (`ef` of HNSW), at least `k`; by default 160 or
                twice `k`. Larger is slower and has better recall.
            mask: bool (rows,); only these rows can be found.
            threads: Number of threads for a batch, by default one per processor.

        Returns:
            ids int64 (q, k), nearest first, padded with -1 if there are fewer than `k` rows; scores
            float32 (q, k): cosine, inner product or negated squared distance, padded with minus
            infinity.

        Raises:
            InputError: queries of another dimension, not finite, or zero under cosine; a mask of
                another length; or a `k` or `list_size` below 1.
        """
        rows = self._rows
        if k < 1 or (list_size is not None and list_size < 1):
            raise InputError(f"k is {k} and list_size {list_size}", hint="use 1 or more for both")
        wide = max(k, list_size or max(_LIST_SIZE, 2 * k))
        if mask is None and not rows.deleted and rows.entry >= 0:
            return _search_all(rows, query_rows(queries, rows.dimension), wide, k, threads)
        prepared = prepare_queries(queries, rows.metric, rows.dimension)
        ids, scores = empty_results(len(prepared), k)
        if rows.entry >= 0:
            _search_masked(rows, mask, prepared, wide, ids, scores, threads)
        return ids, scores

    def insert(self, vectors: ArrayLike, *, threads: int | None = None) -> NDArray[np.int64]:
        """Add vectors (n, dimension) and return their row numbers, int64 (n,).

        Numbers freed by a merge are reused first, in ascending order.

        Raises:
            InputError: see `build`; nothing is added.
        """
        given = np.atleast_2d(np.asarray(vectors, np.float32))
        with self._lock:
            rows = self._rows
            check_vectors(given, rows.metric, rows.dimension)
            reused = rows.free[: len(given)]
            appended = np.arange(rows.count, rows.count + len(given) - len(reused))
            places = np.concatenate([reused, appended]).astype(np.int64)
            if not len(places):
                return places
            placed = rows.count - len(rows.free)
            count = rows.count + len(appended)
            rows = rows.with_capacity(count)
            rows.write(places, given, count)
            rows.free = rows.free[len(reused) :]
            self._connect(rows, places, placed, threads)
            self._rows = rows
            return places

    def _connect(
        self, rows: GraphRows, places: NDArray[np.int64], placed: int, threads: int | None
    ) -> None:
        """Connect new rows to the graph."""
        if not placed:
            rows.entry, places, placed = int(places[0]), places[1:], 1
        with ThreadPool(threads) as pool:
            insert_points(rows, places, placed, self._config, pool)

    def delete(self, ids: ArrayLike) -> None:
        """Delete rows: searches no longer return them. `merge` removes them from the graph.

        Raises:
            InputError: a row does not exist or is already deleted; none is deleted.
        """
        wanted = np.unique(np.asarray(ids, np.int64))
        with self._lock:
            rows = self._rows
            inside = (wanted >= 0) & (wanted < rows.count)
            known = inside & rows.alive[np.where(inside, wanted, 0)] if rows.count else inside
            if not known.all():
                raise InputError(f"there is no row {wanted[~known][0]}", hint="it may be deleted")
            rows.deleted += len(wanted)
            rows.alive[wanted] = False

    def merge(self, *, threads: int | None = None) -> None:
        """Remove deleted rows from the graph and free their numbers (see `consolidate`).

        It may run in its own thread: searches continue, writers wait.
        """
        with self._lock:
            rows = self._rows
            if not rows.deleted:
                return
            with ThreadPool(threads) as pool:
                self._rows = consolidate(rows, self._config, pool)

    def snapshot(self) -> GraphRows:
        """Return the current arrays, which later writes may change; for `DiskGraph`."""
        return self._rows

    def save(self, path: str | Path) -> None:
        """Write the graph atomically to one file.

        Raises:
            InputError: the file cannot be written.
        """
        with self._lock:
            facts = {"width": self._config.list_size, "seed": self._config.seed}
            write_rows(path, self._rows, facts)

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> Graph:
        """Open a saved graph by mapping its file into memory, shared with other processes.

        Later changes stay in this process until they are saved.

        Args:
            path: The file.
            verify: Read the whole file and compare its checksums. Otherwise only the header is
                checked, and pages are read on first access.

        Raises:
            CheckpointError: the file is missing, damaged, or not a graph.
        """
        rows, facts = read_rows(path, verify=verify)
        return cls(rows, list_size=facts["width"], seed=facts["seed"])


def _search_all(
    rows: GraphRows,
    queries: NDArray[np.float32],
    list_size: int,
    k: int,
    threads: int | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Answer queries (q, dimension) by greedy search over all rows."""
    ids, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    if len(queries) == 1 or threads == 1:  # slices would take longer than the rest of the call
        check_loaded(_search_part(rows, queries, list_size, ids, scores), queries)
        return ids, scores
    invalid: list[int] = []

    def task(part: slice) -> None:
        row = _search_part(rows, queries[part], list_size, ids[part], scores[part])
        if row >= 0:
            invalid.append(part.start + row)

    run_in_parallel(task, len(queries), threads)
    check_loaded(min(invalid, default=-1), queries)
    return ids, scores


def _search_part(
    rows: GraphRows,
    queries: NDArray[np.float32],
    list_size: int,
    ids: NDArray[np.int64],
    scores: NDArray[np.float32],
) -> int:
    """Answer queries on this thread; return the first that is not valid, or -1."""
    visited = rows.visited_sets.acquire()
    invalid: int = search_graph(
        *rows.kernel_arrays, rows.metric, rows.neighbours, rows.hubs, rows.entry,
        queries, list_size, visited, ids, scores,
    )  # fmt: skip
    rows.visited_sets.release(visited)
    return invalid


def _search_masked(
    rows: GraphRows,
    mask: RowMask | NDArray[np.bool_] | None,
    queries: NDArray[np.float32],
    list_size: int,
    ids: NDArray[np.int64],
    scores: NDArray[np.float32],
    threads: int | None,
) -> None:
    """Answer queries from a mask by greedy search, or by a scan if that is cheaper."""
    allowed = check_mask(mask, rows.alive[: rows.count])
    kept = allowed.count
    if not kept:
        return
    use_graph = prefers_graph(list_size, rows.neighbours.shape[1], kept, rows.count)

    def task(part: slice) -> None:
        left = np.arange(part.start, part.stop)
        if use_graph:
            visited = rows.visited_sets.acquire()
            search_masked(
                *rows.kernel_arrays, rows.metric, rows.neighbours, rows.hubs, rows.entry,
                queries[part], list_size, allowed.mask, kept, visited, ids[part], scores[part],
            )  # fmt: skip
            rows.visited_sets.release(visited)
            left = left[ids[part, 0] == -2]
        for i in left:
            one = slice(i, i + 1)
            scan_masked(
                *rows.kernel_arrays, rows.metric, allowed.rows, queries[one], list_size,
                ids[one], scores[one],
            )  # fmt: skip

    run_in_parallel(task, len(queries), threads)
