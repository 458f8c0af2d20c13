"""Labelled texts or pairs of texts, from record files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from idiolect.errors import InputError
from idiolect.text.records import numbered_records, unusable
from idiolect.text.skipped import MAX_UNREADABLE, Skipped, skip

__all__ = ["LabelledText", "fingerprint_texts", "labels_of", "read_labelled_texts"]


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text, or a pair of texts, and its label."""

    text: str
    label: str | None = None
    """Its class; `None` if it is not known."""
    text_pair: str | None = None
    """The second text of a pair."""
    labels: tuple[str, ...] | None = None
    """All its classes, if it may have several."""


def read_labelled_texts(
    path: Path,
    *,
    text: str = "text",
    label: str | None = "label",
    text_pair: str | None = None,
    multi_label: bool = False,
    skipped: Skipped | None = None,
    max_unreadable: float = MAX_UNREADABLE,
) -> list[LabelledText]:
    """Read a file with records (CSV, TSV, JSON Lines, Parquet; also compressed).

    Args:
        path: The file.
        text: Field of the text.
        label: Field of the label, a text or an integer; `None` to read none.
        text_pair: Field of the second text of a pair.
        multi_label: Read several labels for a text: a list, or labels separated by `;`. There may
            be none.
        skipped: Counts the records that are left out, by reason.
        max_unreadable: The share of the rows that may be unreadable.

    Raises:
        InputError: The file cannot be read, or no record is complete.
    """
    left_out = Skipped() if skipped is None else skipped
    found: list[LabelledText] = []
    for place, record in numbered_records(path, left_out, max_unreadable=max_unreadable):
        texts = [record.get(field) for field in (text, text_pair) if field is not None]
        value = None if label is None else record.get(label)
        names = _labels(value) if multi_label else None
        name = None if multi_label else _label(value)
        if not all(isinstance(one, str) and unusable(one) is None for one in texts):
            skip(left_out, "no text", f"{path.name} {place}")
        elif label is not None and name is None and names is None:
            skip(left_out, "no label", f"{path.name} {place}")
        else:
            pair = texts[1] if text_pair else None
            found.append(LabelledText(str(texts[0]), name, pair, names))
    if not found:
        fields = " and ".join(f"{f!r}" for f in (text, text_pair, label) if f is not None)
        raise InputError(
            f"{path} has no record with {fields}", hint="name the fields of text and label"
        )
    return found


def labels_of(examples: Sequence[LabelledText]) -> tuple[str, ...]:
    """Return the labels in alphabetical order.

    Raises:
        InputError: An example has no label, or there are fewer than two labels.
    """
    labels = {one for e in examples for one in ((e.label,) if e.labels is None else e.labels)}
    if None in labels or len(labels) < 2:
        raise InputError(
            f"the examples have {len(labels - {None})} label(s), or some have none",
            hint="a classifier needs examples of at least two labels",
        )
    return tuple(sorted(str(label) for label in labels))


def fingerprint_texts(examples: Sequence[LabelledText]) -> str:
    """Return a hash of the examples in their order."""
    made = sha256()
    for example in examples:
        own = example.label if example.labels is None else example.labels
        made.update(repr((example.text, example.text_pair, own)).encode())
    return made.hexdigest()


def _label(value: Any) -> str | None:
    if isinstance(value, bool | int):
        return str(value)
    return value.strip() or None if isinstance(value, str) else None


def _labels(value: Any) -> tuple[str, ...] | None:
    values = value.split(";") if isinstance(value, str) else value
    if isinstance(values, bool | int):
        values = [values]
    if not isinstance(values, list):
        return None
    found = [_label(one) for one in values if one != ""]
    return None if None in found else tuple(dict.fromkeys(str(one) for one in found))
