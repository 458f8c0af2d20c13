"""LangChain's own suites for vector stores and embeddings.

They bring plugins for pytest that the other tests do without, so they are run by themselves:

    pip install langchain-tests
    pytest -o asyncio_mode=auto -o asyncio_default_fixture_loop_scope=function THIS_FILE
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from encoding.models import tiny_encoder

pytest.importorskip("langchain_tests")

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    VectorStoreIntegrationTests,
)

from idiolect.integrations.langchain import IdiolectEmbeddings, IdiolectVectorStore


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[VectorStore]:
        store = IdiolectVectorStore.from_texts([], self.get_embeddings(), path=tmp_path / "index")
        yield store
        store.index.close()


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return IdiolectEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"encoder": tiny_encoder()}
