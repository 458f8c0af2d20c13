"""An index in LangChain; its own suites are in `test_langchain_suites`."""

from __future__ import annotations

from pathlib import Path

import pytest

from encoding.models import tiny_encoder
from idiolect.errors import InputError
from idiolect.search.index import Index

pytest.importorskip("langchain_core")

from idiolect.integrations.langchain import IdiolectEmbeddings, IdiolectVectorStore


def test_an_index_searches_by_words_and_vectors(tmp_path: Path) -> None:
    embeddings = IdiolectEmbeddings(tiny_encoder())
    texts = ["a b c", "d d a", "c c c"]
    more = [{"kind": "x"}, {"kind": "y"}, {"kind": "x"}]
    store = IdiolectVectorStore.from_texts(
        texts, embeddings, more, ids=["1", "2", "3"], path=tmp_path / "index"
    )
    (best, *_) = store.similarity_search("d d", k=2)
    assert (best.id, best.page_content, best.metadata) == ("2", "d d a", {"kind": "y"})
    kept = store.similarity_search("d d", k=3, filter={"kind": "x"})
    assert {document.id for document in kept} == {"1", "3"}
    assert len(store.max_marginal_relevance_search("c", k=2)) == 2
    for wrong in ({"metadatas": [{}]}, {"ids": ["7", "8", "9"]}):
        with pytest.raises(InputError, match="for 2 texts"):
            store.add_texts(["a", "b"], **wrong)
    store.index.close()
    with Index.open(tmp_path / "index") as again:
        assert len(again) == 3
