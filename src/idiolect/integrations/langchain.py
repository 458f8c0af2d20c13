"""LangChain: an index as a `VectorStore`, an encoder as `Embeddings`.

    pip install 'idiolect[langchain]'

>>> from idiolect.integrations.langchain import IdiolectVectorStore     # doctest: +SKIP
>>> IdiolectVectorStore.open("shop/run").similarity_search("red lamp")  # doctest: +SKIP
[Document(id='p17', …)]
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from idiolect.encoding.encoder import Encoder
from idiolect.errors import InputError
from idiolect.search.index import Index
from idiolect.search.items import Hits, Item

__all__ = ["IdiolectEmbeddings", "IdiolectVectorStore"]


class IdiolectEmbeddings(Embeddings):
    """An encoder as LangChain `Embeddings`.

    Args:
        encoder: An encoder, or its path or name.
    """

    def __init__(self, encoder: Encoder | str) -> None:
        self.encoder = Encoder.load(encoder) if isinstance(encoder, str) else encoder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector for each text, with the prompt for documents if there is one."""
        vectors: list[list[float]] = self.encoder.encode(texts, prompt_name="document").tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a query, with the prompt for queries if there is one."""
        vectors: list[list[float]] = self.encoder.encode([text], prompt_name="query").tolist()
        return vectors[0]


class IdiolectVectorStore(VectorStore):
    """An index as a LangChain `VectorStore`. With its own encoder, search is hybrid.

    Args:
        index: The open index.
        embedding: Computes the vectors instead of the index's encoder; search then uses only
            vectors.
    """

    def __init__(self, index: Index, embedding: Embeddings | None = None) -> None:
        self.index = index
        self._embedding = embedding

    @classmethod
    def open(cls, path: str | Path, embedding: Embeddings | None = None) -> Self:
        """Open an index, or the index of a run."""
        return cls(Index.open(path), embedding)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        path: str | Path | None = None,
        **kwargs: Any,
    ) -> Self:
        """Build an index of texts in the folder `path`.

        Raises:
            InputError: There is no path.
        """
        if path is None:
            raise InputError("an index needs a folder", hint="pass path=")
        if isinstance(embedding, IdiolectEmbeddings):
            store = cls(Index.build(path, embedding.encoder, []))
        else:
            dimensions = len(embedding.embed_query("width"))
            store = cls(Index.build(path, None, [], dimensions=dimensions), embedding)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @property
    def embeddings(self) -> Embeddings | None:
        """The embeddings that compute the vectors, or `None` for the index's own encoder."""
        return self._embedding

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts, or replace those with the same ids; return the ids.

        Raises:
            InputError: There are not as many metadatas or ids as texts.
        """
        own = list(texts)
        for name, given in (("metadatas", metadatas), ("ids", ids)):
            if given and len(given) != len(own):
                raise InputError(
                    f"there are {len(given):,} {name} for {len(own):,} texts",
                    hint="pass one for each text",
                )
        names = [name or secrets.token_hex(16) for name in (ids or [None] * len(own))]
        described = metadatas or [{} for _ in own]
        vectors: Sequence[Any] = [None] * len(own)
        if self._embedding is not None and own:
            vectors = self._embedding.embed_documents(own)
        self.index.add(map(Item, names, own, described, vectors))
        return names

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Delete items by id; ids that are not in the index are ignored."""
        if ids is None:
            raise InputError("deleting everything is not supported", hint="pass ids")
        self.index.delete([name for name in ids if name in self.index])
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents with these ids, in that order; missing ids are skipped."""
        found = (self.index.get(name) for name in ids)
        return [_document(i.id, i.text, i.metadata) for i in found if i is not None]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Return the best documents; `filter` and `mode` are passed to `Index.search`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Return the best documents with their scores; larger is better."""
        if self._embedding is None:
            return _scored(self.index.search(query, k, **kwargs))
        return _scored(self._nearest(self._embedding.embed_query(query), k, **kwargs))

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """Return the documents nearest to a vector."""
        return [document for document, _ in _scored(self._nearest(embedding, k, **kwargs))]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """Return relevant and diverse documents; `fetch_k` is chosen by the index."""
        if self._embedding is not None:
            raise InputError("diverse results need the index's own encoder", hint="omit embedding")
        hits = self.index.search(query, k, mmr_diversity=1 - lambda_mult, **kwargs)
        return [document for document, _ in _scored(hits)]

    def _select_relevance_score_fn(self) -> Any:
        return lambda score: score

    def _nearest(self, vector: list[float], k: int, **kwargs: Any) -> Hits:
        (hits,) = self.index.search_vectors([vector], k, **kwargs)
        return hits


def _scored(hits: Hits) -> list[tuple[Document, float]]:
    return [(_document(hit.id, hit.text, hit.metadata), hit.score) for hit in hits]


def _document(name: str, text: str, metadata: Any) -> Document:
    return Document(id=name, page_content=text, metadata=dict(metadata))
