"""Schemes that encode spans as one tag for each word, and conversion between them.

words    Ada Lovelace met Babbage Charles .
IOB1     I-P I-P      O   I-P     B-P     O    B- only between adjacent spans of a label
IOB2     B-P I-P      O   B-P     B-P     O    B- begins every span
BIOES    B-P E-P      O   S-P     S-P     O    E- ends a span, S- is a span of one word
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from idiolect.errors import ConfigError, InputError

__all__ = [
    "TagScheme",
    "WordSpan",
    "check_scheme",
    "follows",
    "invalid_transitions",
    "is_tag",
    "read_tags",
    "strict_spans",
    "tag_names",
    "write_tags",
]

TagScheme = Literal["iob1", "iob2", "bioes"]
"""How spans are encoded as tags."""

WordSpan = tuple[int, int, str]
"""First word, the word after the last, and label."""

_INSIDE = {"iob1": "BI", "iob2": "BI", "bioes": "BIES"}


def check_scheme(name: str) -> None:
    """Check the name of a scheme.

    Raises:
        ConfigError: It is unknown.
    """
    if name not in get_args(TagScheme):
        raise ConfigError(f"unknown scheme {name!r}", hint="one of " + ", ".join(_INSIDE))


def is_tag(tag: str) -> bool:
    """Return whether a text is `O`, or one of B-, I-, E-, S- followed by a label."""
    return tag == "O" or (tag[:1] in set("BIES") and tag[1:2] == "-" and len(tag) > 2)


def read_tags(tags: Sequence[str]) -> list[WordSpan]:
    """Return the spans of tags in any of the schemes, as conlleval reads them.

    A span begins with B- or S-, or with a tag that does not continue a span of its label. For valid
    tags of any scheme, this returns exactly their spans.

    >>> read_tags(["I-P", "I-P", "O", "I-P", "B-P"])
    [(0, 2, 'P'), (3, 4, 'P'), (4, 5, 'P')]

    Raises:
        InputError: A tag is malformed.
    """
    found: list[WordSpan] = []
    is_open = False
    for number, tag in enumerate(tags):
        if not is_tag(tag):
            raise InputError(f"{tag!r} is no tag", hint="O, or B-, I-, E- or S- and a label")
        kind, label = tag[0], tag[2:]
        if kind == "O":
            is_open = False
            continue
        if is_open and kind in "IE" and found[-1][2] == label:
            found[-1] = (found[-1][0], number + 1, label)
        else:
            found.append((number, number + 1, label))
        is_open = kind in "BI"
    return found


def strict_spans(tags: Sequence[str], scheme: TagScheme) -> list[WordSpan]:
    """Return the spans that follow the scheme exactly, as in seqeval's strict mode.

    >>> strict_spans(["O", "I-P", "B-P"], "iob2")
    [(2, 3, 'P')]

    Args:
        tags: A tag for each word.
        scheme: `iob2` or `bioes`. In IOB1, every sequence is read as `read_tags` does.
    """
    if scheme == "iob1":
        return read_tags(tags)
    found: list[WordSpan] = []
    start = 0
    while start < len(tags):
        kind, label = tags[start][0], tags[start][2:]
        if kind == "S":
            found.append((start, start + 1, label))
        elif kind == "B":
            end = start + 1
            while end < len(tags) and tags[end] == f"I-{label}":
                end += 1
            if scheme == "iob2":
                found.append((start, end, label))
            elif end < len(tags) and tags[end] == f"E-{label}":
                found.append((start, end + 1, label))
        start += 1
    return found


def write_tags(spans: Iterable[WordSpan], count: int, scheme: TagScheme) -> list[str]:
    """Return the tags of spans.

    Args:
        spans: Spans that do not overlap.
        count: Number of words.
        scheme: How the spans are encoded.

    Raises:
        InputError: Two spans overlap, or one is outside the words.
    """
    tags = ["O"] * count
    last: WordSpan = (0, 0, "")
    for start, end, label in sorted(spans):
        if not 0 <= start < end <= count or start < last[1]:
            raise InputError(
                f"span {start}-{end} ({label}) overlaps {last[0]}-{last[1]} ({last[2]}), or is not"
                f" within {count} words",
                hint="a word can have one tag only: keep one of the spans",
            )
        tags[start:end] = [f"I-{label}"] * (end - start)
        if scheme != "iob1" or (start == last[1] and label == last[2] and start):
            tags[start] = f"B-{label}"
        if scheme == "bioes":
            tags[end - 1] = f"S-{label}" if end - start == 1 else f"E-{label}"
        last = (start, end, label)
    return tags


def tag_names(labels: Iterable[str], scheme: TagScheme) -> tuple[str, ...]:
    """Return all tags of a scheme, `O` first."""
    kinds = _INSIDE[scheme]
    return ("O", *(f"{kind}-{label}" for label in labels for kind in kinds))


def follows(first: str | None, second: str | None, scheme: TagScheme) -> bool:
    """Return whether a tag may follow another one.

    Args:
        first: The first tag, or `None` for the beginning of the text.
        second: The second, or `None` for the end of the text.
        scheme: How the spans are encoded.
    """
    before, after = first or "O", second or "O"
    same = before[2:] == after[2:]
    if scheme == "iob1":
        # B- only follows a span of its label.
        return after[0] != "B" or (before != "O" and same)
    if scheme == "iob2":
        return after[0] != "I" or (before != "O" and same)
    if before[0] in "BI":
        return after[0] in "IE" and same
    return after[0] not in "IE"


def invalid_transitions(tags: Sequence[str], scheme: TagScheme) -> int:
    """Count the places where a tag may not follow the one before, beginning and end included."""
    framed = [None, *tags, None]
    return sum(not follows(a, b, scheme) for a, b in itertools.pairwise(framed))
