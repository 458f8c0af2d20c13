"""Bodies of Pinecone's routes, whose names are in camel case."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from idiolect.serve.bodies.search_bodies import Id, NamespaceName, Vector

__all__ = [
    "DeleteVectorsBody",
    "FetchedBody",
    "FoundVectorBody",
    "IndexStats",
    "ListedBody",
    "MatchBody",
    "MatchesBody",
    "NamespaceStats",
    "QueryBody",
    "StatsBody",
    "UpdateVectorBody",
    "UpsertBody",
    "UpsertedBody",
    "VectorBody",
]


class _PineconeBody(BaseModel):
    model_config = ConfigDict(
        extra="ignore",
        allow_inf_nan=False,
        strict=True,
        alias_generator=to_camel,
        populate_by_name=True,
    )


class VectorBody(_PineconeBody):
    """A vector with its id. The text of the item is its metadata's `text`."""

    id: Id = Field(examples=["p1"])
    values: Vector | None = Field(None, description="By default computed from the text.")
    metadata: dict[str, Any] | None = Field(None, examples=[{"text": "a red lamp", "price": 20}])


class UpsertBody(_PineconeBody):
    """Vectors to add or replace."""

    vectors: list[VectorBody] = Field(min_length=1, max_length=1000)
    namespace: NamespaceName = ""


class QueryBody(_PineconeBody):
    """A search by a vector, or by the vector of an item."""

    vector: Vector | None = None
    id: Id | None = None
    top_k: Annotated[int, Field(ge=1, le=10_000)] = 10
    filter: dict[str, Any] | None = None
    namespace: NamespaceName = ""
    include_values: bool = False
    include_metadata: bool = False


class DeleteVectorsBody(_PineconeBody):
    """Vectors to delete: by id, by filter, or all of a namespace."""

    ids: Annotated[list[Id], Field(max_length=1000)] | None = None
    delete_all: bool = False
    filter: dict[str, Any] | None = None
    namespace: NamespaceName = ""


class UpdateVectorBody(_PineconeBody):
    """Changes of one vector."""

    id: Id
    values: Vector | None = None
    set_metadata: dict[str, Any] | None = None
    namespace: NamespaceName = ""


class StatsBody(_PineconeBody):
    """A filter, which is not supported."""

    filter: dict[str, Any] | None = None


class UpsertedBody(_PineconeBody):
    """How many were written."""

    upserted_count: int


class FoundVectorBody(_PineconeBody):
    """A stored vector."""

    id: str
    values: list[float] = []
    metadata: dict[str, Any] | None = None


class FetchedBody(_PineconeBody):
    """Vectors by id."""

    vectors: dict[str, FoundVectorBody]
    namespace: str


class MatchBody(FoundVectorBody):
    """A result."""

    score: float


class MatchesBody(_PineconeBody):
    """Results, best first."""

    matches: list[MatchBody]
    namespace: str


class ListedBody(_PineconeBody):
    """Ids in order, a page of them."""

    vectors: list[dict[str, str]]
    pagination: dict[str, str] | None = None
    namespace: str


class NamespaceStats(_PineconeBody):
    """A namespace."""

    vector_count: int


class IndexStats(_PineconeBody):
    """The size of the index."""

    namespaces: dict[str, NamespaceStats]
    dimension: int
    index_fullness: float
    total_vector_count: int
    metric: str
    vector_type: str
