"""Verify the citations of a text while it is generated.

A model cites the passages that a sentence is based on by their numbers, such as `[2]`. Small models
rarely do this, and any model may cite a passage that says something else. So each sentence is
compared with the passages. A marker of the model is kept only if that passage supports the
sentence; without such a marker, the passage that supports the sentence best is cited. Citations are
renumbered in the order of their first use. All other numbers in square brackets are removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from idiolect.search.answers.answer import Citation, Passage
from idiolect.search.answers.answer_prompt import says_unknown
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
    """Return the score and the part of a passage that supports a statement best.

    The part is one sentence, or two consecutive ones if they score higher together.
    """
    spans = sentence_spans(passage.text) or [(0, len(passage.text))]
    spans += [(left[0], right[1]) for left, right in pairwise(spans)]
    scores = support([(claim, passage.text[start:end]) for start, end in spans])
    best = int(scores.argmax())  # of equal scores the first: single sentences come first
    start, end = spans[best]
    place = passage.start + start
    text = passage.text[start:end]
    return float(scores[best]), Citation(passage.id, place, place + len(text), text)


class CitationWriter:
    """Receives a text in pieces, and returns its sentences with verified citations.

    Args:
        passages: The passages of the prompt, numbered from 1.
        support: Scores pairs of statement and evidence from 0 to 1.
        min_support: Minimum score of a supported statement.
        question: Replaces a statement without content words, such as "Yes.", when it is verified.
        only_supported: Remove sentences that no passage supports.
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
        """The verified citations; the marker `[n]` refers to `citations[n - 1]`."""
        self.dropped: list[str] = []
        """Sentences that were removed: not supported, or saying that the model does not know."""

    def write(self, piece: str) -> Iterator[str]:
        """Add a piece of the text, and yield the sentences that are complete."""
        for character in piece:  # so that the result does not depend on the pieces
            self._buffer += character
            if (end := self._sentence_end()) is not None:
                sentence, self._buffer = self._buffer[:end], self._buffer[end:]
                yield from self._cited(sentence)

    def finish(self) -> Iterator[str]:
        """Yield the rest of the text."""
        sentence, self._buffer = self._buffer, ""
        yield from self._cited(sentence)

    def _sentence_end(self) -> int | None:
        """Return the end of the first sentence and its markers; None if it may be incomplete."""
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
        if says_unknown(text):  # whatever the passages say: it is no statement about them
            self.dropped.append(text)
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
        """Return the cited passages that support a statement, or else the best one that does."""
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
    """Return the valid passage numbers that a sentence cites.

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
