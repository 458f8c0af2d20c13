"""Parallel loops on threads; kernels release the GIL.

The chunks of a loop depend only on its length, and each writes its own part of the result. So the
result does not depend on the number of threads.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

__all__ = ["ThreadPool", "VisitedSets", "available_cpus", "group_by_target", "work_in_background"]

_NICE = 10  # about a tenth of the CPU time of a normal thread


def available_cpus() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_LOCAL = threading.local()


def work_in_background() -> None:
    """Give the threads of pools that this thread opens a low priority, so that searches come first.

    These threads only run kernels, without the GIL. This thread itself keeps its priority: it
    sometimes holds the GIL, and with a low priority all other threads would wait for it.
    """
    _LOCAL.in_background = True


def _lower_priority() -> None:
    """Lower the priority of this thread. Only Linux has priorities per thread."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):
            priority = max(_NICE, os.getpriority(os.PRIO_PROCESS, thread))
            os.setpriority(os.PRIO_PROCESS, thread, priority)


class ThreadPool:
    """Threads for a `with` block; with one thread, the caller does the work.

    In the background (see `work_in_background`), the caller does none of the work.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or available_cpus()
        self._in_background = getattr(_LOCAL, "in_background", False)
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> ThreadPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool:
            self._pool.shutdown()

    def parallel_for(self, task: Callable[[int, int], object], count: int, chunk: int) -> None:
        """Call `task(start, stop)` for consecutive chunks of `range(count)`."""
        starts = range(0, count, chunk)
        if not self._in_background and (self.threads == 1 or len(starts) < 2):
            for start in starts:
                task(start, min(start + chunk, count))
            return
        if not self._pool:
            first = _lower_priority if self._in_background else None
            self._pool = ThreadPoolExecutor(self.threads, initializer=first)
        for _ in self._pool.map(lambda start: task(start, min(start + chunk, count)), starts):
            pass


class VisitedSets:
    """A pool of byte arrays in which searches mark visited rows.

    An array has one byte per row, and a last byte with the tag of the last search. A search marks
    rows with a new tag, so an array is cleared only once in 255 searches.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._free: list[NDArray[np.uint8]] = []

    def acquire(self) -> NDArray[np.uint8]:
        """Return an array that no other search uses."""
        try:
            return self._free.pop()
        except IndexError:
            return np.zeros(self.rows + 1, np.uint8)

    def release(self, visited: NDArray[np.uint8]) -> None:
        """Return an array to the pool."""
        self._free.append(visited)


def group_by_target(
    chosen: NDArray[np.int32], sources: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Group edges by target.

    >>> group_by_target(np.array([[7, -1], [7, 8]], np.int32), np.array([1, 2]))
    (array([7, 8]), array([0, 2, 3]), array([1, 2, 2]))

    Args:
        chosen: Targets of each source (sources, maximum targets), padded with -1.
        sources: Row numbers (sources,).

    Returns:
        The targets, ascending; the offsets of their sources, with a last one for the end; and the
        sources, ascending for each target.
    """
    pairs = (chosen.astype(np.int64) << 32) | sources[:, None]
    pairs = np.sort(pairs[chosen >= 0])
    targets = pairs >> 32
    starts = np.flatnonzero(np.diff(targets, prepend=-1, append=-1))
    return targets[starts[:-1]], starts, pairs & 0xFFFFFFFF
