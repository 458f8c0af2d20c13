"""Read the records or documents of one file in bounded memory.

All record files are read here: JSON Lines and JSON (`.jsonl`, `.json`), delimited files (`.csv`,
`.tsv`), Parquet (`.parquet`) and plain text (`.txt`), each also compressed (`.gz`, `.bz2`, `.xz`,
`.zst`); suffixes are not case-sensitive. The modules of `idiolect.text.record_types` describe what
each format may contain.

A row that cannot be read is skipped, counted by reason, and reported by its line number. If the
share of such rows exceeds `max_unreadable`, an error is raised. Reasons are `bad UTF-8`, `malformed
JSON`, `repeated JSON key`, `not an object`, `malformed CSV` and `oversized`. A document can also be
`empty`, or have `no field` with text; these do not count as unreadable.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from idiolect.errors import InputError
from idiolect.text.fields import (
    TEXT,
    TITLE,
    find_fields,
    id_text,
    join_fields,
    shown_names,
    text_fields,
)
from idiolect.text.record_types.compressed_file import COMPRESSIONS, file_type
from idiolect.text.record_types.delimited import read_table
from idiolect.text.record_types.json_records import (
    has_a_value_on_each_line,
    has_surrogates,
    read_json,
)
from idiolect.text.record_types.parquet_records import parquet_columns, read_parquet
from idiolect.text.record_types.text_lines import is_cut_at_line_feeds, read_lines, read_whole
from idiolect.text.skipped import MAX_UNREADABLE, Fault, Skipped, readable_rows, skip

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "DEFAULT_LIMIT",
    "KNOWN_TYPES",
    "IdReader",
    "choose_fields",
    "file_type",
    "has_fields",
    "has_independent_rows",
    "has_text_cells",
    "is_readable",
    "numbered_records",
    "read_all_records",
    "read_documents",
    "read_records",
    "unusable",
]

DEFAULT_LIMIT = 16 << 20
"""Default maximum size of a document, in bytes."""
_DECIMAL_ID = re.compile(r"-?[0-9]+\.0")
_JSON = (".jsonl", ".ndjson", ".json")
_TABLES = (".csv", ".tsv")
_RECORDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
KNOWN_TYPES = f"{' '.join(_RECORDS)}, each also with {' '.join(COMPRESSIONS)}"
"""The supported file types, for messages."""


def is_readable(path: Path) -> bool:
    """Return whether the file's name has a known type."""
    return has_fields(path) or file_type(path) == ".txt"


def has_fields(path: Path) -> bool:
    """Return whether the file's type has records with named fields."""
    return file_type(path) in (*_JSON, *_RECORDS)


def has_text_cells(path: Path) -> bool:
    """Return whether the file's type stores all values as text, including numbers."""
    return file_type(path) in _TABLES


class IdReader:
    """Reads the ids of one file as text, in the same form for all file types.

    If all ids of a text column look like `7.0`, the decimal place is dropped: pandas writes a
    column of integers with missing values in this way.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decimal: dict[str, bool] = {}

    def __call__(self, record: Mapping[str, Any], field: str) -> str | None:
        """Return the id in a field of a record; None if it has none."""
        id = id_text(record.get(field))
        if id is None or not has_text_cells(self._path) or not _DECIMAL_ID.fullmatch(id):
            return id
        if field not in self._decimal:
            self._decimal[field] = all(
                _DECIMAL_ID.fullmatch(id_text(one.get(field)) or "0.0")
                for one in read_records(self._path, Skipped(), max_unreadable=1)
            )
        return id.removesuffix(".0") if self._decimal[field] else id


def unusable(text: str) -> str | None:
    """Return why a text cannot be a document: `empty`, `bad UTF-8`, or None if it can.

    A JSON escape may be a lone surrogate, which UTF-8 cannot encode.
    """
    if not text.strip():
        return "empty"
    return "bad UTF-8" if has_surrogates(text) else None


def read_documents(
    path: Path,
    fields: Sequence[str],
    per: str,
    limit: int,
    skipped: Counter[str],
    max_unreadable: float = MAX_UNREADABLE,
    *,
    chosen: bool = False,
) -> Iterator[str]:
    """Stream the documents of one file.

    Args:
        path: the file; its suffix determines the format.
        fields: the fields to join by a line break; empty for the usual ones.
        per: `line` or `file`: for plain text, what a document is.
        limit: maximum size of a document in bytes.
        skipped: counts the skipped records by reason.
        max_unreadable: maximum share of unreadable rows.
        chosen: whether `choose_fields` returned the fields; by default, empty fields are chosen
            from the first record.

    Raises:
        InputError: the file's type is unknown, the file or too many of its rows cannot be read, or
            no field can be chosen.
    """
    if not is_readable(path):
        raise InputError(
            f"{path.name} is of a type that cannot be read", hint=f"known: .txt {KNOWN_TYPES}"
        )
    rows: Iterator[tuple[int, Any]]
    if has_fields(path):
        unit, rows = _rows(path, limit, _parquet_fields(path, fields))
    elif per == "file":
        unit, rows = "file", iter([(1, read_whole(path, limit))])
    else:
        unit, rows = "line", _plain_lines(path, limit)
    readable = readable_rows(rows, path, unit, skipped, max_unreadable, (str, dict))
    for number, text in _texts(readable, path, fields, chosen=chosen or bool(fields)):
        reason = "no field" if text is None else unusable(text)
        if text is not None and len(text) > limit:
            reason = "oversized"
        if text is None or reason is not None:
            skip(skipped, str(reason), f"{path.name} {unit} {number:,}")
        else:
            yield text


def read_records(
    path: Path,
    skipped: Counter[str],
    *,
    limit: int = DEFAULT_LIMIT,
    max_unreadable: float = MAX_UNREADABLE,
) -> Iterator[dict[str, Any]]:
    """Stream the records of one file that has fields.

    Args:
        path: the file; its suffix determines the format.
        skipped: counts the skipped records by reason; a `Skipped` also keeps their locations.
        limit: maximum size of a record in bytes.
        max_unreadable: maximum share of unreadable rows.

    Raises:
        InputError: the file is missing, of another type, or damaged as a whole; or, once all of it
            has been read, too many rows were unreadable.
    """
    for _, record in _objects(path, skipped, limit, max_unreadable)[1]:
        yield record


def numbered_records(
    path: Path,
    skipped: Counter[str],
    *,
    limit: int = DEFAULT_LIMIT,
    max_unreadable: float = MAX_UNREADABLE,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Stream records as `read_records` does, each with its location: `line 7` or `row 7`."""
    unit, records = _objects(path, skipped, limit, max_unreadable)
    for number, record in records:
        yield f"{unit} {number:,}", record


def read_all_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Stream the records of a file in which every record must be readable.

    Yields:
        The record's file and line, for messages, and the record.

    Raises:
        InputError: as in `read_records`; or, once the whole file has been read, some records cannot
            be read.
    """
    for place, record in numbered_records(path, Skipped(), max_unreadable=0):
        yield f"{path}, {place}", record


def _objects(
    path: Path, skipped: Counter[str], limit: int, max_unreadable: float
) -> tuple[str, Iterator[tuple[int, dict[str, Any]]]]:
    """Return the unit of a file's rows (`line` or `row`), and the rows that are records."""
    if not has_fields(path):
        raise InputError(
            f"{path.name} is of a type that has no fields", hint=f"known: {KNOWN_TYPES}"
        )
    unit, rows = _rows(path, limit)
    return unit, readable_rows(rows, path, unit, skipped, max_unreadable, (dict,))


def _rows(
    path: Path, limit: int, columns: Sequence[str] = ()
) -> tuple[str, Iterator[tuple[int, Any]]]:
    """Return the unit of a file's rows (`line` or `row`), and the rows with their numbers."""
    type_ = file_type(path)
    if type_ in _TABLES:
        return "line", read_table(path, limit)
    if type_ in _JSON:
        return "line", read_json(path, limit)
    return "row", read_parquet(path, limit, columns)


def _plain_lines(path: Path, limit: int) -> Iterator[tuple[int, str | Fault]]:
    """Yield lines without line ends, and without byte order marks left by concatenating files."""
    for number, line in read_lines(path, limit):
        yield number, line if isinstance(line, Fault) else line.rstrip("\r\n").lstrip("\ufeff")


def has_independent_rows(path: Path) -> bool:
    """Return whether rows of a text, JSON or Parquet file can be read without those before them.

    Raises:
        InputError: the file cannot be read.
    """
    if file_type(path) == ".parquet":
        return True
    if not is_cut_at_line_feeds(path):
        return False
    return not has_fields(path) or has_a_value_on_each_line(path, DEFAULT_LIMIT)


def choose_fields(path: Path) -> tuple[str, ...] | None:
    """Return the text fields that `read_documents` chooses from the first record of a file.

    Returns:
        The only field; an empty tuple, if the usual fields are looked up in each record; None, if
        the file has no record with fields.

    Raises:
        InputError: no field can be chosen.
    """
    if not has_fields(path):
        return None
    _, rows = _rows(path, DEFAULT_LIMIT, _parquet_fields(path, ()))
    first = next((row for _, row in rows if isinstance(row, dict)), None)
    return None if first is None else _choose(first, path)


def _texts(
    rows: Iterator[tuple[int, Any]], path: Path, fields: Sequence[str], *, chosen: bool
) -> Iterator[tuple[int, str | None]]:
    """Yield the text of each row, or None if it has none; a JSON value may be a bare string."""
    checked = not (fields and has_text_cells(path))
    for number, row in rows:
        if isinstance(row, str):
            yield number, row
            continue
        if not chosen:
            fields, chosen = _choose(row, path), True
        elif not checked:
            _check_fields(path, fields, list(row))
        checked = True
        yield number, join_fields(row, fields)


def _parquet_fields(path: Path, fields: Sequence[str]) -> Sequence[str]:
    """Return the columns of a Parquet file to read: not those without text, such as vectors."""
    if file_type(path) != ".parquet":
        return ()
    columns = parquet_columns(path)
    _check_fields(path, fields, list(columns))
    usual = find_fields(columns, (*TITLE, *TEXT))
    return fields or [name for name, is_text in columns.items() if is_text or name in usual]


def _choose(record: dict[str, Any], path: Path) -> tuple[str, ...]:
    """Choose the text field of a file's records, or list the fields in an error.

    Returns:
        The only field; or an empty tuple, if the usual fields are to be looked up in each record.
    """
    strings = [name for name, value in record.items() if value is None or isinstance(value, str)]
    usual = text_fields(record)
    if usual and (usual != find_fields(strings, TITLE) or len(strings) == len(usual)):
        return ()
    if len(strings) == 1:
        return (strings[0],)
    raise InputError(
        f"{path}: cannot tell which field holds the text: {shown_names(strings or record)}"
        if record
        else f"{path}: the first record has no fields",
        hint="choose a field, or several to join",
    )


def _check_fields(path: Path, fields: Sequence[str], names: Sequence[str]) -> None:
    if missing := ", ".join(name for name in fields if name not in names):
        raise InputError(f"{path} has no field {missing}", hint=f"there are {shown_names(names)}")
