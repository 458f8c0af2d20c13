"""Haystack: an index as a `DocumentStore`, and a retriever over it.

    pip install 'idiolect[haystack]'

>>> from idiolect.integrations.haystack import IdiolectDocumentStore  # doctest: +SKIP
>>> store = IdiolectDocumentStore("shop/run")                         # doctest: +SKIP
>>> IdiolectRetriever(store).run("red lamp")["documents"]             # doctest: +SKIP
[Document(id=p17, …)]
"""

from __future__ import annotations

from typing import Any, Self

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from haystack.utils.filters import document_matches_filter

from idiolect.errors import InputError
from idiolect.search.index import Index
from idiolect.search.index_search import Mode
from idiolect.search.items import Item

__all__ = ["IdiolectDocumentStore", "IdiolectRetriever"]

_COMPARISONS = {
    "==": "$eq", "!=": "$ne", ">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte", "in": "$in",
    "not in": "$nin",
}  # fmt: skip
_GROUPS = {"AND": "$and", "OR": "$or"}


class IdiolectDocumentStore:
    """An index. Documents keep their ids, texts and metadata; the index's encoder computes vectors.

    Args:
        path: The folder of the index, or of a run with one.
        encoder: The encoder of a new index, or a replacement for the index's own: a path or name.
    """

    def __init__(self, path: str, encoder: str | None = None) -> None:
        self.path, self.encoder = path, encoder
        try:
            self.index = Index.open(path, encoder)
        except InputError:
            if encoder is None:
                raise
            self.index = Index.build(path, encoder, [])

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments for `from_dict`, for a pipeline in YAML."""
        settings: dict[str, Any] = default_to_dict(self, path=self.path, encoder=self.encoder)
        return settings

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Open the index that `to_dict` described."""
        store: Self = default_from_dict(cls, data)
        return store

    def count_documents(self) -> int:
        """Return the number of documents."""
        return len(self.index)

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """Return the documents that match Haystack filters; all documents without filters.

        This scans every document. `IdiolectRetriever` uses the filters of the index instead.

        Raises:
            FilterError: The filters are malformed.
        """
        found = [_document(item.id, item.text, item.metadata) for item in self.index]
        if not filters:
            return found
        if "operator" not in filters and "conditions" not in filters:
            raise FilterError("filters need an operator")
        return [one for one in found if document_matches_filter(filters, one)]

    def write_documents(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Write documents; return their number, without those that have no text to search.

        By default an id that exists, or that two documents have, is an error; nothing is written.

        Raises:
            ValueError: An argument is not a document.
            DuplicateDocumentError: An id exists, and the policy is to fail.
        """
        if not isinstance(documents, list) or not all(isinstance(d, Document) for d in documents):
            raise ValueError("documents must be a list of haystack's Document")
        if policy != DuplicatePolicy.OVERWRITE:
            fresh: dict[str, Document] = {}
            for one in documents:
                known = one.id in fresh or one.id in self.index
                if known and policy != DuplicatePolicy.SKIP:
                    raise DuplicateDocumentError(f"there is already a document {one.id}")
                if not known:
                    fresh[one.id] = one
            documents = list(fresh.values())
        counts = self.index.add([Item(one.id, one.content or "", one.meta) for one in documents])
        return len(documents) - counts["empty"]

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete documents; unknown ids are ignored."""
        self.index.delete([one for one in document_ids if one in self.index])


@component
class IdiolectRetriever:
    """Finds documents by words and vectors.

    Args:
        document_store: The store.
        top_k: Number of documents.
        mode: `hybrid`, `dense` or `lexical`.
    """

    def __init__(
        self, document_store: IdiolectDocumentStore, top_k: int = 10, mode: Mode = "hybrid"
    ) -> None:
        self.document_store, self.top_k, self.mode = document_store, top_k, mode

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments for `from_dict`, for a pipeline in YAML."""
        store = self.document_store.to_dict()
        settings: dict[str, Any] = default_to_dict(
            self, document_store=store, top_k=self.top_k, mode=self.mode
        )
        return settings

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Create the retriever that `to_dict` described."""
        given = data["init_parameters"]
        given["document_store"] = IdiolectDocumentStore.from_dict(given["document_store"])
        retriever: Self = default_from_dict(cls, data)
        return retriever

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Return the best documents, with their scores.

        Args:
            query: The query.
            filters: Haystack filters on the metadata.
            top_k: Number of documents.

        Raises:
            FilterError: The filters are malformed, or use other fields than metadata.
        """
        hits = self.document_store.index.search(
            query, top_k or self.top_k, mode=self.mode, filter=_own_filter(filters)
        )
        return {"documents": [_document(hit.id, hit.text, hit.metadata, hit.score) for hit in hits]}


def _own_filter(filters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Translate Haystack filters into filters of the index.

    >>> _own_filter({"field": "meta.price", "operator": "<", "value": 5})
    {'price': {'$lt': 5}}
    """
    if not filters:
        return None
    operator = filters.get("operator")
    if "field" not in filters:
        parts = [_own_filter(one) or {} for one in filters.get("conditions", ())]
        if operator == "NOT":
            return {"$not": {"$and": parts}}
        if operator not in _GROUPS:
            raise FilterError(f"unknown operator {operator!r}")
        return {_GROUPS[operator]: parts}
    field = str(filters["field"])
    if not field.startswith("meta.") or operator not in _COMPARISONS or "value" not in filters:
        raise FilterError(f"cannot compare {field!r} by {operator!r}")
    name, value = field.removeprefix("meta."), filters["value"]
    if value is None and "in" in operator:
        raise FilterError(f"{operator!r} needs a list of values")
    if value is None and operator not in ("==", "!="):  # no value is more or less than none
        return {"$and": [{name: {"$exists": True}}, {name: {"$exists": False}}]}
    if value is None:
        return {name: {"$exists": operator == "!="}}
    return {name: {_COMPARISONS[operator]: value}}


def _document(name: str, text: str, metadata: Any, score: float | None = None) -> Document:
    return Document(id=name, content=text, meta=dict(metadata), score=score)
