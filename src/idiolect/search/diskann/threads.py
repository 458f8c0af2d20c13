"""Share a range of work among threads: kernels run without Python's lock, so threads are enough.

The pieces depend on the amount of work alone and each writes its own part of the result, so what
comes out is the same whatever the number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

__all__ = ["Crew", "Marks", "by_target", "cores"]


def cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Crew:
    """Some threads, for as long as the `with` block lasts; with one, the caller does the work."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or cores()
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool:
            self._pool.shutdown()

    def share(self, task: Callable[[int, int], object], count: int, piece: int) -> None:
        """Call `task(start, stop)` for consecutive pieces of `range(count)`."""
        starts = range(0, count, piece)
        if self.threads == 1 or len(starts) < 2:
            for start in starts:
                task(start, min(start + piece, count))
            return
        if not self._pool:
            self._pool = ThreadPoolExecutor(self.threads)
        for _ in self._pool.map(lambda start: task(start, min(start + piece, count)), starts):
            pass


class Marks:
    """Byte arrays in which searches mark the rows they met, reused from one search to the next.

    One has a byte a row and a last one for the search's number, with which it marks: nothing has to
    be cleared until 255 searches have passed.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._free: list[NDArray[np.uint8]] = []

    def take(self) -> NDArray[np.uint8]:
        """Return an array nobody else uses."""
        try:
            return self._free.pop()
        except IndexError:
            return np.zeros(self.rows + 1, np.uint8)

    def give(self, marks: NDArray[np.uint8]) -> None:
        """Hand an array back."""
        self._free.append(marks)


def by_target(
    chosen: NDArray[np.int32], sources: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Turn edges around: who was chosen, and by whom.

    >>> by_target(np.array([[7, -1], [7, 8]], np.int32), np.array([1, 2]))
    (array([7, 8]), array([0, 2, 3]), array([1, 2, 2]))

    Args:
        chosen: Rows that each source chose, -1 for none (sources, most).
        sources: Rows.

    Returns:
        The targets, ascending; where the sources of each begin, and the end; the sources,
        ascending for each target.
    """
    pairs = (chosen.astype(np.int64) << 32) | sources[:, None]
    pairs = np.sort(pairs[chosen >= 0])
    targets = pairs >> 32
    starts = np.flatnonzero(np.diff(targets, prepend=-1, append=-1))
    return targets[starts[:-1]], starts, pairs & 0xFFFFFFFF
