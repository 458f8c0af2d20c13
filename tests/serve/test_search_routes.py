"""Searches and items over HTTP: what an index answers, and clear errors for everything else."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from idiolect.search.index import Index
from idiolect.search.items import Item
from idiolect.serve.hit_details import field_values
from idiolect.serve.json_response import json_bytes
from serve import served


@pytest.mark.parametrize("mode", ["lexical", "dense", "hybrid"])
def test_a_search_is_that_of_the_index(reader: TestClient, folder: Path, mode: Any) -> None:
    body = {"query": "a c", "top_k": 3, "mode": mode, "filter": {"price": {"$lt": 85}}}
    found = reader.post("/search", json=body).json()
    with Index.open(folder / "index") as index:
        expected = index.search("a c", 3, mode, filter={"price": {"$lt": 85}})
    assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in expected]
    for hit, own in zip(found["hits"], expected, strict=True):
        assert hit["score"] == pytest.approx(own.score, abs=1e-5)
        assert (hit["text"], hit["metadata"]) == (own.text, own.metadata)
    assert found["mode"] == mode


def test_passages_and_highlights_are_places_in_the_text(tmp_path: Path) -> None:
    long = "x " * 300 + "the zorblax é 𝄞 pumps, Zorblaxes again " + "y " * 300
    served.write_index(tmp_path, [served.Item("long", long), *served.ITEMS])
    with served.serving(tmp_path / "index") as client:
        body = {"query": "zorblax pump", "mode": "lexical"}
        (hit,) = client.post("/search", json=body).json()["hits"]
    assert [long[a:b] for a, b in hit["highlights"]] == ["zorblax", "pumps", "Zorblaxes"]
    passage = hit["passage"]
    assert long[passage["start"] : passage["end"]] == passage["text"]
    assert "zorblax é 𝄞 pumps" in passage["text"]


def test_similar_items_of_one_and_of_several(reader: TestClient, folder: Path) -> None:
    found = reader.post("/similar", json={"id": "p1", "top_k": 2}).json()["hits"]
    with Index.open(folder / "index") as index:
        assert [hit["id"] for hit in found] == [hit.id for hit in index.similar("p1", 2)]
    several = reader.post("/similar", json={"ids": ["p1", "p2"], "top_k": 10}).json()["hits"]
    assert {hit["id"] for hit in several} == {"p/3", "p4"}
    missing = reader.post("/similar", json={"id": "p9"})
    assert missing.status_code == 404
    assert missing.json()["error"]["message"] == "no item 'p9'"


def test_items_with_any_id_are_read(reader: TestClient) -> None:
    assert reader.get("/items/p%2F3").json() == {
        "id": "p/3",
        "text": "a c e g i",
        "metadata": {"price": 80, "kind": "chair"},
    }
    assert len(reader.get("/items/p1?vector=true").json()["vector"]) == 16
    assert reader.get("/items/p9").status_code == 404
    assert reader.put("/items/p9").headers["allow"] == "GET, PATCH"
    assert reader.get("/items/..%2F..%2Fetc%2Fpasswd").status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/search", "{", 400, "not JSON"),
        ("/search", b'{"query": "\xff"}', 400, ""),
        ("/search", "[]", 422, "dictionary"),
        ("/search", '{"query": 7}', 422, "query: Input should be a valid string"),
        ("/search", '{"query": "a", "top_k": 1000000}', 422, "top_k"),
        ("/search", '{"query": "a", "top_k": 1e400}', 422, "top_k"),
        ("/search", '{"query": "a", "topk": 3}', 422, "topk"),
        ("/search", '{"query": "a", "mode": "both"}', 422, "mode"),
        ("/search", '{"query": "a", "filter": {"price": {"$above": 3}}}', 400, "$above"),
        ("/search", '{"query": "a", "filter": {"price": NaN}}', 400, "filter"),
        ("/search", '{"query": "a\\ud800"}', 422, "query"),
        ("/search", '{"query": "a", "system": "other"}', 404, "no system"),
        ("/search_vectors", '{"vectors": [[1, 2]]}', 400, "2 dimensions"),
        ("/similar", "{}", 422, "no item is given"),
        ("/items/delete", "{}", 422, "exactly one"),
        ("/encode", '{"texts": []}', 422, "texts"),
        ("/v1/embeddings", '{"input": []}', 422, "input: List should have at least 1 item"),
        ("/v1/embeddings", '{"input": ["a", 3]}', 422, "input.1: Input should be a valid string"),
        ("/v1/embeddings", '{"input": 3, "dimensions": 0}', 422, "(and 1 more)"),
        ("/encode", '{"texts": ["a"], "prompt_name": "nope"}', 400, "unknown prompt"),
        ("/encode", '{"texts": ["a"], "dimensions": 17}', 400, "17 dimensions"),
        ("/encode", '{"texts": ["\\ud800"]}', 422, "texts.0"),
        ("/v1/embeddings", '{"input": [1.5]}', 422, "input"),
        ("/v1/embeddings", '{"input": [true]}', 422, "input"),
        ("/v1/embeddings", '{"input": [99]}', 400, "id 99"),
        ("/v1/embeddings", '{"input": "a", "model": "gpt-9"}', 404, "'gpt-9' is not served"),
        ("/rerank", '{"query": "a", "documents": []}', 422, "documents"),
        ("/recommend", '{"history": ["p1"]}', 404, "no recommender"),
        ("/audit", '{"text": "a"}', 404, "no vocabularies"),
        ("/nothing", "{}", 404, "Not Found"),
        ("/health", "{}", 405, "Method Not Allowed"),
        ("/v1/completions", '{"prompt": "w1", "max_tokens": 65}', 400, "at most 64"),
        ("/v1/completions", '{"prompt": [[999]]}', 400, "id 999"),
        ("/query", '{"topK": 3}', 400, "not one vector or one id"),
        ("/vectors/upsert", '{"vectors": [{"id": "z", "values": [0,0]}]}', 400, "zero"),
    ],
)
def test_bad_input_is_named(
    reader: TestClient, path: str, body: Any, status: int, message: str
) -> None:
    found = reader.post(path, content=body, headers={"content-type": "application/json"})
    error = found.json()["error"]
    assert found.status_code == status, error
    assert message in error["message"]
    assert {"message", "type", "hint"} <= error.keys()


def test_fields_of_info_group_items() -> None:
    items = [
        Item(str(n), "", {"title": f"item {n}", "kind": n % 2, "price": n, "tags": ["a", "b"]})
        for n in range(30)
    ]
    index: Any = SimpleNamespace(store=SimpleNamespace(items=lambda: items))
    assert field_values(index) == {"kind": [0, 1], "price": [0, 29], "tags": ["a", "b"]}


def test_json_is_valid_for_any_text() -> None:
    value = {"text": "é\ud800"}
    assert json.loads(json_bytes(value).decode("utf-8")) == value


def test_passages_are_no_items_and_a_folder_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.write_index(tmp_path)
    with Index.open(tmp_path / "index") as index:
        assert index.add_passages() == 4
    monkeypatch.chdir(tmp_path / "index")
    with served.serving(Path()) as client:
        info = client.get("/info").json()
        assert (info["run"], info["model"], info["items"]) == ("index", "index", 4)
        stats = client.post("/describe_index_stats", json={}).json()
        assert (stats["namespaces"], stats["totalVectorCount"]) == ({"": {"vectorCount": 4}}, 4)


def test_info_says_what_is_served(reader: TestClient) -> None:
    info = reader.get("/info").json()
    assert (info["items"], info["dimensions"], info["kind"]) == (4, 16, "index")
    assert info["modes"] == ["lexical", "dense", "hybrid"]
    assert info["fields"]["kind"][0] == "lamp"
    assert {name for name, can in info["abilities"].items() if can} >= {"search", "generate"}
    assert not info["abilities"]["recommend"]
    assert reader.get("/health").json()["status"] == "ok"
    assert reader.get("/ready").status_code == 200
    assert reader.get("/").status_code == 200


@pytest.mark.parametrize("path", ["/health", "/", "/items/p1", "/static/page.css"])
def test_head_is_get_without_the_body(reader: TestClient, path: str) -> None:
    found, whole = reader.head(path), reader.get(path)
    assert found.status_code == whole.status_code, path
    assert found.content == b""
    assert whole.content
    assert found.headers["content-length"] == whole.headers["content-length"]
    assert reader.head("/search").status_code == 405


def test_a_compressed_body_is_refused(reader: TestClient) -> None:
    body = gzip.compress(b'{"query": "lamp"}')
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    found = reader.post("/search", content=body, headers=headers)
    assert found.status_code == 415
    assert found.json()["error"]["hint"] == "send it uncompressed"


@pytest.mark.parametrize("body", ['{"query": "é"}'.encode("latin-1"), b"[" * 100_000])
def test_a_body_that_cannot_be_read_has_a_hint(reader: TestClient, body: bytes) -> None:
    found = reader.post("/search", content=body, headers={"content-type": "application/json"})
    assert found.status_code == 400
    assert "UTF-8" in found.json()["error"]["hint"]
