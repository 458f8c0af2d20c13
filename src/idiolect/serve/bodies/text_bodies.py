"""Bodies of routes on texts: the audit, and vectors."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from idiolect.serve.bodies.search_bodies import CheckedBody

__all__ = [
    "AuditBody",
    "AuditedBody",
    "DocumentBody",
    "EncodeBody",
    "RankedBody",
    "RerankBody",
    "RerankedBody",
    "TermBody",
    "TokenBody",
    "VectorsBody",
]


class AuditBody(CheckedBody):
    """A text to audit."""

    text: str = Field(max_length=100_000, examples=["The ndarray has a dtype."])


class TokenBody(BaseModel):
    """A token: `text[start:end]` in characters."""

    start: int
    end: int
    token: str


class TermBody(BaseModel):
    """A part of the text that is one new token."""

    text: str
    start: int
    end: int


class AuditedBody(BaseModel):
    """How two vocabularies break a text."""

    base: list[TokenBody]
    adapted: list[TokenBody]
    terms: list[TermBody]
    saved: float = Field(description="Share of the base's tokens that the new vocabulary saves.")


class EncodeBody(CheckedBody):
    """Texts to encode."""

    texts: list[Annotated[str, Field(max_length=1 << 20)]] = Field(
        min_length=1, examples=[["a red lamp", "a blue chair"]]
    )
    prompt_name: str | None = Field(None, max_length=256)
    dimensions: int | None = Field(None, ge=1, le=65536)


class VectorsBody(BaseModel):
    """Vectors in the order of the texts."""

    vectors: list[list[float]]


class DocumentBody(BaseModel):
    """A document of a reranking."""

    model_config = ConfigDict(extra="ignore", strict=True)

    text: str = Field(max_length=1 << 20)


class RerankBody(BaseModel):
    """A query and documents, in the form of Cohere and Jina."""

    model_config = ConfigDict(extra="ignore", strict=True)

    query: str = Field(min_length=1, max_length=100_000, examples=["a red lamp"])
    documents: list[Annotated[str, Field(max_length=1 << 20)] | DocumentBody] = Field(
        min_length=1, examples=[["a blue chair", "a crimson light"]]
    )
    model: str | None = Field(None, max_length=256)
    top_n: int | None = Field(None, ge=1, le=100_000)
    return_documents: bool = False
    max_tokens_per_doc: int | None = Field(None, ge=1, le=1 << 20)


class RankedBody(BaseModel):
    """A document and its score."""

    index: int
    relevance_score: float
    document: DocumentBody | None = None


class RerankedBody(BaseModel):
    """Documents, the most relevant first."""

    id: str
    results: list[RankedBody]
    meta: dict[str, Any]
