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
"""Maximum number of words in a title, in a marked-up heading and in a plain one."""
_WRAPPED = range(60, 101)
"""Lengths, in characters, of a first line that may be hard-wrapped prose."""


@dataclass(frozen=True)
class Section:
    """A heading and the text under it, up to the next heading of any level."""

    heading: str
    """Without its markup."""
    body: str
    """Without surrounding blank lines; not empty."""


def split_title(text: str) -> tuple[str, str] | None:
    """Split a text into its title and the rest.

    The title is the first line, as in a document made by `join_fields`, without heading markup.

    Returns:
        Title and rest; None if there is only one line, if the first line has more than 40 words, or
        if it is a line of hard-wrapped prose.
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

    Headings are those of Markdown (`## Care`, or underlined) and reStructuredText (underlined). In
    a text without any, a heading is a short line that follows a blank line, begins with a capital
    or a number, and does not end like a sentence. Text before the first heading, and headings
    without text, are left out. Markup inside a fenced code block is ignored.
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
    r"""Return the start, end and heading of each section of a text; a section includes its heading.

    The sections cover the whole text. Only marked-up headings count; text before the first one has
    an empty heading.

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
    """Yield each marked-up heading: number of its first line, text, number of the line after it."""
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
    """Yield the headings of a text without markup, in the form of `_marked`."""
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
    """Return whether two lines are one sentence that was hard-wrapped."""
    return (
        len(first) in _WRAPPED
        and first[-1] not in ".!?:"
        and second[:1].islower()
        and len(second) <= _WRAPPED[-1]
    )
