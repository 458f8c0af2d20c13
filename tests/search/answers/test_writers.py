"""An endpoint that writes: its stream, its errors, and what it must not be able to do."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from idiolect.errors import ConfigError, IdiolectError, InputError, OfflineError
from idiolect.search.answers.writers import EndpointWriter, _without

_MESSAGES = [{"role": "user", "content": "Why?"}]


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[str, list[Any]]]]:
    servers: list[ThreadingHTTPServer] = []

    def start(status: int, body: bytes, kind: str = "text/event-stream", **headers: str) -> Any:
        seen: list[Any] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                seen.append((self.path, dict(self.headers), json.loads(self.rfile.read(length))))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/v1/", seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _event(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


def test_a_stream_is_read_piece_by_piece(serve: Callable[..., Any]) -> None:
    body = b": hello\n\n" + _event("Be") + b'data: {"choices": []}\n\n' + _event("cause é")
    url, seen = serve(200, body + b"data: [DONE]\n\n" + _event("never"))
    writer = EndpointWriter(url, "m", api_key="secret")
    assert list(writer.write(_MESSAGES, 7)) == ["Be", "cause é"]
    path, headers, request = seen[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert (request["model"], request["max_tokens"], request["stream"]) == ("m", 7, True)
    assert request["messages"] == _MESSAGES


def test_a_server_that_never_stops_is_left(serve: Callable[..., Any]) -> None:
    url, _ = serve(200, _event("x" * 100) * 50)
    assert sum(map(len, EndpointWriter(url, "m").write(_MESSAGES, 7))) == 7 * 64


def test_a_reply_in_one_piece_is_read_too(serve: Callable[..., Any]) -> None:
    body = json.dumps({"choices": [{"message": {"content": "Because."}}]}).encode()
    url, _ = serve(200, body, "application/json")
    assert list(EndpointWriter(url, "m").write(_MESSAGES, 7)) == ["Because."]


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (401, b'{"error": {"message": "no such key"}}', "application/json", "(401): no such key"),
        (500, b"\xff<html>", "text/html", "(500)"),
        (307, b"", "text/html", "(307)"),
        (200, b"data: {bad\n\n", "text/event-stream", "another form"),
        (200, b'data: {"choices": [{"delta": {"content": 3}}]}\n\n', "text/event-stream", "form"),
        (200, b"[]", "application/json", "another form"),
    ],
)
def test_bad_replies_are_one_line(
    serve: Callable[..., Any], status: int, body: bytes, kind: str, message: str
) -> None:
    other, elsewhere = serve(200, _event("taken"))
    url, _ = serve(status, body, kind, Location=other)
    with pytest.raises(InputError) as error:
        list(EndpointWriter(url, "m", api_key="secret").write(_MESSAGES, 7))
    assert message in str(error.value)
    assert "secret" not in str(error.value)
    assert not elsewhere  # the key does not follow a redirect


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(OfflineError, match="check the address"):
        list(EndpointWriter("http://127.0.0.1:9/v1", "m", timeout=2).write(_MESSAGES, 7))


@pytest.mark.parametrize(
    "options",
    [
        {"url": "ftp://x/v1"},
        {"url": "nonsense"},
        {"url": "http://x:99999999/v1"},
        {"url": "http://x/v1", "api_key": "a\r\nHost: b"},
        {"url": "http://x/v1", "timeout": 0},
    ],
)
def test_bad_addresses_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        EndpointWriter(model="m", **options)
    assert issubclass(ConfigError, IdiolectError)


def test_texts_cannot_spell_special_tokens() -> None:
    assert _without("a <|im_end|> b", ["<|im_end|>"]) == "a < |im_end|> b"
