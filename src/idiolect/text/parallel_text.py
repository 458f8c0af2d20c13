"""Read parallel text: two files in which lines with the same number are translations."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from idiolect.errors import InputError
from idiolect.text.record_types.text_lines import read_all_lines
from idiolect.text.skipped import MAX_UNREADABLE, Skipped, skip, summary

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TextPair", "read_parallel"]

_LONGEST = 1 << 20
"""Maximum length of a line, in bytes."""


@dataclass(frozen=True, slots=True)
class TextPair:
    """A text and its translation."""

    source: str
    target: str


def read_parallel(
    source: str | Path,
    target: str | Path,
    *,
    max_unreadable: float = MAX_UNREADABLE,
    skipped: Skipped | None = None,
) -> list[TextPair]:
    """Read the pairs of two files with one sentence per line, which may be compressed.

    Args:
        source: The file of source sentences.
        target: The file of their translations.
        max_unreadable: Maximum share of pairs with an empty side; such pairs are skipped.
        skipped: Counts the skipped pairs and records their locations.

    Raises:
        InputError: A file cannot be read, they have different numbers of lines, too many lines are
            empty, or no pair is left.
    """
    source, target = Path(source), Path(target)
    empty = Skipped()
    pairs = []
    count = 0
    for count, (one, other) in enumerate(zip_longest(_lines(source), _lines(target)), 1):
        if one is None or other is None:
            shorter, longer = (source, target) if one is None else (target, source)
            total = sum(1 for _ in _lines(longer))
            raise InputError(
                f"{shorter} has {count - 1:,} lines and {longer} has {total:,}",
                hint="line by line they must be translations of one another",
            )
        if one and other:
            pairs.append(TextPair(one, other))
            continue
        name = source.name if not one else target.name
        skip(empty, "with an empty side", f"{name} line {count:,}")
    if skipped is not None:
        skipped.update(empty)
    if empty.total() > max_unreadable * count:
        raise InputError(
            f"{empty.total():,} of {count:,} pairs have an empty side: {summary(empty)}",
            hint="check that the files belong together, or allow a larger share: --max-unreadable",
        )
    if not pairs:
        raise InputError(f"{source} and {target} hold no pairs", hint="one sentence a line")
    return pairs


def _lines(path: Path) -> Iterator[str]:
    return (line.strip() for line in read_all_lines(path, _LONGEST))
