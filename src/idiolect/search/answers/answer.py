"""`Answer`: the answer of an index to a question, with the parts of its items that support it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from idiolect.errors import InputError

__all__ = ["NO_ANSWER", "Answer", "AnswerStream", "Citation", "Passage"]

NO_ANSWER = "The indexed texts do not answer this question."
"""The text of an answer that abstains."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A retrieved part of an item: `text == item_text[start:end]`."""

    id: str
    """Of the item."""
    start: int
    end: int
    text: str
    score: float
    """Score in the final ranking; a larger score is better."""


@dataclass(frozen=True, slots=True)
class Citation:
    """The part of an item that supports a statement: `text == item_text[start:end]`."""

    id: str
    """Of the item."""
    start: int
    end: int
    text: str
    attached: bool = field(default=False, compare=False)
    """Whether the model did not cite it, and it was matched to the statement afterwards."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question."""

    question: str
    answer: str
    """The text, with citation markers: `[1]` is the first of `citations`. It contains no other
    numbers in square brackets."""
    citations: tuple[Citation, ...]
    passages: tuple[Passage, ...]
    """The passages that the answer is based on, best first."""
    abstained: bool
    """Whether the passages do not answer the question; the answer says so, and cites nothing."""
    method: Literal["generated", "extractive"]
    """Whether a model wrote the answer; otherwise it consists of sentences of the passages."""
    confidence: float
    """From 0 to 1: how well the passages fit the question; see `answer_confidence`."""
    dropped: tuple[str, ...] = ()
    """Sentences of the model that are not in the answer: no passage supports them, or they say
    that the model does not know."""

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
    """A streamed answer: an iterator over pieces of text; `result` is the whole answer.

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
        """The whole answer; this first consumes the remaining pieces.

        Raises:
            InputError: The stream was closed before its end.
        """
        for _ in self:
            pass
        if self._result is None:
            raise InputError("the answer was stopped before its end", hint="ask again")
        return self._result
