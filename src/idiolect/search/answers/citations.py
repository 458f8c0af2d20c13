"""Citations of a text, verified while it is written.

A model marks the passages that a sentence is based on by their numbers, as `[2]`. Small models do
this rarely, and any model may name a passage that says something else. So each sentence is compared
with the passages: a number that the model wrote is kept only if that passage supports the sentence;
without such a number, the passage that supports it best is attached. The numbers of the result are
those of the verified citations, in the order of their first use. Every other number in square
brackets is removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from idiolect.search.answers.answer import Citation, Passage
from idiolect.search.answers.support import PairScorer
from idiolect.search.chunks import sentence_spans
from idiolect.text.sentences import sentence_ends

__all__ = ["CitationWriter", "supporting_part", "without_markers"]

_NUMBERS = r"\d+(?:\s*[,;–-]\s*\d+)*"
_MARKER = re.compile(
    rf"\s*[\[【]\s*\^?(?:passages?|sources?)?\s*({_NUMBERS})\s*[\]】]_?", re.IGNORECASE
)
_OPEN_MARKER = re.compile(r"\s*[\[【][^\]】]{0,40}$")
_RANGE = re.compile(r"(\d+)(?:\s*[–-]\s*(\d+))?")
_LAST_STOP = re.compile(r"[.!?。！？…]+[\"'”’)\]»」』]*$")


def without_markers(text: str) -> str:
    """Return a text without numbers in square brackets.

    >>> without_markers("It is red [1, 7]. So [2] what?")
    'It is red. So what?'
    """
    while (cleaned := _MARKER.sub("", text)) != text:  # removing one may join another
        text = cleaned
    return text


def supporting_part(claim: str, passage: Passage, support: PairScorer) -> tuple[float, Citation]:
    """Return the part of a passage that supports a statement best, and its score.

    It is one sentence, or two that follow one another if the second adds something.
    """
    spans = sentence_spans(passage.text) or [(0, len(passage.text))]
    spans += [(left[0], right[1]) for left, right in pairwise(spans)]
    scores = support([(claim, passage.text[start:end]) for start, end in spans])
    best = int(scores.argmax())  # the first of equals: one sentence before two
    start, end = spans[best]
    place = passage.start + start
    text = passage.text[start:end]
    return float(scores[best]), Citation(passage.id, place, place + len(text), text)


class CitationWriter:
    """Receives a text in pieces, and returns its sentences with verified citations.

    Args:
        passages: What the text is based on, numbered from 1.
        support: Scores statements and their evidence from 0 to 1.
        min_support: Lowest score of a statement that is supported.
        question: Stands for a statement without content words, such as "Yes."
        only_supported: Leave out sentences that no passage supports.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        support: PairScorer,
        *,
        min_support: float,
        question: str = "",
        only_supported: bool = True,
    ) -> None:
        self._passages, self._support = passages, support
        self._min_support, self._question = min_support, question
        self._only_supported = only_supported
        self._buffer, self._written = "", ""
        self.citations: list[Citation] = []
        """The verified citations; number n is `citations[n - 1]`."""
        self.dropped: list[str] = []
        """Sentences that were left out."""

    def write(self, piece: str) -> Iterator[str]:
        """Add a piece of the text, and yield the sentences that are complete."""
        self._buffer += piece
        while (end := self._sentence_end()) is not None:
            sentence, self._buffer = self._buffer[:end], self._buffer[end:]
            yield from self._cited(sentence)

    def finish(self) -> Iterator[str]:
        """Yield the rest of the text."""
        sentence, self._buffer = self._buffer, ""
        yield from self._cited(sentence)

    def _sentence_end(self) -> int | None:
        """Return where the first sentence ends, with the numbers after it; None if it may go on."""
        for end in sentence_ends(self._buffer):
            while marker := _MARKER.match(self._buffer, end):
                end = marker.end()
            if self._buffer[end:].strip() and not _OPEN_MARKER.match(self._buffer[end:]):
                return end
        return None

    def _cited(self, sentence: str) -> Iterator[str]:
        claim = without_markers(sentence)
        text = claim.strip()
        if not any(character.isalnum() for character in text):
            return
        found = self._verified(text, _named(sentence, len(self._passages)))
        if not found and self._only_supported:
            self.dropped.append(text)
            return
        numbers = sorted({self._number(citation) for citation in found})
        marks = "".join(f" [{number}]" for number in numbers)
        stop = _LAST_STOP.search(text)
        place = stop.start() if stop else len(text)
        space = claim[: len(claim) - len(claim.lstrip())] if self._written else ""
        piece = f"{space}{text[:place]}{marks}{text[place:]}"
        self._written += piece
        yield piece

    def _verified(self, claim: str, named: Sequence[int]) -> list[Citation]:
        """Return what supports a statement: of the named passages all that do, else the best."""
        claim = claim if self._support([(claim, claim)])[0] > 0 else self._question
        parts = [supporting_part(claim, passage, self._support) for passage in self._passages]
        kept = [parts[n - 1][1] for n in named if parts[n - 1][0] >= self._min_support]
        if kept or not parts:
            return kept
        score, best = max(parts, key=lambda part: part[0])
        if score < self._min_support:
            return []
        return [Citation(best.id, best.start, best.end, best.text, attached=True)]

    def _number(self, citation: Citation) -> int:
        if citation not in self.citations:
            self.citations.append(citation)
        return self.citations.index(citation) + 1


def _named(sentence: str, most: int) -> list[int]:
    """Return the numbers of passages that a sentence names and that exist.

    >>> _named("Red [2, 9] and round [1-2].", 3)
    [2, 1]
    """
    found: dict[int, None] = {}
    for marker in _MARKER.finditer(sentence):
        for first, last in _RANGE.findall(marker[1]):
            if len(first) <= 6 and len(last) <= 6:
                numbers = range(max(1, int(first)), min(most, int(last or first)) + 1)
                found |= dict.fromkeys(numbers)
    return list(found)
