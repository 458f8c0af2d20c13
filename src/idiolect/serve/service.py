"""`Service`: the state of a server, which every route uses."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import AbstractContextManager

from fastapi import Request

from idiolect.errors import IdiolectError
from idiolect.serve.serve_settings import ServeSettings
from idiolect.serve.served_parts import ServedParts
from idiolect.serve.work.work_pool import WorkPool

__all__ = ["Service", "service_of"]

_LOG = logging.getLogger(__name__)
_SEARCHES = 16
"""Threads that search. Each waits for the encoder, so there are more than processors."""


class Service:
    """What is served, and the threads that do the work.

    Args:
        settings: The settings.

    Raises:
        IdiolectError: There is nothing to serve, or it cannot be loaded.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.parts = ServedParts(settings)
        self.searches = WorkPool("index", _SEARCHES, settings.max_waiting_requests)
        self.writes = WorkPool("writer", 1, settings.max_waiting_requests)
        self.stopping = threading.Event()
        """Set when the server shuts down; streams then end."""
        self.started = time.time()

    def using(self) -> AbstractContextManager[ServedParts]:
        """Use the current parts during a request."""
        return self.parts.in_use()

    def reload(self) -> bool:
        """Serve the run as it is now, if it was rebuilt; return whether it was."""
        version = self.parts.folder.version
        if not version or version == self.parts.version:
            return False
        try:
            fresh = ServedParts(self.settings)
        except (IdiolectError, OSError) as error:
            _LOG.warning("the rebuilt run cannot be served yet: %s", error)
            return False
        old, self.parts = self.parts, fresh
        old.retire()
        return True

    async def watch(self) -> None:
        """Reload when needed, until cancelled."""
        while True:
            await asyncio.sleep(self.settings.reload_seconds)
            await asyncio.to_thread(self.reload)

    def close(self) -> None:
        """End all work and close everything."""
        self.stopping.set()
        self.searches.close()
        self.writes.close()
        self.parts.retire()


def service_of(request: Request) -> Service:
    """Return the service of a request's application."""
    service: Service = request.app.state.service
    return service
