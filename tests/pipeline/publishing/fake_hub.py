"""A hub on the loopback: the requests of an upload, as the real one answers them."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeHub:
    """What a hub was sent."""

    def __init__(self) -> None:
        self.url = ""
        self.repositories: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.commits = 0
        self.tokens: set[str | None] = set()
        self.refusal: tuple[int, str] | None = None
        """The status and message with which commits are refused."""

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if path == "/api/repos/create":
            self.repositories.append(json.loads(body))
            return 200, {"url": f"{self.url}/me/words", "name": "me/words"}
        if path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            regular = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            return 200, {"files": [{"path": file["path"], **regular} for file in files]}
        if path == "/api/validate-yaml":
            front = json.loads(body)["content"].split("---")[1]
            return 200 if "license:" in front else 400, {"errors": [], "warnings": []}
        if path.endswith("/commit/main"):
            if self.refusal is not None:
                return self.refusal[0], {"error": self.refusal[1]}
            self.commits += 1
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "deletedFile":
                    del self.files[entry["value"]["path"]]
                if entry["key"] == "file":
                    self.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            return 200, {"commitUrl": f"{self.url}/me/words/commit/1", "commitOid": "1"}
        return 404, {"error": f"no {path}"}


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Start a hub."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else self._chunks()
            hub.tokens.add(self.headers.get("Authorization"))
            self._send(*hub.answer(self.path.partition("?")[0], body))

        def do_GET(self) -> None:
            """List the files of the repository."""
            assert self.path.startswith("/api/models/me/words/tree/main?recursive=")
            files = [
                {"type": "file", "path": name, "size": len(content), "oid": "1"}
                for name, content in hub.files.items()
            ]
            self._send(200, files)

        def _send(self, status: int, value: Any) -> None:
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _chunks(self) -> bytes:
            whole = b""
            while size := int(self.rfile.readline(), 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return whole

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
