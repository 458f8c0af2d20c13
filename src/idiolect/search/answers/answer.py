"""`Answer`: what an index says about a question, and the places of its items that support it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Self

__all__ = ["NO_ANSWER", "Answer", "AnswerStream", "Citation", "Passage"]

NO_ANSWER = "The indexed texts do not answer this question."
"""The text of an answer that abstains."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of an item that was found for a question: `text == item_text[start:end]`."""

    id: str
    """Of the item."""
    start: int
    end: int
    text: str
    score: float
    """Of the ranking that chose it; a larger score is better."""


@dataclass(frozen=True, slots=True)
class Citation:
    """The part of an item that supports a statement: `text == item_text[start:end]`."""

    id: str
    """Of the item."""
    start: int
    end: int
    text: str
    attached: bool = field(default=False, compare=False)
    """Whether it was found for the statement afterwards, instead of being named by the model."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question."""

    question: str
    answer: str
    """With the numbers of its citations: `[1]` is the first of `citations`. No other number in
    square brackets is in it."""
    citations: tuple[Citation, ...]
    passages: tuple[Passage, ...]
    """What was read, best first."""
    abstained: bool
    """Whether the passages do not answer the question; the answer says so, and cites nothing."""
    method: Literal["generated", "extractive"]
    """Whether a model wrote the answer, or it consists of sentences of the passages."""
    confidence: float
    """From 0 to 1: how well the passages fit the question; see `answer_confidence`."""
    dropped: tuple[str, ...] = ()
    """Sentences that the model wrote and no passage supports. They are not in the answer."""

    def as_json(self) -> dict[str, Any]:
        """Return the answer as a JSON object."""
        return {
            "question": self.question,
            "answer": self.answer,
            "citations": [
                {"id": one.id, "start": one.start, "end": one.end, "text": one.text}
                for one in self.citations
            ],
            "abstained": self.abstained,
            "method": self.method,
            "confidence": round(self.confidence, 4),
            "passages": [
                {
                    "id": one.id,
                    "start": one.start,
                    "end": one.end,
                    "text": one.text,
                    "score": one.score,
                }
                for one in self.passages
            ],
        }


class AnswerStream:
    """An answer in pieces, as they become certain; `result` is the whole, after the last piece.

    Close it, or use it as a context manager, to stop the model before the end.
    """

    def __init__(self, pieces: Generator[str, None, Answer]) -> None:
        self._pieces = pieces
        self._result: Answer | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration as end:
            self._result = end.value or self._result
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop writing."""
        self._pieces.close()

    @property
    def result(self) -> Answer:
        """The whole answer; pieces that were not read yet are read first."""
        for _ in self:
            pass
        if self._result is None:
            raise ValueError("the stream was closed before its end")
        return self._result
