"""The unmodified clients of OpenAI, Cohere and Pinecone against a server on loopback."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idiolect.encoding.encoder import Encoder
from idiolect.generate.generator import Generator
from idiolect.models.language_model import LanguageModel
from serve.processes import running

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
KEY = "a-key-of-this-test"


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    options = ("--generator", str(folder / "writer"), "--api-key", KEY)
    with running(folder / "index", *options) as (url, _):
        yield url


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Collect the connections that these clients leave open here, not in an unrelated test."""
    yield
    gc.collect()


def test_openai(address: str, folder: Path) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0)
    model = client.models.list().data[0].id
    expected = Encoder.load(folder / "encoder").encode(["a b", "c d e"])
    for options in ({}, {"encoding_format": "float"}):  # base64 by default
        found = client.embeddings.create(model=model, input=["a b", "c d e"], **options)
        assert np.abs(np.array([one.embedding for one in found.data]) - expected).max() < 1e-5
    generator = Generator(LanguageModel.load(folder / "writer"))
    own = generator.generate(["w3 w4"], max_new_tokens=7)[0].text
    text = {"model": model, "prompt": "w3 w4", "max_tokens": 7, "temperature": 0}
    assert client.completions.create(**text).choices[0].text == own
    assert "".join(x.choices[0].text for x in client.completions.create(**text, stream=True)) == own
    messages = [{"role": "user", "content": "w5 w6"}]
    own = generator.generate([generator.chat_ids(messages)], max_new_tokens=7)[0].text
    chat = {"model": model, "messages": messages, "max_tokens": 7, "temperature": 0}
    assert client.chat.completions.create(**chat).choices[0].message.content == own
    pieces = client.chat.completions.create(**chat, stream=True)
    assert "".join(one.choices[0].delta.content or "" for one in pieces) == own
    with pytest.raises(openai.NotFoundError, match="'other' is not served"):
        client.embeddings.create(model="other", input="a")
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=model, prompt="w3", max_tokens=10**6)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{address}/v1", api_key="no", max_retries=0).models.list()


def test_cohere(address: str) -> None:
    cohere = pytest.importorskip("cohere")
    documents = ["k l m", "a b c d", "a b"]
    for kind in (cohere.Client, cohere.ClientV2):
        client = kind(api_key=KEY, base_url=address)
        found = client.rerank(model="default", query="a b", documents=documents, top_n=2)
        assert found.results[0].index == 2
        assert len(found.results) == 2
        with pytest.raises(cohere.core.api_error.ApiError) as refused:
            kind(api_key="no", base_url=address).rerank(model="x", query="a", documents=["a"])
        assert refused.value.status_code == 401


def test_pinecone(address: str) -> None:
    pinecone = pytest.importorskip("pinecone")
    index: Any = pinecone.Pinecone(api_key=KEY).Index(host=address)
    rows = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    vectors = [
        {"id": f"v{n}", "values": row.tolist(), "metadata": {"n": n}} for n, row in enumerate(rows)
    ]
    assert index.upsert(vectors=vectors, namespace="pc").upserted_count == 5
    options = {"namespace": "pc", "include_metadata": True, "filter": {"n": {"$gte": 1}}}
    found = index.query(vector=rows[2].tolist(), top_k=2, **options)
    assert (found.matches[0].id, found.matches[0].metadata["n"]) == ("v2", 2)
    index.update(id="v0", set_metadata={"n": 7}, namespace="pc")
    fetched = index.fetch(ids=["v0"], namespace="pc").vectors["v0"]
    assert fetched.metadata["n"] == 7
    assert np.abs(np.array(fetched.values) - rows[0]).max() < 1e-6
    listed = [one.id for page in index.list(namespace="pc", limit=2) for one in page]
    assert listed == [f"v{n}" for n in range(5)]
    stats = index.describe_index_stats()
    assert (stats.dimension, stats.namespaces["pc"].vector_count) == (16, 5)
    index.delete(ids=["v0", "v1"], namespace="pc")
    assert index.describe_index_stats().namespaces["pc"].vector_count == 3
    index.delete(delete_all=True, namespace="pc")
    with pytest.raises(Exception, match="unknown or expired"):
        pinecone.Pinecone(api_key="no").Index(host=address).describe_index_stats()
