"""`Gate`: middleware with all checks before a request reaches its route.

It checks, in order, the key and its scope, the rate limit, and the type and size of the body. It
reads the body with a time limit, so that a slow or endless body occupies only a connection. It
cancels the route when the client disconnects or the request times out. Each request gets an id, a
log line, and metrics.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers

from idiolect.serve.access.rate_limit import RateLimit
from idiolect.serve.access.route_scopes import OPEN, scope_of
from idiolect.serve.http_errors import OverloadedError, RequestError, response_of
from idiolect.serve.request_log import request_logger

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from idiolect.serve.access.api_keys import ApiKeys
    from idiolect.serve.serve_settings import ServeSettings
    from idiolect.serve.server_metrics import ServerMetrics

__all__ = ["Gate"]

_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
_BODIES = 16
"""Maximum number of bodies of the largest size in memory at the same time."""
_SHOWN = 4096
"""Maximum bytes of a body in the log, if texts are logged."""
_LOG = logging.getLogger(__name__)


class Gate:
    """ASGI middleware.

    Args:
        app: The application.
        settings: The limits.
        keys: The API keys.
        metrics: The metrics to update.
    """

    def __init__(
        self, app: ASGIApp, settings: ServeSettings, keys: ApiKeys, metrics: ServerMetrics
    ) -> None:
        self.app, self.settings, self.keys, self.metrics = app, settings, keys, metrics
        self._rates = RateLimit(settings.rate_limit)
        self._held = 0  # bytes of bodies in memory, also of those that are still arriving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        self.metrics.open.inc()
        try:
            self._admit(exchange)
            body = await self._body(exchange, receive)
            await self._answer(exchange, body, receive)
        except _ClientLeftError:
            exchange.status = 499  # nginx's code for a client that closed the connection
        except RequestError as error:
            await exchange.refuse(scope, receive, error)
        except Exception:
            _LOG.exception("request %s failed", exchange.id)
            await exchange.refuse(scope, receive, RuntimeError())
        finally:
            self._held -= exchange.held
            self.metrics.open.dec()
            self._record(exchange)

    def _admit(self, exchange: _Exchange) -> None:
        """Check the key, its scope and the rate limit."""
        scope = exchange.scope
        needed = scope_of(scope["method"], scope["path"])
        sender = (scope.get("client") or ("?",))[0]
        preflight = scope["method"] == "OPTIONS"
        if self.keys.required and needed != OPEN and not preflight:
            key = self.keys.find(_sent_key(exchange.headers))
            if key is None:
                raise RequestError(
                    401,
                    "the key is missing, unknown or expired",
                    hint="send Authorization: Bearer KEY, or Api-Key: KEY",
                )
            exchange.key = key.name
            sender = f"key {key.name}"
            if needed is not None and needed not in key.scopes:
                raise RequestError(
                    403, f"the key may not do this: it lacks the scope {needed}", hint="use another"
                )
        if needed != OPEN and (seconds := self._rates.wait(sender)):
            raise OverloadedError("too many requests", retry_after=seconds)

    async def _body(self, exchange: _Exchange, receive: Receive) -> bytes:
        """Read the body; raise an error if it is too large or too slow."""
        headers, limit = exchange.headers, self.settings.max_body
        length = headers.get("content-length", "0")
        too_large = RequestError(
            413, f"the body has more than {limit:,} bytes", hint="send it in parts"
        )
        if length.isdigit() and int(length) > limit:
            raise too_large
        if self._held + (int(length) if length.isdigit() else 0) > _BODIES * limit:
            raise OverloadedError("too many large requests")
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.settings.body_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _ClientLeftError
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    exchange.held = size
                    self._held += len(parts[-1])
                    if size > limit:
                        raise too_large
                    if self._held > _BODIES * limit:
                        raise OverloadedError("too many large requests")
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise RequestError(
                408, "the body did not arrive in time", hint="send it faster"
            ) from None
        coding = headers.get("content-encoding", "identity")
        if size and coding.strip().lower() != "identity":
            raise RequestError(
                415, f"the body has the content encoding {coding:.40}", hint="send it uncompressed"
            )
        if size and not _is_json(headers.get("content-type", "")):
            raise RequestError(
                415, "the body is not JSON", hint="send Content-Type: application/json"
            )
        exchange.bytes_in = size
        body = b"".join(parts)
        if self.settings.log_texts:
            exchange.shown = body[:_SHOWN].decode("utf-8", "replace")
        return body

    async def _answer(self, exchange: _Exchange, body: bytes, receive: Receive) -> None:
        """Run the route until it ends, the client disconnects, or the request times out."""
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        left = asyncio.ensure_future(_disconnected(receive))

        async def receive_again() -> Message:
            if messages:
                return messages.pop()
            await asyncio.shield(left)
            return {"type": "http.disconnect"}

        scope = exchange.scope
        if scope["method"] == "HEAD":  # monitors send it; routes only know GET
            # The route is looked up in this one, where `_Exchange.route` reads it.
            scope = exchange.scope = {**scope, "method": "GET"}
        work = asyncio.ensure_future(self.app(scope, receive_again, exchange.send))
        try:
            await asyncio.wait(
                {work, left},
                timeout=self.settings.request_timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not work.done() and not left.done() and exchange.status:  # a stream
                # The text ends in time, but a client that stops reading holds up its events.
                await asyncio.wait(
                    {work, left},
                    timeout=self.settings.stream_timeout,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            if not work.done() and exchange.complete:
                # The server reports the end of a response as a disconnection. The route only has
                # to clean up, as after sending a file.
                await asyncio.wait({work}, timeout=self.settings.request_timeout)
            if work.done():
                await work
            elif exchange.complete:
                _LOG.warning("request %s was answered, and its route did not end", exchange.id)
            elif left.done():
                raise _ClientLeftError
            else:
                raise RequestError(504, "there was no answer in time", hint="ask for less")
        finally:
            left.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait({work})

    def _record(self, exchange: _Exchange) -> None:
        seconds = time.monotonic() - exchange.began
        route = exchange.route
        self.metrics.requests.labels(route, str(exchange.status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        fields: dict[str, Any] = {
            "request": exchange.id,
            "method": exchange.method,
            "route": route,
            "status": exchange.status,
            "ms": round(1000 * seconds, 2),
            "bytes_in": exchange.bytes_in,
            "bytes_out": exchange.bytes_out,
        }
        if exchange.key:
            fields["key"] = exchange.key
        if exchange.shown:
            fields["body"] = exchange.shown
        level = logging.ERROR if exchange.status >= 500 else logging.INFO
        request_logger.log(level, "%s %s", route, exchange.status, extra={"fields": fields})


class _ClientLeftError(Exception):
    """The client closed the connection."""


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope, self._send, self.method = scope, send, scope["method"]
        self.headers = Headers(scope=scope)
        given = self.headers.get("x-request-id", "")
        self.id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        self.began = time.monotonic()
        self.status = self.bytes_in = self.bytes_out = 0
        self.held = 0  # bytes of the body in memory
        self.complete = False  # whether the last part of the response was sent
        self.key = self.shown = ""

    @property
    def route(self) -> str:
        """The path template of the route, without parameter values."""
        route = self.scope.get("route")
        return getattr(route, "path", "") or "other"

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Send a message of the response, with the id of the request."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self.id.encode())]
            headers.append((b"x-content-type-options", b"nosniff"))
            message = {**message, "headers": headers}
        if self.method == "HEAD" and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        self.bytes_out += len(message.get("body", b""))
        await self._send(message)
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        self.complete = self.complete or last

    async def refuse(self, scope: Scope, receive: Receive, error: Exception) -> None:
        """Respond with an error, unless the response has started."""
        if self.status:
            return
        response = response_of(error)
        if response.status_code in (408, 413):  # the rest of the body is not read
            response.headers["Connection"] = "close"
        if response.status_code == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        await response(scope, receive, self.send)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _sent_key(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return headers.get("api-key", "") or headers.get("x-api-key", "")


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )
