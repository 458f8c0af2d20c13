"""Word test sets, read from their published formats.

| kind | a row |
|---|---|
| relatedness | two words and a person's score, separated by tabs, spaces or commas |
| analogy | four words; lines that begin with `:` name sections |
| categorisation | CSV with columns `category` and `word` |
| preference | a relatedness file whose name begins with a relation, as in SP-10K |
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

from idiolect.errors import InputError

__all__ = ["WordTestSet", "read_test_set"]


_RELATIONS = ("amod", "dobj", "nsubj")


@dataclass(frozen=True)
class WordTestSet:
    """The questions of a test set, optionally in lower case."""

    name: str
    kind: str
    pairs: tuple[tuple[str, str, float], ...] = ()
    """Relatedness and preference: two words and a score."""
    sections: tuple[tuple[str, tuple[tuple[str, str, str, str], ...]], ...] = ()
    """Analogy: a section's name and its questions."""
    categories: tuple[tuple[str, str], ...] = ()
    """Categorisation: a word and its category."""


def read_test_set(path: str | Path, *, lowercase: bool = True) -> WordTestSet:
    """Read a test set; its kind is detected from its rows.

    Raises:
        InputError: The file is missing or empty, or a row has too few or too many columns.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot read {path}: {reason}", hint="check the file") from error
    text = text.lower() if lowercase else text
    rows = _rows(text, path)
    if not rows:
        raise _without_questions(path)
    name = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    header = rows[0][1]
    if "category" in header and "word" in header:
        return WordTestSet(name, "categorisation", categories=_categories(rows, path))
    if any(row[0].startswith(":") for _, row in rows) or (
        len(header) == 4 and not _columns(header)
    ):
        return WordTestSet(name, "analogy", sections=_sections(rows, path))
    kind = "preference" if name.startswith(_RELATIONS) else "relatedness"
    return WordTestSet(name, kind, pairs=_pairs(rows, path))


def _without_questions(path: Path) -> InputError:
    return InputError(f"{path} has no questions", hint="check the file")


def _rows(text: str, path: Path) -> list[tuple[int, list[str]]]:
    """Return the line number and the columns of each non-empty line."""
    lines = text.splitlines()
    is_csv = bool(lines) and "," in lines[0]
    if is_csv:
        try:
            cells = list(csv.reader(io.StringIO(text)))
        except csv.Error as error:
            raise InputError(f"{path} is no CSV: {error}", hint="check the file") from error
        return [(n, row) for n, row in enumerate(cells, 1) if any(row)]
    return [
        (n, line.split("\t") if "\t" in line else line.split())
        for n, line in enumerate(lines, 1)
        if line.strip() and not line.startswith("#")
    ]


def _columns(header: list[str]) -> list[int]:
    """Return the columns of the two words and their score in a header; empty if there is none."""
    for names in (("word1", "word2", "similarity"), ("word 1", "word 2", "human (mean)")):
        if all(name in header for name in names):
            return [header.index(name) for name in names]
    return []


def _pairs(rows: list[tuple[int, list[str]]], path: Path) -> tuple[tuple[str, str, float], ...]:
    columns = _columns(rows[0][1])
    found = []
    for number, row in rows[1:] if columns else rows:
        try:
            first, second, score = (row[i] for i in columns or (0, 1, 2))
            value = float(score)
        except (ValueError, IndexError) as error:
            raise InputError(
                f"line {number:,} of {path} is not two words and a score: {' '.join(row)[:60]!r}",
                hint="write: word word number",
            ) from error
        if not math.isfinite(value):
            raise InputError(f"line {number:,} of {path}: the score is {value}", hint="remove it")
        # MEN appends the part of speech: sun-n.
        words = [
            word[:-2] if word[-2:] in ("-n", "-v", "-j") else word
            for word in (first.strip(), second.strip())
        ]
        found.append((words[0], words[1], value))
    if not found:
        raise _without_questions(path)
    return tuple(found)


def _sections(
    rows: list[tuple[int, list[str]]], path: Path
) -> tuple[tuple[str, tuple[tuple[str, str, str, str], ...]], ...]:
    sections: dict[str, list[tuple[str, str, str, str]]] = {}
    section = "all"
    for number, row in rows:
        if row[0].startswith(":"):
            section = " ".join(row).lstrip(": ")
            continue
        if len(row) != 4:
            raise InputError(
                f"line {number:,} of {path} has {len(row)} words, but an analogy needs four",
                hint="write: Athens Greece Baghdad Iraq",
            )
        sections.setdefault(section, []).append((row[0], row[1], row[2], row[3]))
    if not sections:
        raise _without_questions(path)
    return tuple((name, tuple(questions)) for name, questions in sections.items())


def _categories(rows: list[tuple[int, list[str]]], path: Path) -> tuple[tuple[str, str], ...]:
    word, category = rows[0][1].index("word"), rows[0][1].index("category")
    found = []
    for number, row in rows[1:]:
        if len(row) <= max(word, category):
            raise InputError(f"line {number:,} of {path} has {len(row)} columns", hint="remove it")
        found.append((row[word], row[category]))
    if not found:
        raise _without_questions(path)
    return tuple(found)
