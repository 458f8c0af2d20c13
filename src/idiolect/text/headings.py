r"""Titles and section headings of texts: Markdown, reStructuredText and plain text.

>>> split_title("Pumps\nThey move water.")
('Pumps', 'They move water.')
>>> [section.heading for section in split_sections("# Pumps\n\nSee below.\n\n## Care\nOil them.")]
['Pumps', 'Care']
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

__all__ = ["Section", "section_spans", "split_sections", "split_title"]

_FENCE = re.compile(r" {0,3}(```|~~~)")
_ATX = re.compile(r" {0,3}#{1,6}[ \t]+(.*?)[ \t]*#*[ \t]*")
_RULE = re.compile(r"""([=\-~^"'`#*+.:_])\1{2,}""")
_PLAIN = re.compile(r"(?:\d+(?:\.\d+)*\.?[ \t]+)?[^\W\d_].*[^.,;?!]", re.DOTALL)
_TITLE_WORDS, _HEADING_WORDS, _PLAIN_WORDS = 40, 15, 8
"""Words of a title, of a marked heading and of an unmarked one, at most."""
_WRAPPED = range(60, 101)
"""Characters of a line of prose that was wrapped by hand."""


@dataclass(frozen=True)
class Section:
    """A heading and the text under it, up to the next heading of any level."""

    heading: str
    """Without its marks."""
    body: str
    """Without surrounding blank lines; not empty."""


def split_title(text: str) -> tuple[str, str] | None:
    """Split a text into its title and the rest.

    The title is the first line, as in a document whose fields were joined (`join_fields`), without
    the marks of a heading.

    Returns:
        Title and rest; None if there is only one line, if the first line has more than 40 words, or
        if it is a line of wrapped prose.
    """
    lines = text.strip().splitlines()
    if len(lines) > 2 and _is_rule(lines[0]) and lines[2].strip() == lines[0].strip():
        del lines[0]  # a line above the title, as the one below it
    if len(lines) < 2:
        return None
    heading = _ATX.fullmatch(lines[0])
    title = (heading[1] if heading else lines[0]).strip()
    start = 2 if _is_rule(lines[1]) else 1
    rest = "\n".join(lines[start:]).strip()
    if not title or not rest or len(title.split()) > _TITLE_WORDS or _is_wrapped(*lines[:2]):
        return None
    return title, rest


def split_sections(text: str) -> list[Section]:
    """Split a text at its headings.

    Headings in Markdown (`## Care`, or underlined) and reStructuredText (underlined) count first.
    In a text without any, short lines after a blank line that begin with a capital or a number and
    do not end like a sentence are headings. Text before the first heading, and headings without
    text, are left out. Marks inside a fenced block of code are no headings.
    """
    lines = text.splitlines()
    found = list(_marked(lines)) or list(_plain(lines))
    ends = [start for start, _, _ in [*found, (len(lines), "", 0)]][1:]
    sections = (
        Section(heading, "\n".join(lines[begin:end]).strip())
        for (_, heading, begin), end in zip(found, ends, strict=True)
    )
    return [section for section in sections if section.heading and section.body]


def section_spans(text: str) -> list[tuple[int, int, str]]:
    r"""Return where the sections of a text are, heading included: start, end and heading of each.

    They cover the whole text. Only marked headings count; text before the first has none.

    >>> section_spans("Intro.\n## Care\nOil them.")
    [(0, 7, ''), (7, 24, 'Care')]
    """
    lines = text.splitlines(keepends=True)
    starts = [0, *accumulate(map(len, lines))]
    found = [
        (starts[line], heading) for line, heading, _ in _marked([one.rstrip() for one in lines])
    ]
    if not found or found[0][0] > 0:
        found.insert(0, (0, ""))
    ends = [start for start, _ in found[1:]] + [len(text)]
    return [(start, end, name) for (start, name), end in zip(found, ends, strict=True)]


def _marked(lines: list[str]) -> Iterator[tuple[int, str, int]]:
    """Yield each marked heading: its first line, its text, and the first line after it."""
    fence = ""
    for i, line in enumerate(lines):
        if opened := _FENCE.match(line):
            fence = "" if fence == opened[1] else fence or opened[1]
        elif fence or not line.strip():
            continue
        elif heading := _ATX.fullmatch(line):
            if len(heading[1].split()) <= _HEADING_WORDS:
                yield i, heading[1], i + 1
        elif i + 1 < len(lines) and _is_rule(lines[i + 1]) and not _is_rule(line):
            above = i > 0 and lines[i - 1].strip() == lines[i + 1].strip()
            alone = i == 0 or above or not lines[i - 1].strip()
            if alone and line[0] != " " and len(line.split()) <= _HEADING_WORDS:
                yield i - above, line.strip(), i + 2


def _plain(lines: list[str]) -> Iterator[tuple[int, str, int]]:
    """Yield the headings of a text without marks, as `_marked` does."""
    for i, (before, line) in enumerate(pairwise(["", *lines])):
        heading = line.strip().removesuffix(":")
        if (
            not before.strip()
            and line[:1].strip()
            and len(heading.split()) <= _PLAIN_WORDS
            and _PLAIN.fullmatch(heading)
            and not heading[0].islower()
        ):
            yield i, heading, i + 1


def _is_rule(line: str) -> bool:
    return _RULE.fullmatch(line.strip()) is not None


def _is_wrapped(first: str, second: str) -> bool:
    """Return whether two lines are one sentence, broken at the width of a page."""
    return (
        len(first) in _WRAPPED
        and first[-1] not in ".!?:"
        and second[:1].islower()
        and len(second) <= _WRAPPED[-1]
    )
