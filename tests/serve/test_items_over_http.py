"""Writing over HTTP: items with the verbs of an index, and Pinecone's vectors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

import idiolect
from idiolect.errors import InputError, OfflineError
from idiolect.search.index import Index
from idiolect.search.items import Item
from serve import served


@pytest.fixture
def writable(tmp_path: Path) -> Iterator[TestClient]:
    with served.serving(served.write_index(tmp_path), rate_limit=0) as client:
        yield client


def _client(http: TestClient) -> idiolect.Client:
    return idiolect.Client("http://testserver", http=http, retries=0)


def test_the_client_has_the_verbs_of_an_index(writable: TestClient, tmp_path: Path) -> None:
    client = _client(writable)
    with Index.open(tmp_path / "index") as index:
        for name in ("search", "similar"):
            for given in ("p1", "a c"):
                if name == "similar" and given != "p1":
                    continue
                found, own = (getattr(one, name)(given, 3) for one in (client, index))
                assert [hit.id for hit in found] == [hit.id for hit in own]
                assert [hit.metadata for hit in found] == [dict(hit.metadata) for hit in own]
        queries = ["a b", "k", "zzz"]
        assert [[hit.id for hit in hits] for hits in client.search_many(queries, 2)] == [
            [hit.id for hit in hits] for hits in index.search_many(queries, 2)
        ]
        item = index.get("p/3")
        assert item is not None
        assert client.get("p/3") == item
        assert client.search_vectors(item.vector, 1)[0][0].id == "p/3"
        assert np.abs(client.encode(queries) - index.encoder.encode(queries)).max() < 1e-5
    assert client.get("p9") is None
    assert ("p1" in client, "p9" in client, len(client)) == (True, False, 4)
    assert client.info["items"] == 4
    assert client.rerank("a b", ["k l", "a b"])[0][0] == 1


def test_items_are_added_changed_and_deleted(writable: TestClient, tmp_path: Path) -> None:
    client = _client(writable)
    counts = client.add([Item("n1", "a b c d", {"price": 5}), ("p1", "a b c d", {"price": 21})])
    assert (counts["written"], counts["unchanged"]) == (2, 0)
    assert client.add([("p1", "a b c d", {"price": 21})])["unchanged"] == 1
    client.update("n1", text="k l", metadata={"price": None, "new": True})
    changed = client.get("n1")
    assert changed is not None
    assert (changed.text, changed.metadata) == ("k l", {"new": True})
    with Index.open(tmp_path / "index") as index:  # another process sees it at once
        assert index.search("k l", 1, "lexical", filter={"new": True})[0].id == "n1"
    assert client.delete(["n1", "p9"]) == 1
    assert client.delete(filter={"kind": "lamp"}) == 1
    assert len(client) == 3
    for wrong in (
        lambda: client.update("p9", text="a"),
        lambda: client.search("a", 10**6),
        lambda: client.delete(),
    ):
        with pytest.raises(InputError):
            wrong()
    with pytest.raises(OfflineError, match="cannot reach"):
        idiolect.Client("http://127.0.0.1:9", retries=0).search("a")


def test_the_client_tries_again_when_the_server_is_busy(
    writable: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [429, 503]
    send, waits = writable.request, list[float]()

    def busy(method: str, path: str, **content: object) -> object:
        found = send(method, path, **content)  # type: ignore[arg-type]
        if answers:
            found.status_code = answers.pop()
            found.headers["retry-after"] = "7"
        return found

    monkeypatch.setattr(writable, "request", busy)
    monkeypatch.setattr("idiolect.serve.client.time.sleep", waits.append)
    client = idiolect.Client("http://testserver", http=writable)
    assert client.search("a", 1)[0].id == "p1"
    assert waits == [7.0, 7.0]


def test_a_write_that_another_process_holds_up_may_be_tried_again(
    writable: TestClient, tmp_path: Path
) -> None:
    ledger = writable.app.state.service.parts.index.store._ledger  # type: ignore[attr-defined]
    ledger._wait = 0.05
    with closing(sqlite3.connect(tmp_path / "index" / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        found = writable.post("/items", json={"items": [{"id": "n1", "text": "a"}]})
        other.execute("ROLLBACK")
    assert found.status_code == 503, found.text
    assert found.headers["retry-after"]
    assert "another process" in found.json()["message"]
    assert "n1" not in _client(writable)


def test_an_index_that_may_not_be_written_says_so(
    writable: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idiolect.search.store.ledger._is_writable", lambda path: False)
    assert writable.get("/info").json()["abilities"]["write"] is False
    found = writable.post("/items", json={"items": [{"id": "n1", "text": "a"}]})
    assert found.status_code == 403, found.text
    assert "permissions" in found.json()["message"]


def test_vectors_as_in_pinecone(writable: TestClient) -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(5, 16)).astype(np.float32)
    body = {
        "vectors": [
            {"id": f"v{n}", "values": row.tolist(), "metadata": {"n": n, "text": f"w{n}"}}
            for n, row in enumerate(vectors)
        ],
        "namespace": "pine",
    }
    assert writable.post("/vectors/upsert", json=body).json() == {"upsertedCount": 5}
    query = {"vector": vectors[3].tolist(), "topK": 2, "namespace": "pine"}
    query |= {"includeValues": True, "includeMetadata": True, "filter": {"n": {"$gte": 2}}}
    found = writable.post("/query", json=query).json()
    assert found["matches"][0]["id"] == "v3"
    assert found["matches"][0]["score"] == pytest.approx(1.0, abs=1e-6)
    assert found["matches"][0]["values"] == vectors[3].tolist()
    assert found["matches"][0]["metadata"] == {"n": 3, "text": "w3"}
    page = writable.get("/vectors/list?namespace=pine&limit=3").json()
    assert [one["id"] for one in page["vectors"]] == ["v0", "v1", "v2"]
    token = page["pagination"]["next"]
    rest = writable.get(f"/vectors/list?namespace=pine&limit=3&paginationToken={token}").json()
    assert ([one["id"] for one in rest["vectors"]], "pagination" in rest) == (["v3", "v4"], False)
    change = {"id": "v0", "setMetadata": {"n": 9}, "namespace": "pine"}
    assert writable.post("/vectors/update", json=change).json() == {}
    got = writable.get("/vectors/fetch?ids=v0&ids=nope&namespace=pine").json()["vectors"]
    assert {id: one["metadata"] for id, one in got.items()} == {"v0": {"n": 9, "text": "w0"}}
    assert writable.patch("/items/v0?namespace=pine", json={"text": "w1 w3"}).is_success
    got = writable.get("/vectors/fetch?ids=v0&namespace=pine").json()["vectors"]
    assert got["v0"]["metadata"] == {"n": 9, "text": "w1 w3"}, "the text that searches find"
    words = {"query": "w4", "mode": "lexical", "namespace": "pine"}
    assert writable.post("/search", json=words).json()["hits"][0]["id"] == "v4"
    stats = writable.post("/describe_index_stats", json={}).json()
    assert stats["namespaces"] == {"": {"vectorCount": 4}, "pine": {"vectorCount": 5}}
    assert (stats["dimension"], stats["totalVectorCount"]) == (16, 9)
    for delete, left in (({"ids": ["v0"]}, 4), ({"filter": {"n": 1}}, 3), ({"deleteAll": True}, 0)):
        body = {**delete, "namespace": "pine"}
        assert writable.post("/vectors/delete", json=body).json() == {}
        stats = writable.post("/describe_index_stats").json()["namespaces"]
        assert stats.get("pine", {"vectorCount": 0})["vectorCount"] == left


def test_a_vector_without_values_and_text_does_not_replace_a_stored_one(
    writable: TestClient,
) -> None:
    for metadata in ({"n": 1}, {"text": " "}):
        body = {"vectors": [{"id": "p1", "metadata": metadata}]}
        assert writable.post("/vectors/upsert", json=body).status_code == 400
    assert writable.get("/items/p1").json()["text"] == "a b c d"


def test_deleting_all_vectors_deletes_their_passages(tmp_path: Path) -> None:
    path = served.write_index(tmp_path)
    with Index.open(path) as index:
        assert index.add_passages(8)
    with served.serving(path) as client:
        assert client.post("/vectors/delete", json={"deleteAll": True}).is_success
    with Index.open(path) as index:
        assert index.store.namespaces() == {}


def test_a_read_only_server_refuses_to_write(folder: Path) -> None:
    with served.serving(folder / "index", read_only=True) as client:
        found = client.post("/items", json={"items": [{"id": "x", "text": "a"}]})
        assert found.status_code == 403
        assert not client.get("/info").json()["abilities"]["write"]


def test_a_page_of_another_server_is_no_answer() -> None:
    def page(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text="<html>welcome</html>")

    http = httpx.Client(transport=httpx.MockTransport(page), base_url="http://other")
    with (
        idiolect.Client("http://other", http=http) as client,
        pytest.raises(OfflineError, match="answered 200, but with no JSON object") as found,
    ):
        client.search("a")
    assert found.value.hint == "is this an idiolect server?"
