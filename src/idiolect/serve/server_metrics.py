"""`ServerMetrics`: Prometheus metrics of requests, queues, batches and models."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

if TYPE_CHECKING:
    from idiolect.serve.work.token_batcher import BatchReport

__all__ = ["ServerMetrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_TOKENS = (16, 64, 256, 1024, 2048, 4096, 8192, 16384)


class ServerMetrics:
    """The metrics of one process; with several workers, `text` adds up all of them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "idiolect_requests_total",
            "Requests by route and status.",
            ["route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "idiolect_request_seconds",
            "Seconds until a response was sent.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.open = Gauge(
            "idiolect_open_requests",
            "Requests being answered.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.waits = Histogram(
            "idiolect_encoder_queue_seconds",
            "Seconds that a request waited for the encoder.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_texts = Histogram(
            "idiolect_batch_texts",
            "Texts of a batch.",
            buckets=_COUNTS,
            registry=self.registry,
        )
        self.batch_tokens = Histogram(
            "idiolect_batch_tokens",
            "Tokens of a batch, with padding.",
            buckets=_TOKENS,
            registry=self.registry,
        )
        self.batch_seconds = Histogram(
            "idiolect_batch_seconds",
            "Seconds of inference of a batch.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.waiting_tokens = Gauge(
            "idiolect_waiting_tokens",
            "Tokens that wait for the encoder.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.waiting = Gauge(
            "idiolect_waiting_requests",
            "Requests that run or wait, by queue.",
            ["queue"],
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.new_tokens = Counter(
            "idiolect_new_tokens_total",
            "Tokens that the language model wrote.",
            registry=self.registry,
        )
        self.first_token = Histogram(
            "idiolect_first_token_seconds",
            "Seconds until the first text of a stream.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.reloads = Counter(
            "idiolect_reloads_total",
            "How often a rebuilt run was taken over.",
            registry=self.registry,
        )

    def record_batch(self, report: BatchReport) -> None:
        """Record a batch of the encoder."""
        self.batch_texts.observe(report.texts)
        self.batch_tokens.observe(report.tokens)
        self.batch_seconds.observe(report.seconds)
        for seconds in report.waits:
            self.waits.observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        everyone = CollectorRegistry()
        multiprocess.MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]
        return generate_latest(everyone)
