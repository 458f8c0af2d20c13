"""Bodies of searches, items and recommendations."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "CheckedBody",
    "HitBody",
    "HitsBody",
    "Id",
    "ItemBody",
    "MetadataFilter",
    "NamespaceName",
    "NamespaceQuery",
    "PassageBody",
    "ReadItemBody",
    "RecommendBody",
    "ResultsBody",
    "SearchBody",
    "SearchManyBody",
    "SearchVectorsBody",
    "SimilarBody",
    "Text",
    "TopK",
    "Vector",
]

Text = Annotated[str, Field(max_length=100_000)]
Id = Annotated[str, Field(min_length=1, max_length=512)]
TopK = Annotated[int, Field(ge=1, le=1000)]
NamespaceName = Annotated[str, Field(max_length=512)]
NamespaceQuery = Annotated[str, Query(max_length=512)]
Vector = Annotated[list[float], Field(min_length=1, max_length=4096)]
MetadataFilter = Annotated[
    dict[str, Any] | None,
    Field(description='Such as {"price": {"$lt": 50}}; operators are Pinecone\'s.'),
]


class CheckedBody(BaseModel):
    """A request whose unknown fields are errors, and whose values have exactly their type."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


class SearchBody(CheckedBody):
    """A search."""

    query: Text = Field(examples=["waterproof jacket"])
    top_k: TopK = 10
    filter: MetadataFilter = None
    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    system: str | None = Field(None, max_length=64)
    namespace: NamespaceName = ""
    mmr_diversity: float = Field(0.0, ge=0, le=1)


class SearchManyBody(CheckedBody):
    """Several searches."""

    queries: list[Text] = Field(min_length=1, max_length=100, examples=[["jacket", "lamp"]])
    top_k: TopK = 10
    filter: MetadataFilter = None
    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    namespace: NamespaceName = ""


class SearchVectorsBody(CheckedBody):
    """Searches by vectors."""

    vectors: list[Vector] = Field(min_length=1, max_length=100)
    top_k: TopK = 10
    filter: MetadataFilter = None
    namespace: NamespaceName = ""


class SimilarBody(CheckedBody):
    """A search for items near to one, or to several."""

    id: Id | None = Field(None, examples=["p1"])
    ids: list[Id] | None = Field(None, min_length=1, max_length=100)
    top_k: TopK = 10
    filter: MetadataFilter = None
    namespace: NamespaceName = ""


class RecommendBody(CheckedBody):
    """A history, oldest first."""

    history: list[Id] = Field(max_length=1000, examples=[["p1", "p2"]])
    top_k: TopK = 10
    exclude_seen: bool = True


class ItemBody(BaseModel):
    """An item."""

    id: str = Field(examples=["p1"])
    text: str = Field(examples=["a red lamp"])
    metadata: dict[str, Any] = Field(examples=[{"price": 20}])


class ReadItemBody(ItemBody):
    """An item, with its vector if asked for."""

    vector: list[float] | None = None


class PassageBody(BaseModel):
    """A part of a text: `text[start:end]` in characters."""

    start: int
    end: int
    text: str


class HitBody(ItemBody):
    """One result."""

    score: float
    passage: PassageBody | None = None
    highlights: list[tuple[int, int]] = Field(
        [], description="Places of matched words in the text, in characters."
    )
    why: list[str] = Field([], description="Words that a similar item shares.")


class HitsBody(BaseModel):
    """Results, best first."""

    hits: list[HitBody]
    mode: str = "hybrid"
    note: str = ""
    took_ms: float = 0.0


class ResultsBody(BaseModel):
    """The results of each query, best first."""

    results: list[list[HitBody]]
