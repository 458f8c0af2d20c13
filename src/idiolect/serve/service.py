"""`Service`: the state of a server, which every route uses."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request

from idiolect.serve.access.api_keys import ApiKeys
from idiolect.serve.http_errors import RequestError
from idiolect.serve.serve_settings import ServeSettings
from idiolect.serve.served_parts import ServedParts
from idiolect.serve.server_metrics import ServerMetrics
from idiolect.serve.work.text_writer import TextWriter
from idiolect.serve.work.work_pool import WorkPool

__all__ = ["Service", "Serving", "service_of"]

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)
_SEARCHES = 8
"""Number of search threads: more than processors, since threads wait for the encoder. But with more
than 8, they mostly wait for the interpreter's lock: 16 clients were answered more slowly."""

_RETRY = 60.0
"""Seconds until a rebuilt run that could not be opened is tried again."""


class Service:
    """The served parts, and the threads that do the work.

    Args:
        settings: The settings.

    Raises:
        IdiolectError: There is nothing to serve, or it cannot be loaded.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.metrics = ServerMetrics()
        self.keys = ApiKeys(settings.api_key_hashes, settings.keys)
        self.parts = ServedParts(settings, self.metrics.record_batch)
        self.searches = WorkPool("index", _SEARCHES, settings.max_waiting_requests)
        self.models = WorkPool("model", 1, settings.max_waiting_requests)
        """Reranks, recommends, and loads models."""
        self._writes = WorkPool("writer", 1, settings.max_waiting_requests)
        self.stopping = threading.Event()
        """Set when the server shuts down; streams then end."""
        self.writer = TextWriter(settings, self.stopping, self.metrics)
        self.started = time.time()
        self._refused = ""  # the version of a run that could not be opened
        self._retries = 0.0  # when to try it again

    def using(self) -> AbstractContextManager[ServedParts]:
        """Use the current parts during a request."""
        return self.parts.in_use()

    async def write(self, function: Callable[..., _T], *args: Any, **options: Any) -> _T:
        """Run a function that changes the index; only one runs at a time.

        Raises:
            RequestError: The index is read-only, or the server may not write to its folder.
            OverloadedError: The queue is full.
        """
        if self.settings.read_only:
            raise RequestError(403, "the index is served read-only", hint="write to its folder")
        if not self.parts.is_writable:
            raise RequestError(
                403, "the server may not write to the index", hint="check its folder's permissions"
            )
        # A write is not cancelled when the client disconnects.
        return await asyncio.shield(
            asyncio.ensure_future(self._write(self.parts, function, *args, **options))
        )

    async def _write(
        self, parts: ServedParts, function: Callable[..., _T], *args: Any, **options: Any
    ) -> _T:
        with parts.in_use():  # its request may have ended
            return await self._writes.run(function, *args, **options)

    def update_gauges(self) -> None:
        """Update the gauges of the queues."""
        queues = {"index": self.searches, "writer": self._writes, "model": self.models}
        for name, pool in {**queues, "generator": self.writer.pool}.items():
            self.metrics.waiting.labels(name).set(pool.pending)
        encoder = self.parts.encoder
        if encoder is not None:
            self.metrics.waiting.labels("encoder").set(encoder.batcher.waiting_requests)
            self.metrics.waiting_tokens.set(encoder.batcher.waiting_tokens)

    def reload(self) -> bool:
        """Switch to the new version of the run if it was rebuilt; return whether it was.

        A version that cannot be opened is tried again after a while: perhaps its encoder was still
        being copied.
        """
        version = self.parts.folder.version
        if version in ("", self.parts.version):
            return False
        if version == self._refused and time.monotonic() < self._retries:
            return False
        try:
            fresh = ServedParts(self.settings, self.metrics.record_batch)
        except Exception as error:  # such as out of memory, since both versions are loaded
            self._refused, self._retries = version, time.monotonic() + _RETRY
            _LOG.warning("the rebuilt run cannot be served: %s", error)
            return False
        old, self.parts = self.parts, fresh
        old.retire()
        self.metrics.reloads.inc()
        _LOG.info("the run was rebuilt and is served now")
        return True

    async def watch(self) -> None:
        """Reload when necessary and merge what other workers wrote, until cancelled.

        It also updates the gauges: another worker may answer every request for the metrics.
        """
        while True:
            await asyncio.sleep(self.settings.reload_seconds)
            try:
                self.update_gauges()
                await asyncio.to_thread(self.reload)
                with self.using() as parts:
                    await asyncio.to_thread(parts.merge_due)
            except Exception:
                _LOG.exception("the watch over the run failed and will be repeated")

    def close(self) -> None:
        """End all work and close everything."""
        self.stopping.set()
        self.writer.close()
        for pool in (self.searches, self.models, self._writes):
            pool.close()
        self.parts.retire()


def service_of(request: Request) -> Service:
    """Return the service of a request's application."""
    service: Service = request.app.state.service
    return service


Serving = Annotated[Service, Depends(service_of)]
"""The service, as an argument of a route."""
