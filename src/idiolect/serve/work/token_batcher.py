"""`TokenBatcher`: dynamic batching of texts from many requests.

One thread encodes. While it computes a batch, new rows are queued; the next batch takes rows of all
requests in turn, until it has enough tokens. So no request waits for a timer, the batch size adapts
to the load, and a request with thousands of texts does not delay one with a short query.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idiolect.serve.http_errors import OverloadedError, RequestError

__all__ = ["BatchReport", "TokenBatcher"]

_SHARE = 4
"""Maximum share of a batch's tokens that a request gets in one turn."""


@dataclass(frozen=True, slots=True)
class BatchReport:
    """Statistics of a batch, for metrics."""

    texts: int
    tokens: int
    """Number of tokens, with padding."""
    seconds: float
    waits: tuple[float, ...]
    """Seconds that each request waited until its first row was encoded."""


@dataclass(eq=False, slots=True)
class _Job:
    rows: Sequence[Sequence[int]]
    order: deque[int]
    """Indices of the rows still to be encoded, longest first."""
    vectors: NDArray[np.float32]
    missing: int
    future: Future[NDArray[np.float32]] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)
    is_new: bool = True


class TokenBatcher:
    """Encodes rows of ids in batches of similar lengths.

    Args:
        encode: Maps rows of ids to vectors. Shape of the result: (rows, dimensions).
        dimensions: Width of the vectors.
        tokens_per_batch: Maximum tokens of a batch, with padding; a longer row is a separate batch.
        max_waiting: Maximum number of queued tokens.
        max_requests: Maximum number of queued requests.
        report: Called after each batch, in the thread that encodes.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[Sequence[int]]], NDArray[np.float32]],
        dimensions: int,
        *,
        tokens_per_batch: int,
        max_waiting: int,
        max_requests: int,
        report: Callable[[BatchReport], None] = lambda report: None,
    ) -> None:
        self._encode, self._dimensions, self._report = encode, dimensions, report
        self._tokens_per_batch = tokens_per_batch
        self._max_waiting, self._max_requests = max_waiting, max_requests
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._speed = 0.0  # tokens per second, smoothed
        self.waiting_tokens = 0
        """Number of queued tokens."""
        self._thread = threading.Thread(target=self._work, name="encoder", daemon=True)
        self._thread.start()

    @property
    def waiting_requests(self) -> int:
        """Number of requests with queued rows."""
        return len(self._jobs)

    def submit(self, rows: Sequence[Sequence[int]]) -> Future[NDArray[np.float32]]:
        """Queue rows of ids; the vector of an empty row is zero.

        If the future is cancelled, its rows leave the queue.

        Raises:
            OverloadedError: Too many tokens or requests are queued.
            RequestError: The server is shutting down.
        """
        filled = [number for number, row in enumerate(rows) if row]
        job = _Job(
            rows,
            deque(sorted(filled, key=lambda number: -len(rows[number]))),
            np.zeros((len(rows), self._dimensions), np.float32),
            len(filled),
        )
        if not filled:
            job.future.set_result(job.vectors)
            return job.future
        tokens = sum(map(len, rows))
        with self._changed:
            if self._closed:
                raise RequestError(503, "the server is shutting down", retry_after=5)
            full = self.waiting_tokens and self.waiting_tokens + tokens > self._max_waiting
            if full or len(self._jobs) >= self._max_requests:
                seconds = self.waiting_tokens / self._speed if self._speed else 1.0
                raise OverloadedError("too many texts wait for the encoder", retry_after=seconds)
            self.waiting_tokens += tokens
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """End the thread; queued requests fail."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closed:
                    self._changed.wait()
                if self._closed:
                    break
                parts = self._take()
            if parts:
                self._run(parts)
        for job in self._jobs:
            if job.future.set_running_or_notify_cancel():
                error = RequestError(503, "the server is shutting down", retry_after=5)
                job.future.set_exception(error)

    def _take(self) -> list[tuple[_Job, list[int]]]:
        """Take rows of the waiting requests in turn, until a batch has enough tokens."""
        budget = self._tokens_per_batch
        parts: list[tuple[_Job, list[int]]] = []
        longest = count = 0
        for _ in range(len(self._jobs)):
            job = self._jobs.popleft()
            if job.future.cancelled():
                self.waiting_tokens -= sum(len(job.rows[number]) for number in job.order)
                continue
            share = budget // _SHARE if self._jobs or parts else budget
            taken: list[int] = []
            used = 0
            while job.order:
                size = len(job.rows[job.order[0]])
                width = max(longest, size)
                too_many = count and width * (count + 1) > budget
                if too_many or (taken and used + size > share):
                    break
                taken.append(job.order.popleft())
                longest, count, used = width, count + 1, used + size
            self.waiting_tokens -= used
            if taken:
                parts.append((job, taken))
            if job.order:
                self._jobs.append(job)
            if longest * (count + 1) > budget:
                break
        return parts

    def _run(self, parts: list[tuple[_Job, list[int]]]) -> None:
        began = time.monotonic()
        rows: list[Any] = [job.rows[number] for job, numbers in parts for number in numbers]
        waits = tuple(began - job.arrived for job, _ in parts if job.is_new)
        try:
            vectors = self._encode(rows)
        except Exception as error:
            if len(parts) > 1:  # the texts of one request must not fail those of the others
                for part in parts:
                    self._run([part])
                return
            self._fail([job for job, _ in parts], error)
            return
        seconds = time.monotonic() - began
        tokens = len(rows) * max(map(len, rows))
        speed = tokens / max(seconds, 1e-6)
        self._speed = 0.9 * self._speed + 0.1 * speed if self._speed else speed
        start = 0
        for job, numbers in parts:
            job.is_new = False
            job.vectors[numbers] = vectors[start : start + len(numbers)]
            start += len(numbers)
            job.missing -= len(numbers)
            if not job.missing and job.future.set_running_or_notify_cancel():
                job.future.set_result(job.vectors)
        self._report(BatchReport(len(rows), tokens, seconds, waits))

    def _fail(self, jobs: list[_Job], error: Exception) -> None:
        with self._changed:
            for job in jobs:
                self.waiting_tokens -= sum(len(job.rows[number]) for number in job.order)
                if job in self._jobs:
                    self._jobs.remove(job)
        for job in jobs:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(error)
