"""`patient_protocol`: uvicorn's HTTP protocol, with timeouts for slow clients, and JSON errors.

uvicorn has no timeout for the headers of a request. A client that sends them byte by byte, or not
at all, could keep a connection open indefinitely. So could one that does not read its response: a
connection is only closed when everything has been sent. Requests that are not valid HTTP get a JSON
error like all others; uvicorn's is plain text.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from idiolect.serve.http_errors import RequestError, response_of

__all__ = ["patient_protocol"]


def patient_protocol(seconds: float, reading_seconds: float = 60.0) -> type[asyncio.Protocol]:
    """Return a protocol class that closes the connections of slow clients.

    Args:
        seconds: Timeout for the headers of a request.
        reading_seconds: Timeout for a client that reads nothing of what waits to be sent.
    """

    class PatientProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        _timer: asyncio.TimerHandle | None = None
        _reader: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._is_busy:
                self._stop()
            elif self._timer is None:
                self._wait()

        def send_400_response(self, msg: str) -> None:
            body = bytes(response_of(RequestError(400, msg, hint="send HTTP/1.1")).body)
            head = (
                "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
            self.transport.close()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._watch_reader()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._watch_reader()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self._reader is None:
                self._watch_reader()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            if self._reader is not None:
                self._reader.cancel()
            super().connection_lost(exc)

        @property
        def _is_busy(self) -> bool:
            """Return whether the response to a request is not finished yet."""
            return self.cycle is not None and not self.cycle.response_complete

        def _wait(self) -> None:
            self._timer = self.loop.call_later(seconds, self._close)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _watch_reader(self) -> None:
            """Check later whether the client has read some of what waits to be sent."""
            if self._reader is not None:
                self._reader.cancel()
                self._reader = None
            waiting = self.transport.get_write_buffer_size()
            if waiting:
                # Otherwise more may be written, and what waits says nothing about the client.
                is_last = self.flow.write_paused or self.transport.is_closing()
                self._reader = self.loop.call_later(
                    reading_seconds, self._check_reader, waiting if is_last else math.inf
                )

        def _check_reader(self, waited: float) -> None:
            if self.transport.get_write_buffer_size() >= waited:
                self.transport.abort()  # `close` would wait until everything has been sent
            else:
                self._watch_reader()

        def _close(self) -> None:
            self._timer = None
            if not self._is_busy and not self.transport.is_closing():
                self.transport.close()

    return PatientProtocol
