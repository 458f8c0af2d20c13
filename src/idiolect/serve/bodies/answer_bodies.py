"""Bodies of answers with sources."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from idiolect.search.answers.answer_options import AnswerOptions
from idiolect.serve.bodies.search_bodies import CheckedBody, MetadataFilter, NamespaceName

__all__ = ["AnswerBody", "AnsweredBody", "ReadPassageBody", "SourceBody"]


class AnswerBody(CheckedBody):
    """A question."""

    question: str = Field(min_length=1, max_length=10_000, examples=["Which lamp is red?"])
    top_k: int = Field(5, ge=1, le=100, description="Passages to read.")
    stream: bool = False
    filter: MetadataFilter = None
    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    namespace: NamespaceName = ""
    min_confidence: float = Field(
        AnswerOptions.min_confidence, ge=0, le=1, description="Abstain below."
    )
    max_new_tokens: int = Field(AnswerOptions.max_new_tokens, ge=1, le=100_000)


class SourceBody(BaseModel):
    """A part of an item: `item_text[start:end]` in characters."""

    id: str
    start: int
    end: int
    text: str


class ReadPassageBody(SourceBody):
    """A passage that was read."""

    score: float


class AnsweredBody(BaseModel):
    """An answer; `[1]` in it is the first of the citations."""

    question: str
    answer: str
    citations: list[SourceBody]
    abstained: bool
    method: Literal["generated", "extractive"]
    confidence: float
    passages: list[ReadPassageBody]
