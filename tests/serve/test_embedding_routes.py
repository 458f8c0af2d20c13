"""Vectors over HTTP equal those of the encoder, whatever else is in the batch."""

from __future__ import annotations

import base64
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from idiolect.encoding.encoder import Encoder
from idiolect.serve.routes.embedding_routes import _numbers


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return Encoder.load(folder / "encoder")


def _embedded(client: TestClient, given: Any, **options: Any) -> np.ndarray:
    found = client.post("/v1/embeddings", json={"input": given, **options})
    assert found.status_code == 200, found.json()
    rows = [one["embedding"] for one in found.json()["data"]]
    assert [one["index"] for one in found.json()["data"]] == list(range(len(rows)))
    if options.get("encoding_format") == "base64":
        rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
    return np.array(rows, np.float32)


def test_all_forms_of_input_and_output(reader: TestClient, encoder: Encoder) -> None:
    texts = ["a b c", "p", "", "d e f g h"]
    expected = encoder.encode(texts)
    assert np.abs(_embedded(reader, texts) - expected).max() < 1e-5
    assert np.abs(_embedded(reader, texts, encoding_format="base64") - expected).max() < 1e-5
    assert np.abs(_embedded(reader, "a b c") - expected[:1]).max() < 1e-5
    ids = encoder.model.tokenizer.encode_batch(["a b c", "p"], add_special_tokens=False)
    assert np.abs(_embedded(reader, ids) - expected[:2]).max() < 1e-5
    assert np.abs(_embedded(reader, ids[0]) - expected[:1]).max() < 1e-5
    short = encoder.encode(texts, dimensions=5)
    assert np.abs(_embedded(reader, texts, dimensions=5) - short).max() < 1e-5
    own = reader.post("/encode", json={"texts": texts, "prompt_name": "query"}).json()["vectors"]
    assert np.abs(own - encoder.encode(texts, prompt_name="query")).max() < 1e-5


def test_vectors_do_not_depend_on_who_else_asks(reader: TestClient, encoder: Encoder) -> None:
    draw = random.Random(3)
    requests = [
        [" ".join(draw.choices("abcdefghij", k=draw.randint(1, 40))) for _ in range(size)]
        for size in draw.choices([1, 1, 2, 30], k=24)
    ]
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda texts: _embedded(reader, texts), requests))
    for texts, vectors in zip(requests, found, strict=True):
        assert np.abs(vectors - encoder.encode(texts)).max() < 1e-5
    metrics = reader.get("/metrics").text
    batches = float(metrics.split("idiolect_batch_texts_count ")[1].split()[0])
    texts = float(metrics.split("idiolect_batch_texts_sum ")[1].split()[0])
    assert texts / batches > 1.5, "the requests shared batches"


def test_numbers_are_read_again_exactly() -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    values[:3] = np.finfo(np.float32).tiny, np.finfo(np.float32).max, 0
    assert (np.array(eval(_numbers(values)), np.float32) == values).all()


def test_reranking_orders_by_cosine_or_by_a_cross_encoder(
    reader: TestClient, encoder: Encoder
) -> None:
    documents = ["a b c d", {"text": "k l m"}, "a b"]
    body = {"query": "a b", "documents": documents, "top_n": 2, "return_documents": True}
    found = reader.post("/rerank", json=body).json()
    asked, *vectors = encoder.encode(["a b", "a b c d", "k l m", "a b"])
    scores = [float(asked @ vector) for vector in vectors]
    order = sorted(range(3), key=lambda n: -scores[n])[:2]
    assert [one["index"] for one in found["results"]] == order
    assert found["results"][0]["relevance_score"] == pytest.approx(scores[order[0]], abs=1e-5)
    assert found["results"][0]["document"] == {"text": "a b"}
    for path in ("/v1/rerank", "/v2/rerank"):
        assert reader.post(path, json=body).json()["results"] == found["results"]
