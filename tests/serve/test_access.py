"""Keys, rates, and bounds on what a request may be."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from idiolect.cli.serve.keys import app as keys_app
from idiolect.errors import CheckpointError, InputError
from idiolect.serve.access import api_keys
from idiolect.serve.access.api_keys import ApiKeys, add_key, hash_key, read_keys, revoke_key
from idiolect.serve.access.gate import Gate
from idiolect.serve.access.rate_limit import RateLimit
from idiolect.serve.access.route_scopes import OPEN, scope_of
from idiolect.serve.app import create_app
from idiolect.serve.serve_settings import ServeSettings
from idiolect.serve.server_metrics import ServerMetrics
from serve import served

JSON = {"content-type": "application/json"}


@pytest.fixture
def guarded(folder: Path, tmp_path: Path) -> Iterator[tuple[TestClient, Path]]:
    file = tmp_path / "keys.json"
    add_key(file, "first", ["search"])
    hashes = (hash_key("the-master-key"),)
    with served.serving(folder / "index", keys=str(file), api_key_hashes=hashes) as client:
        yield client, file


def _status(client: TestClient, path: str, body: Any, **headers: Any) -> int:
    found = client.post(path, json=body, headers=headers)
    return found.status_code


def test_keys_have_scopes_and_are_rotated_while_the_server_runs(
    guarded: tuple[TestClient, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, file = guarded
    monkeypatch.setattr(api_keys.time, "monotonic", iter(range(1000)).__next__)
    search, vectors = ("/search", {"query": "a"}), ("/encode", {"texts": ["a"]})
    assert client.get("/health").status_code == 200
    for headers in (
        {},
        {"Authorization": "Bearer no"},
        {"Api-Key": b"\xff"},
        {"Api-Key": "x" * 9999},
    ):
        assert _status(client, *search, **headers) == 401
    assert client.post("/search", content="{").status_code == 401, "before the body is read"
    for headers in ({"Authorization": "Bearer the-master-key"}, {"Api-Key": "the-master-key"}):
        assert _status(client, *vectors, **headers) == 200
    second = add_key(file, "second", ["search"])
    assert second not in file.read_text()
    assert _status(client, *search, **{"Api-Key": second}) == 200
    assert _status(client, *vectors, **{"Api-Key": second}) == 403
    assert client.get("/v1/models", headers={"Api-Key": second}).status_code == 200
    assert client.get("/metrics", headers={"Api-Key": second}).status_code == 403
    assert _status(client, "/items", {"items": [{"id": "x"}]}, **{"Api-Key": second}) == 403
    file.with_name("other").write_text("{")
    file.with_name("other").rename(file)  # damaged: the keys stay as they were
    assert _status(client, *search, **{"Api-Key": second}) == 200
    file.unlink()
    add_key(file, "third")
    assert _status(client, *search, **{"Api-Key": second}) == 401


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(sent: str, stored: str) -> bool:
        compared.append((len(sent), len(stored)))
        return sent == stored

    monkeypatch.setattr(api_keys.secrets, "compare_digest", compare)
    keys = ApiKeys([hash_key(f"key {n}") for n in range(5)])
    for sent in ("key 0", "key 4", "unknown", ""):
        compared.clear()
        assert (keys.find(sent) is not None) == sent.startswith("key")
        assert len(compared) == 5
        assert len({*compared}) == 1, "hashes of one length"


def test_a_key_expires(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    made = add_key(file, "short", days=1)
    assert ApiKeys(path=file).find(made) is not None
    (key,) = read_keys(file)
    assert not key.is_expired(datetime.now(UTC))
    assert key.is_expired(datetime.now(UTC) + timedelta(days=1, seconds=1))
    records = json.loads(file.read_text())
    records["keys"][0]["expires"] = "2020-01-01T00:00:00+00:00"
    file.write_text(json.dumps(records))
    assert ApiKeys(path=file).find(made) is None
    assert file.stat().st_mode & 0o077 in (0, 0o044), "rewritten by hand above"


def test_a_change_of_keys_leaves_them_readable_for_the_server(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    add_key(file, "web")
    file.chmod(0o640)
    if os.geteuid() == 0:  # the file belongs to the server, and the superuser revokes a key
        os.chown(file, 65534, 65534)
    before = file.stat()
    revoke_key(file, "web")
    after = file.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )


def test_keys_that_are_added_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: add_key(file, f"k{n}"), range(32)))
    keys = ApiKeys(path=file)
    assert all(keys.find(one) is not None for one in made)
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]


def test_the_commands_on_keys(tmp_path: Path) -> None:
    file, run = str(tmp_path / "keys.json"), CliRunner()
    made = run.invoke(keys_app, ["add", file, "web", "--scope", "search", "--days", "3"])
    assert ApiKeys(path=file).find(made.stdout.strip()) is not None
    assert Path(file).stat().st_mode & 0o777 == 0o600
    assert run.invoke(keys_app, ["list", file]).stdout.startswith("web  search  expires 20")
    assert run.invoke(keys_app, ["revoke", file, "web"]).exit_code == 0
    assert ApiKeys(path=file).find(made.stdout.strip()) is None
    with pytest.raises(InputError, match="no key 'web'"):
        revoke_key(Path(file), "web")
    with pytest.raises(InputError, match="unknown scope 'all'"):
        add_key(Path(file), "x", ["all"])
    Path(file).write_text('{"keys": [{"name": "x"}]}')
    with pytest.raises(CheckpointError, match="key 0 is damaged"):
        read_keys(Path(file))
    Path(file).write_text('{"keys": 5}')
    with pytest.raises(CheckpointError, match="no list"):
        read_keys(Path(file))


def test_every_route_that_writes_needs_a_key_that_may(reader: TestClient) -> None:
    paths = reader.get("/openapi.json").json()["paths"]
    scopes = {
        (method.upper(), path): scope_of(method.upper(), path)
        for path, methods in paths.items()
        for method in methods
    }
    assert {path for (_, path), scope in scopes.items() if scope == OPEN} == {"/health", "/ready"}
    writing = {key for key, scope in scopes.items() if scope == "write"}
    assert writing == {
        ("POST", "/items"),
        ("POST", "/items/delete"),
        ("PATCH", "/items/{id}"),
        *(("POST", f"/vectors/{verb}") for verb in ("upsert", "update", "delete")),
    }


def test_the_rate_of_each_sender_is_limited() -> None:
    rates = RateLimit(60)  # one a second, six at once
    assert [rates.wait("a", 100.0) for _ in range(6)] == [0.0] * 6
    assert rates.wait("a", 100.0) == pytest.approx(1.0)
    assert rates.wait("b", 100.0) == 0.0
    assert rates.wait("a", 100.5) == pytest.approx(0.5)
    assert rates.wait("a", 101.0) == 0.0
    assert RateLimit(0).wait("a") == 0.0
    for n in range(10_050):
        rates.wait(str(n), 200.0)
    assert len(rates._buckets) == 10_000


def test_bounds_of_a_request(folder: Path) -> None:
    with served.serving(folder / "index", max_body=2000, max_texts=3) as client:
        large = client.post("/search", json={"query": "a" * 3000})
        assert large.status_code == 413
        assert large.headers["connection"] == "close"
        endless = client.post("/search", content=iter([b"x" * 900] * 9), headers=JSON)
        assert endless.status_code == 413
        form = client.post("/search", data={"query": "a"})
        assert form.status_code == 415
        assert client.post("/encode", json={"texts": ["a"] * 4}).status_code == 413
    with served.serving(folder / "index", rate_limit=1) as client:
        assert client.post("/search", json={"query": "a"}).status_code == 200
        refused = client.post("/search", json={"query": "a"})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/health").status_code == 200


def test_requests_have_ids_and_logs_have_no_texts(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "idiolect.serve.requests")
    with served.serving(folder / "index") as client:
        client.post("/search", json={"query": "a secret"}, headers={"x-request-id": "mine-1"})
        other = client.get("/items/p9", headers={"x-request-id": "a b\tc"})
    assert other.headers["x-request-id"] != "a b\tc"
    first, second = [record.fields for record in caplog.records if hasattr(record, "fields")][:2]
    assert first["request"] == "mine-1"
    assert (first["route"], first["status"]) == ("/search", 200)
    assert "secret" not in str(first)
    assert second["route"] == "/items/{id:path}"
    caplog.clear()
    with served.serving(folder / "index", log_texts=True) as client:
        client.post("/search", json={"query": "a secret"})
    assert caplog.records[0].fields["body"] == '{"query":"a secret"}'  # type: ignore[attr-defined]


def test_other_origins_are_refused_unless_named(folder: Path) -> None:
    headers = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    with served.serving(folder / "index") as client:
        assert (
            "access-control-allow-origin" not in client.options("/search", headers=headers).headers
        )
    with served.serving(folder / "index", cors_origins=("https://shop.example",)) as client:
        found = client.options("/search", headers=headers)
        assert found.headers["access-control-allow-origin"] == "https://shop.example"
        other = client.options("/search", headers={**headers, "origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def _through_gate(
    app: Any, messages: list[Any], **settings: Any
) -> tuple[list[dict[str, Any]], list[str]]:
    """Send messages through a gate; `None` waits for ever."""
    sent: list[dict[str, Any]] = []
    events: list[str] = []

    async def receive() -> Any:
        if messages and messages[0] is not None:
            await asyncio.sleep(0.01)
            return messages.pop(0)
        await asyncio.Event().wait()
        return None

    async def send(message: Any) -> None:
        sent.append(message)

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
            events.append("done")
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

    bounds = ServeSettings(path="x", **settings)
    gate = Gate(watched, bounds, ApiKeys(), ServerMetrics())
    scope = {"type": "http", "method": "POST", "path": "/search"}
    scope["headers"] = [(b"content-type", b"application/json")]
    asyncio.run(asyncio.wait_for(gate(scope, receive, send), 10))
    assert gate._held == 0
    return sent, events


async def _endless(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.Event().wait()


_BODY = {"type": "http.request", "body": b"{}", "more_body": False}
_PART = {"type": "http.request", "body": b"{", "more_body": True}
_LEFT = {"type": "http.disconnect"}


def test_a_slow_body_a_slow_route_and_a_client_that_leaves() -> None:
    sent, events = _through_gate(_endless, [_PART, None], body_timeout=0.05)
    assert (sent[0]["status"], events) == (408, [])
    sent, events = _through_gate(_endless, [_BODY, None], request_timeout=0.05)
    assert (sent[0]["status"], events) == (504, ["cancelled"])
    sent, events = _through_gate(_endless, [_BODY, _LEFT])
    assert (sent, events) == ([], ["cancelled"])
    sent, events = _through_gate(_endless, [_PART, _LEFT])
    assert (sent, events) == ([], [])


def test_a_response_that_was_sent_is_not_recorded_as_a_client_that_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def file(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"all of it"})
        await asyncio.sleep(0.1)  # as while the file is closed in a thread

    with caplog.at_level("INFO", "idiolect"):
        # The server reports a disconnection as soon as the response is complete.
        _, events = _through_gate(file, [_BODY, _LEFT])
    assert events == ["done"]
    assert [record.fields["status"] for record in caplog.records] == [200]


def test_a_client_that_does_not_read_its_stream_does_not_hold_it_forever() -> None:
    async def unread(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await asyncio.Event().wait()  # as the transport does while its buffer is full

    sent, events = _through_gate(unread, [_BODY, None], request_timeout=0.05, stream_timeout=0.05)
    assert ([one.get("status") for one in sent], events) == ([200], ["cancelled"])


def test_bodies_that_are_still_arriving_count_as_held() -> None:
    """Many slow clients must not fill the memory."""
    statuses: list[int] = []

    async def upload(gate: Gate) -> None:
        parts = [{"type": "http.request", "body": b"x" * 90, "more_body": True}]

        async def receive() -> Any:
            if not parts:
                await asyncio.Event().wait()
            return parts.pop()

        async def send(message: Any) -> None:
            statuses.append(message.get("status", 0))

        scope = {"type": "http", "method": "POST", "path": "/search", "headers": []}
        await gate(scope, receive, send)

    async def all_uploads() -> int:
        bounds = ServeSettings(path="x", max_body=100, body_timeout=0.2)
        gate = Gate(_endless, bounds, ApiKeys(), ServerMetrics())
        await asyncio.gather(*(upload(gate) for _ in range(30)))
        return gate._held

    assert asyncio.run(asyncio.wait_for(all_uploads(), 10)) == 0
    assert (statuses.count(408), statuses.count(429)) == (17, 13)


def test_a_bug_is_a_500_without_its_text(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("/secret/path")

    app = create_app(ServeSettings(path=str(folder / "index")))
    monkeypatch.setattr("idiolect.serve.routes.search_routes._search", broken)
    with TestClient(app, raise_server_exceptions=False) as client:
        found = client.post("/search", json={"query": "a"})
    assert found.status_code == 500
    assert "secret" not in found.text
    assert "/secret/path" in caplog.text
