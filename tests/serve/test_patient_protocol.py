"""Clients that do not read: their connections end, and those of slow readers do not."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

uvicorn = pytest.importorskip("uvicorn")

from idiolect.serve.patient_protocol import patient_protocol  # noqa: E402

_BODY = bytes(8 << 20)


async def _big(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-length", str(len(_BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _BODY})


async def _stream(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(1000):
        await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})


async def _connections_left(app: Any, *, reads: bool) -> int:
    """Serve one client that reads slowly or not at all; return how many connections remain."""
    config = uvicorn.Config(
        app,
        http=patient_protocol(20.0, reading_seconds=0.3),
        lifespan="off",
        log_config=None,
        timeout_keep_alive=0,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server._serve([listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname(), limit=1 << 12)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        if reads:
            for _ in range(8):  # takes longer than the timeout in all
                await asyncio.sleep(0.1)
                await reader.readexactly(1 << 20)
        else:
            await asyncio.sleep(1.0)
        left = len(server.server_state.connections)
        writer.close()
        server.should_exit = server.force_exit = True
        await serving
    return left


@pytest.mark.parametrize("app", [_big, _stream])
def test_a_client_that_does_not_read_is_disconnected(app: Any) -> None:
    assert asyncio.run(_connections_left(app, reads=False)) == 0


def test_a_client_that_reads_slowly_gets_everything() -> None:
    asyncio.run(_connections_left(_big, reads=True))
