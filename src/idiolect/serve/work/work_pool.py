"""`WorkPool`: a thread pool for blocking work, with a bounded queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from idiolect.serve.http_errors import OverloadedError

__all__ = ["WorkPool"]

_T = TypeVar("_T")


class WorkPool:
    """Runs functions in its own threads.

    Args:
        name: The kind of work, for messages.
        threads: Number of threads.
        max_waiting: Maximum number of waiting functions.
    """

    def __init__(self, name: str, threads: int, max_waiting: int) -> None:
        self.name, self.limit = name, threads + max_waiting
        self.pending = 0
        """Number of running and waiting functions."""
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, function: Callable[..., _T], *args: Any, **options: Any) -> _T:
        """Run a function, and return its result.

        Raises:
            OverloadedError: The queue is full.
        """
        with self._lock:
            if self.pending >= self.limit:
                raise OverloadedError(f"too many requests wait for the {self.name}")
            self.pending += 1
        work = self._executor.submit(function, *args, **options)
        work.add_done_callback(self._done)
        return await asyncio.wrap_future(work)

    def _done(self, _: Any) -> None:
        with self._lock:  # called in the thread that did the work
            self.pending -= 1

    def close(self) -> None:
        """Drop waiting functions, and end the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)
