r"""Split long documents into chunks at natural boundaries, with exact offsets.

A document is split at its headings. A section that is too long is split at blank lines, then
between sentences, between words and, if necessary, inside a word. Adjacent parts are joined again
while they fit. Each chunk is a slice of its document, `document[start:end] == chunk.text`, without
surrounding white space. Every other character is in a chunk.

>>> [chunk.text for chunk in split_text("# Pumps\nOil it. Clean it.\n\n# Seals\nDry.", 6)]
['# Pumps\nOil it.', 'Clean it.', '# Seals\nDry.']

Small chunks are better for retrieval, and large ones give a reader more context: `widen` returns
the whole sentences around a chunk (small-to-large retrieval).
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import regex

from idiolect.text.arguments import check_whole, checked
from idiolect.text.headings import section_spans
from idiolect.text.sentences import sentence_ends

__all__ = ["Chunk", "TokenCounter", "count_words", "sentence_spans", "split_text", "widen"]

TokenCounter = Callable[[str], int]
"""Returns the length of a text, such as the number of a model's tokens."""

_Span = tuple[int, int]
_BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*")
_WORD = re.compile(r"\S+")
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
_UNIT = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]{{1,16}}|[^\w\s]")
_LINE_BREAK = re.compile(r"\n(?=[^\S\n]*[a-z(])|(?<=[^\n]{60})(?<![.!?:])\n(?=[^\S\n]*\w)")
"""A line break inside a sentence: before a lower-case letter, or after a long line of prose."""
_LONGEST_PIECE = 64
"""Maximum characters per token when a single word is longer than a chunk."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a document."""

    start: int
    """Offset of its first character in the document."""
    end: int
    """Offset after its last character."""
    text: str
    """`document[start:end]`."""
    heading: str = ""
    """The heading of its section, without markup."""


def count_words(text: str) -> int:
    """Count words and punctuation marks; a long word counts once per 16 characters.

    >>> count_words("Oil the pump, twice.")
    6
    """
    return sum(1 for _ in _UNIT.finditer(text))


@checked
def split_text(
    text: str, max_length: int = 128, *, overlap: int = 0, count: TokenCounter = count_words
) -> list[Chunk]:
    """Split a document into chunks of at most `max_length` tokens.

    Args:
        text: The document.
        max_length: Maximum tokens of a chunk. Only a single character can be longer.
        overlap: Maximum tokens that a chunk repeats from the previous one, in whole sentences of
            its section; less than `max_length`.
        count: Counts tokens; by default words.

    Raises:
        InputError: The length is below 1, or the overlap below 0.
    """
    check_whole(max_length, "max_length", 1)
    overlap = min(check_whole(overlap, "overlap", 0), max_length - 1)
    chunks = []
    for start, end, heading in section_spans(text):
        for left, right in _joined(text, start, end, max_length, overlap, count):
            chunks.append(Chunk(left, right, text[left:right], heading))
    return chunks


def sentence_spans(text: str, start: int = 0, end: int | None = None) -> list[_Span]:
    r"""Return the spans of the sentences in a part of a text, without surrounding white space.

    Hard line breaks inside a sentence do not end it.

    >>> sentence_spans("Oil the\npump. Twice!")
    [(0, 13), (14, 20)]
    """
    part = _LINE_BREAK.sub(" ", text[start:end])
    ends = [*sentence_ends(part), len(part)]
    spans = []
    for left, right in zip([0, *ends], ends, strict=False):
        spans += _trimmed(text, start + left, start + right)
    return spans


def widen(text: str, chunk: _Span, max_length: int, *, count: TokenCounter = count_words) -> _Span:
    """Return the span of a chunk, extended by as many whole sentences as fit.

    Sentences before and after are added alternately, within the section of the chunk.

    Args:
        text: The document.
        chunk: Start and end of the chunk.
        max_length: Maximum tokens of the result; a longer chunk is not changed.
        count: Counts tokens.
    """
    start, end = chunk
    low = max(0, start - _LONGEST_PIECE * max_length)
    near = text[low : end + _LONGEST_PIECE * max_length]
    sections = [(low + left, low + right) for left, right, _ in section_spans(near)]
    section = next(one for one in sections if start < one[1] or one == sections[-1])
    spans = sentence_spans(text, *section)
    first = bisect_right([left for left, _ in spans], start) - 1
    last = bisect_left([right for _, right in spans], end)
    room = max_length - count(text[start:end])
    open_before, open_after = first >= 0, last < len(spans)
    # First complete the sentences in which the chunk begins and ends.
    while open_before or open_after:
        if open_after:
            size = count(text[end : spans[last][1]])
            open_after = size <= room
            if open_after:
                end, room, last = spans[last][1], room - size, last + 1
                open_after = last < len(spans)
        if open_before:
            size = count(text[spans[first][0] : start])
            open_before = size <= room
            if open_before:
                start, room, first = spans[first][0], room - size, first - 1
                open_before = first >= 0
    return start, end


def _joined(
    text: str, start: int, end: int, most: int, overlap: int, count: TokenCounter
) -> Iterator[_Span]:
    """Yield the chunks of a section: its parts, joined while they fit."""
    spans: list[_Span] = []
    for span in _parts(text, start, end, most, count):
        if spans and count(text[spans[0][0] : span[1]]) > most:
            yield spans[0][0], spans[-1][1]
            spans = _repeated(text, spans, span, most, overlap, count)
        spans.append(span)
    if spans:
        yield spans[0][0], spans[-1][1]


def _repeated(
    text: str, spans: list[_Span], span: _Span, most: int, overlap: int, count: TokenCounter
) -> list[_Span]:
    """Return the last parts of a chunk that the next one repeats."""
    kept: list[_Span] = []
    for one in reversed(spans[1:]) if overlap else ():
        if count(text[one[0] : spans[-1][1]]) > overlap or count(text[one[0] : span[1]]) > most:
            break
        kept.insert(0, one)
    return kept


def _parts(text: str, start: int, end: int, most: int, count: TokenCounter) -> Iterator[_Span]:
    """Yield parts of a section that fit: paragraphs, else sentences, else words or less."""
    for paragraph in _between(_BLANK_LINES, text, start, end):
        if count(text[slice(*paragraph)]) <= most:
            yield paragraph
            continue
        for sentence in sentence_spans(text, *paragraph):
            if count(text[slice(*sentence)]) <= most:
                yield sentence
                continue
            for word in _WORD.finditer(text, *sentence):
                yield from _pieces(text, word.start(), word.end(), most, count)


def _pieces(text: str, start: int, end: int, most: int, count: TokenCounter) -> Iterator[_Span]:
    """Yield parts of one word that fit, without separating a character from its accents."""
    while start < end:
        stop = min(end, start + most * _LONGEST_PIECE)
        while stop - start > 1 and count(text[start:stop]) > most:
            stop = start + max(1, (stop - start) * 3 // 4)
        if stop < end:
            near = regex.finditer(r"\X", text, pos=max(start, stop - 64), endpos=min(end, stop + 8))
            stop = max((one.end() for one in near if one.end() <= stop), default=stop)
        yield start, stop
        start = stop


def _between(pattern: re.Pattern[str], text: str, start: int, end: int) -> Iterator[_Span]:
    """Yield the spans between the matches of a pattern, without surrounding white space."""
    for match in pattern.finditer(text, start, end):
        yield from _trimmed(text, start, match.start())
        start = match.end()
    yield from _trimmed(text, start, end)


def _trimmed(text: str, start: int, end: int) -> list[_Span]:
    """Return a span without surrounding white space, as a list; empty if nothing is left."""
    part = text[start:end]
    stripped = part.strip()
    if not stripped:
        return []
    left = start + len(part) - len(part.lstrip())
    return [(left, left + len(stripped))]
