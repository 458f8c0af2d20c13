"""Bodies of routes on texts: the audit, and vectors."""

from __future__ import annotations

from pydantic import BaseModel, Field

from idiolect.serve.bodies.search_bodies import CheckedBody

__all__ = ["AuditBody", "AuditedBody", "TokenBody"]


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
