"""`EventStream`: server-sent events (`data: {…}`, followed by a blank line).

When the client disconnects or the server stops, the task of the request is cancelled, which also
closes the generator of events.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.responses import Response

from idiolect.serve.json_response import json_bytes

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["STREAMED", "EventStream", "started"]

_T = TypeVar("_T")

_EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": _EVENT}}}
}
"""The response of a route that also streams, for OpenAPI."""


async def started(values: AsyncGenerator[_T, None]) -> AsyncGenerator[_T, None]:
    """Wait for the first value, so that an earlier error still gets its own HTTP status.

    Returns:
        A generator of all values, including the first.
    """
    first = await anext(values)

    async def all_values() -> AsyncGenerator[_T, None]:
        yield first
        async for value in values:
            yield value

    return all_values()


class EventStream(Response):
    """A response that sends values as they arrive, and `[DONE]` at the end.

    Args:
        events: The values.
        source: The generator behind `events`; it is also closed, even if no event was sent.
    """

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[Any, None], source: AsyncGenerator[Any, None]
    ) -> None:
        self._events, self._source = events, source
        self.status_code, self.background = 200, None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        async with aclosing(self._source), aclosing(self._events) as events:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for event in events:
                body = b"data: " + json_bytes(event) + b"\n\n"
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
