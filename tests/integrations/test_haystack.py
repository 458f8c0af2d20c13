"""Haystack's own tests of document stores, and a pipeline with the retriever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("haystack")

from haystack import Document, Pipeline
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from haystack.testing.document_store import (
    CountDocumentsTest,
    DeleteDocumentsTest,
    FilterDocumentsTest,
    WriteDocumentsTest,
)

from encoding.models import tiny_encoder
from idiolect.errors import InputError
from idiolect.integrations.haystack import IdiolectDocumentStore, IdiolectRetriever


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("encoder")
    tiny_encoder().save(folder)
    return str(folder)


def _without_vectors(documents: list[Document]) -> list[tuple[Any, ...]]:
    return sorted((d.id, d.content, sorted(d.meta.items(), key=str)) for d in documents)


class TestStore(CountDocumentsTest, DeleteDocumentsTest, FilterDocumentsTest, WriteDocumentsTest):
    """Vectors are the index's own, and it has no order, so neither is compared."""

    @pytest.fixture
    def document_store(self, encoder: str, tmp_path: Path) -> Any:
        store = IdiolectDocumentStore(str(tmp_path / "index"), encoder)
        yield store
        store.index.close()

    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        assert _without_vectors(received) == _without_vectors(expected)

    def test_write_documents(self, document_store: IdiolectDocumentStore) -> None:
        """By default a known id is an error."""
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(Exception, match="there is already a document"):
            document_store.write_documents([document])
        assert document_store.write_documents([Document(content=" ")]) == 0, "it is not stored"


def test_two_documents_with_one_id(encoder: str, tmp_path: Path) -> None:
    store = IdiolectDocumentStore(str(tmp_path / "index"), encoder)
    twice = [Document(id="x", content="a"), Document(id="x", content="b")]
    with pytest.raises(DuplicateDocumentError):
        store.write_documents(twice)
    assert store.count_documents() == 0
    assert store.write_documents(twice, DuplicatePolicy.SKIP) == 1
    assert [one.content for one in store.filter_documents()] == ["a"]
    store.index.close()


def test_nothing_is_more_or_less_than_none(encoder: str, tmp_path: Path) -> None:
    store = IdiolectDocumentStore(str(tmp_path / "index"), encoder)
    store.write_documents([Document(id="p", content="a", meta={"price": 1}), Document(content="a")])
    for operator in (">", ">=", "<", "<="):
        filters = {"field": "meta.price", "operator": operator, "value": None}
        assert store.filter_documents(filters) == []
        assert IdiolectRetriever(store).run("a", filters)["documents"] == []
    for operator in ("in", "not in"):
        with pytest.raises(FilterError, match="list"):
            IdiolectRetriever(store).run("a", filters | {"operator": operator})
    store.index.close()


def test_a_pipeline_retrieves_and_is_saved(encoder: str, tmp_path: Path) -> None:
    store = IdiolectDocumentStore(str(tmp_path / "index"), encoder)
    prices = {"a": 10, "b": 20, "c": 30}
    store.write_documents(
        [Document(id=n, content=f"a b {n}", meta={"price": p}) for n, p in prices.items()]
    )
    pipeline = Pipeline()
    pipeline.add_component("find", IdiolectRetriever(store, top_k=2, mode="lexical"))
    text = pipeline.dumps()
    store.index.close()
    pipeline = Pipeline.loads(text, allowed_modules=["idiolect.integrations.haystack"])
    filters = {
        "operator": "AND",
        "conditions": [
            {"field": "meta.price", "operator": ">", "value": 10},
            {"operator": "NOT", "conditions": [
                {"field": "meta.price", "operator": "in", "value": [30]}
            ]},
            {"field": "meta.name", "operator": "==", "value": None},
        ],
    }  # fmt: skip
    found = pipeline.run({"find": {"query": "c b", "filters": filters}})["find"]["documents"]
    assert [one.id for one in found] == ["b"]
    assert found[0].meta == {"price": 20}
    assert found[0].score is not None
    retriever = pipeline.get_component("find")
    for bad in ({"field": "content", "operator": "==", "value": 1}, {"operator": "XOR"}):
        with pytest.raises(FilterError):
            retriever.run("a", filters=bad)
    retriever.document_store.index.close()
    with pytest.raises(InputError):
        IdiolectDocumentStore(str(tmp_path / "missing"))
