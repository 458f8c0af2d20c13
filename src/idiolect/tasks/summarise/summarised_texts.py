"""Texts with reference summaries, from record files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idiolect.errors import InputError
from idiolect.text.records import numbered_records, unusable
from idiolect.text.skipped import MAX_UNREADABLE, Skipped, skip

__all__ = ["SummarisedText", "read_summarised_texts", "split_sentences"]


@dataclass(frozen=True, slots=True)
class SummarisedText:
    """A text and its reference summaries."""

    text: str
    summaries: tuple[str, ...] = ()
    """At least one if they are known."""


def read_summarised_texts(
    path: Path,
    *,
    text: str = "text",
    summary: str | None = "summary",
    skipped: Skipped | None = None,
    max_unreadable: float = MAX_UNREADABLE,
) -> list[SummarisedText]:
    """Read a file of records (JSON Lines, CSV, TSV, Parquet; also compressed).

    Args:
        path: The file.
        text: Field of the text, or of a list of its sentences.
        summary: Field of the summary, or of a list of several; `None` to read none.
        skipped: Counts the records that are left out, by reason, such as an empty reference.
        max_unreadable: The share of the rows that may be unreadable.

    Raises:
        InputError: The file cannot be read, or no record is complete.
    """
    left_out = Skipped() if skipped is None else skipped
    found: list[SummarisedText] = []
    for place, record in numbered_records(path, left_out, max_unreadable=max_unreadable):
        parts = _texts(record.get(text))
        summaries = [] if summary is None else _texts(record.get(summary))
        if not parts or any(unusable(part) == "bad UTF-8" for part in parts):
            skip(left_out, "no text", f"{path.name} {place}")
        elif summary is not None and not summaries:
            skip(left_out, "no reference, or an empty one", f"{path.name} {place}")
        else:
            found.append(SummarisedText(" ".join(parts), tuple(summaries)))
    if not found:
        fields = " and ".join(f"{name!r}" for name in (text, summary) if name is not None)
        raise InputError(
            f"{path} has no record with {fields}", hint="name the fields: --text, --summary"
        )
    return found


def split_sentences(text: str) -> list[str]:
    """Split a text after `.`, `!` and `?` before a space."""
    return [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]


def _texts(value: Any) -> Sequence[str]:
    """Return a text, or a list of texts, without the empty ones."""
    values = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return [" ".join(one.split()) for one in values if isinstance(one, str) and one.strip()]
