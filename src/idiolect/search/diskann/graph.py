"""DiskANN's graph in memory: build, search, insert, delete, merge, save and open.

Rows keep their numbers for as long as they live, so a number can stand for an item elsewhere; the
numbers of deleted rows are given out again after a merge. One thread writes at a time (others
wait); searches need no lock and see the graph before or after a write, or between two rows of it.
"""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from idiolect.errors import ConfigError, InputError
from idiolect.search.diskann.build import BuildPlan, connect, construct
from idiolect.search.diskann.filtered import search_kept
from idiolect.search.diskann.graph_file import read_rows, write_rows
from idiolect.search.diskann.graph_rows import (
    GraphRows,
    check_mask,
    check_vectors,
    metric_name,
)
from idiolect.search.diskann.graph_search import scan, search_graph
from idiolect.search.diskann.metric import METRICS, Metric
from idiolect.search.diskann.queries import blank, prepare, share
from idiolect.search.diskann.threads import Crew
from idiolect.search.diskann.update import repaired

__all__ = ["Graph"]

_ALPHA = 1.2
_WIDTH = 128
"""Finds 99 of 100 neighbours among 10,000 product titles for real, short queries; 64 finds 98.7."""
_SCAN = 4
"""What an exact score costs, in looks at a code."""


class Graph:
    """An index of vectors in memory; made by `build` or `open`.

    Example:
        >>> graph = Graph.build(vectors)                    # float32 (n, dimension)
        >>> ids, scores = graph.search(queries, 10)         # int64 and float32, (q, 10)
    """

    def __init__(self, rows: GraphRows, *, width: int, seed: int) -> None:
        self._rows = rows
        self._plan = BuildPlan(width, _ALPHA, seed)
        self._lock = threading.RLock()

    @classmethod
    def build(
        cls,
        vectors: ArrayLike,
        *,
        metric: Metric = "cosine",
        degree: int = 64,
        width: int = 100,
        seed: int = 0,
        threads: int | None = None,
    ) -> Graph:
        """Build the graph of vectors; row `i` is vector `i`.

        Args:
            vectors: float32 (n, dimension), n from 0 on; copied.
            metric: What nearest means.
            degree: Edges of a row, 4 bytes each; more are faster at high recall.
            width: GraphRows kept in view while a new one looks for neighbours: more is slower to
                build and better.
            seed: Of the order in which rows are placed. The same seed gives the same graph.
            threads: How many to use, all processors by default; the graph does not depend on it.

        Raises:
            InputError: vectors of a wrong shape, not finite, or zero under cosine.
            ConfigError: an unknown metric, or a degree or width that makes no sense.
        """
        if metric not in METRICS:
            raise ConfigError(f"unknown metric {metric!r}", hint=f"one of {', '.join(METRICS)}")
        if degree < 2 or width < 2:
            raise ConfigError(f"degree {degree}, width {width}", hint="both must be 2 or more")
        given = np.asarray(vectors, np.float32)
        rows = GraphRows.of(given, METRICS[metric], degree)
        graph = cls(rows, width=width, seed=seed)
        if rows.count:
            with Crew(threads) as crew:
                construct(rows, graph._plan, crew)
        return graph

    def __len__(self) -> int:
        """Count the rows that can be found."""
        rows = self._rows
        return rows.count - len(rows.free) - rows.deleted

    @property
    def rows(self) -> int:
        """Row numbers given out so far, those of deleted rows included: the length of a mask."""
        return self._rows.count

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self._rows.dimension

    @property
    def metric(self) -> Metric:
        """What nearest means."""
        return metric_name(self._rows.metric)

    @property
    def memory(self) -> int:
        """Bytes the arrays take."""
        rows = self._rows
        arrays = [rows.vectors, rows.side, rows.neighbours, rows.hubs, rows.alive]
        if rows.quantiser.bits < 32:
            arrays.append(rows.codes)
        return sum(array.nbytes for array in arrays)

    @property
    def deleted(self) -> int:
        """Deleted rows that a merge would take out."""
        return self._rows.deleted

    def vectors(self, ids: ArrayLike) -> NDArray[np.float32]:
        """Return vectors (n, dimension) by row; of unit length under cosine."""
        return self._rows.vectors[np.asarray(ids, np.int64), : self.dimension]

    def search(
        self,
        queries: ArrayLike,
        k: int,
        *,
        width: int | None = None,
        keep: NDArray[np.bool_] | None = None,
        threads: int | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the nearest rows of each query.

        Args:
            queries: float32 (q, dimension), or (dimension,) for one.
            k: How many to find.
            width: Candidates kept in view, at least `k`: more is slower and finds more. By default
                128 or twice `k`.
            keep: bool (rows,): only these rows may be found.
            threads: How many answer a batch, all processors by default.

        Returns:
            ids int64 (q, k), nearest first, -1 where fewer than `k` rows can be found; scores
            float32 (q, k): cosine or inner product, or the negated squared distance for L2; minus
            infinity where there is no row.

        Raises:
            InputError: queries of another dimension, not finite or zero under cosine, a mask of
                another length, or a `k` or `width` below one.
        """
        rows = self._rows
        if k < 1 or (width is not None and width < 1):
            raise InputError(f"k is {k} and width {width}", hint="both must be 1 or more")
        prepared = prepare(queries, rows.metric, rows.dimension)
        ids, scores = blank(len(prepared), k)
        if rows.entry < 0:
            return ids, scores
        wide = max(k, width or max(_WIDTH, 2 * k))
        if keep is None and not rows.deleted:
            _search_all(rows, prepared, wide, ids, scores, threads)
        else:
            _search_kept(rows, keep, prepared, wide, ids, scores, threads)
        return ids, scores

    def insert(self, vectors: ArrayLike, *, threads: int | None = None) -> NDArray[np.int64]:
        """Add vectors (n, dimension); returns their row numbers, int64 (n,).

        Numbers of rows that were deleted and merged are given out again, smallest first, then new
        ones.

        Raises:
            InputError: see `build`; then nothing is added.
        """
        given = np.atleast_2d(np.asarray(vectors, np.float32))
        with self._lock:
            rows = self._rows
            check_vectors(given, rows.metric, rows.dimension)
            reused = rows.free[: len(given)]
            fresh = np.arange(rows.count, rows.count + len(given) - len(reused))
            places = np.concatenate([reused, fresh]).astype(np.int64)
            if not len(places):
                return places
            placed = rows.count - len(rows.free)
            count = rows.count + len(fresh)
            rows = rows.grown(count)
            rows.put(places, given, count)
            rows.free = rows.free[len(reused) :]
            self._place(rows, places, placed, threads)
            self._rows = rows
            return places

    def _place(
        self, rows: GraphRows, places: NDArray[np.int64], placed: int, threads: int | None
    ) -> None:
        """Give rows their neighbours."""
        if not placed:
            rows.entry, places, placed = int(places[0]), places[1:], 1
        with Crew(threads) as crew:
            connect(rows, places, placed, self._plan, crew)

    def delete(self, ids: ArrayLike) -> None:
        """Delete rows: from now on nothing finds them. `merge` closes the holes.

        Raises:
            InputError: a row that does not exist or was deleted already; then none is deleted.
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
        """Take deleted rows out of the graph; their numbers become free.

        May run in a thread of its own: searches go on, writers wait.
        """
        with self._lock:
            rows = self._rows
            if not rows.deleted:
                return
            with Crew(threads) as crew:
                self._rows = repaired(rows, self._plan, crew)

    def snapshot(self) -> GraphRows:
        """Return the arrays as they are now, which later writes may change; for other forms."""
        return self._rows

    def save(self, path: str | Path) -> None:
        """Write the graph as one file, which appears whole or not at all.

        Raises:
            InputError: the file cannot be written.
        """
        with self._lock:
            facts = {"width": self._plan.width, "seed": self._plan.seed}
            write_rows(path, self._rows, facts)

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> Graph:
        """Open a saved graph; its pages are shared with other processes that open it.

        What is changed afterwards stays in this process until it is saved.

        Args:
            path: The file.
            verify: Read the whole file and compare its checksums. Without it only the header is
                checked, and pages are read when a search needs them.

        Raises:
            CheckpointError: the file is missing, damaged, or no graph.
        """
        rows, facts = read_rows(path, verify=verify)
        return cls(rows, width=facts["width"], seed=facts["seed"])


def _search_all(
    rows: GraphRows,
    queries: NDArray[np.float32],
    width: int,
    ids: NDArray[np.int64],
    scores: NDArray[np.float32],
    threads: int | None,
) -> None:
    """Walk the graph."""

    def task(part: slice) -> None:
        seen = rows.marks.take()
        search_graph(
            *rows.steering, rows.metric, rows.neighbours, rows.hubs, rows.entry,
            queries[part], width, seen, ids[part], scores[part],
        )  # fmt: skip
        rows.marks.give(seen)

    share(task, len(queries), threads)


def _search_kept(
    rows: GraphRows,
    keep: NDArray[np.bool_] | None,
    queries: NDArray[np.float32],
    width: int,
    ids: NDArray[np.int64],
    scores: NDArray[np.float32],
    threads: int | None,
) -> None:
    """Walk the graph where that is cheaper, look at every kept row where it is not."""
    keep = check_mask(keep, rows.alive[: rows.count])
    kept = int(np.count_nonzero(keep))
    if not kept:
        return
    effort = min(_SCAN * kept, rows.count)
    walk = width * rows.count // kept * rows.neighbours.shape[1] // 2 < effort
    chosen = cache(lambda: np.flatnonzero(keep))  # takes longer than a walk, which needs it rarely

    def task(part: slice) -> None:
        left = np.arange(part.start, part.stop)
        if walk:
            seen = rows.marks.take()
            search_kept(
                *rows.steering, rows.metric, rows.neighbours, rows.hubs, rows.entry, queries[part],
                width, keep, effort, seen, ids[part], scores[part],
            )  # fmt: skip
            rows.marks.give(seen)
            left = left[ids[part, 0] == -2]
        for i in left:
            one = slice(i, i + 1)
            scan(rows.vectors, rows.metric, chosen(), queries[one], ids[one], scores[one])

    share(task, len(queries), threads)
