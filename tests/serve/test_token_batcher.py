"""Batches of many requests: bounded, fair, and independent of who leaves or fails."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from idiolect.serve.http_errors import OverloadedError, RequestError
from idiolect.serve.work.token_batcher import BatchReport, TokenBatcher


class _Model:
    """Sums ids; it waits while it is held."""

    def __init__(self) -> None:
        self.batches: list[list[list[int]]] = []
        self.go = threading.Event()
        self.started = threading.Semaphore(0)
        self.go.set()

    def __call__(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        self.batches.append([list(row) for row in rows])
        self.started.release()
        self.go.wait(10)
        if any(row[0] == 666 for row in rows):
            raise ValueError("damaged")
        return np.array([[sum(row), len(row)] for row in rows], np.float32)

    def hold(self, batcher: TokenBatcher) -> None:
        """Keep the model busy, so that what comes next waits."""
        self.go.clear()
        batcher.submit([[1]])
        self.started.acquire(timeout=10)
        self.batches.clear()


def _batcher(model: _Model, **options: int) -> TokenBatcher:
    bounds = {"tokens_per_batch": 8, "max_waiting": 1000, "max_requests": 100} | options
    return TokenBatcher(model, 2, **bounds)


def test_each_request_gets_its_own_rows_in_order() -> None:
    model, reports = _Model(), list[BatchReport]()
    batcher = TokenBatcher(
        model, 2, tokens_per_batch=8, max_waiting=99, max_requests=9, report=reports.append
    )
    found = batcher.submit([[1], [], [2, 3, 4], [5, 6]]).result(10)
    assert found.tolist() == [[1, 1], [0, 0], [9, 3], [11, 2]]
    assert batcher.submit([[], []]).result(10).tolist() == [[0, 0], [0, 0]]
    batcher.close()
    assert sum(report.texts for report in reports) == 3
    assert all(report.tokens <= 8 for report in reports)
    assert batcher.waiting_tokens == 0
    with pytest.raises(RequestError, match="shutting down"):
        batcher.submit([[1]])


def test_waiting_requests_share_a_batch_and_a_large_one_does_not_hold_up_a_small_one() -> None:
    model = _Model()
    batcher = _batcher(model)
    model.hold(batcher)
    large = batcher.submit([[7]] * 40)
    small = [batcher.submit([[n]]) for n in (1, 2, 3)]
    model.go.set()
    assert [one.result(10).tolist() for one in small] == [[[1, 1]], [[2, 1]], [[3, 1]]]
    assert large.result(10).shape == (40, 2)
    first = model.batches[0]
    assert [row for row in first if row != [7]] == [[1], [2], [3]]
    assert len(first) <= 8
    batcher.close()


def test_what_does_not_fit_into_the_queue_is_refused_with_a_time() -> None:
    model = _Model()
    batcher = _batcher(model, max_waiting=10, max_requests=2)
    model.hold(batcher)
    batcher.submit([[1] * 9])
    with pytest.raises(OverloadedError) as refused:
        batcher.submit([[1, 2]])
    assert refused.value.status == 429
    assert refused.value.retry_after is not None
    batcher.submit([[1]])
    with pytest.raises(OverloadedError):
        batcher.submit([[1]])
    model.go.set()
    batcher.close()
    alone = _batcher(_Model(), max_waiting=10)
    assert alone.submit([[1] * 30]).result(10).tolist() == [[30, 30]]
    alone.close()


def test_a_client_that_left_is_not_computed() -> None:
    model = _Model()
    batcher = _batcher(model)
    model.hold(batcher)
    left, stays = batcher.submit([[5] * 3] * 20), batcher.submit([[6]])
    left.cancel()
    model.go.set()
    assert stays.result(10).tolist() == [[6, 1]]
    batcher.close()
    assert model.batches == [[[6]]]
    assert batcher.waiting_tokens == 0


def test_a_failing_batch_fails_its_requests_only() -> None:
    batcher = _batcher(_Model())
    with pytest.raises(ValueError, match="damaged"):
        batcher.submit([[666], *[[1] * 8] * 3]).result(10)
    assert batcher.submit([[4]]).result(10).tolist() == [[4, 1]]
    assert batcher.waiting_tokens == batcher.waiting_requests == 0
    batcher.close()


def test_a_text_that_fails_does_not_fail_the_requests_it_shares_a_batch_with() -> None:
    model = _Model()
    batcher = _batcher(model)
    model.hold(batcher)
    before, bad, after = (batcher.submit(rows) for rows in ([[5]], [[666]], [[6], [7]]))
    model.go.set()
    assert before.result(10).tolist() == [[5, 1]]
    assert after.result(10).tolist() == [[6, 1], [7, 1]]
    with pytest.raises(ValueError, match="damaged"):
        bad.result(10)
    batcher.close()
    assert model.batches[0] == [[5], [666], [6], [7]]
    assert batcher.waiting_tokens == batcher.waiting_requests == 0
