"""Read the documents or queries of one file with their ids.

Every record must be readable: a lost document would change the training data or the evaluation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from idiolect.errors import InputError
from idiolect.text.fields import (
    DOCUMENT_ID,
    QUERY_ID,
    QUERY_TEXT,
    TEXT,
    TITLE,
    find_fields,
    id_text,
    join_fields,
    shown_names,
)
from idiolect.text.records import IdReader, read_all_records

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["documents_with_ids", "queries_with_ids"]


def documents_with_ids(path: Path) -> Iterator[tuple[str, str, str]]:
    """Stream the documents of a file of records, with title and text joined by a line break.

    Yields:
        File and record number, for messages; id; text, which may be empty.

    Raises:
        InputError: a record cannot be read, or has no id or no text.
    """
    id_of = IdReader(path)
    for place, record in read_all_records(path):
        id_field, text = _id_field(record, DOCUMENT_ID, place), join_fields(record)
        if text is None:
            raise _missing(record, (*TITLE, *TEXT), "text", place)
        yield place, str(id_of(record, id_field)), text


def queries_with_ids(path: Path) -> Iterator[tuple[str, str, str]]:
    """Stream the queries of a file of records: the first field in `QUERY_TEXT` that is not blank.

    Yields:
        File and record number, for messages; id; text, which may be empty.

    Raises:
        InputError: a record cannot be read, or has no id or no text.
    """
    id_of = IdReader(path)
    for place, record in read_all_records(path):
        id_field = _id_field(record, QUERY_ID, place)
        rest = {name: value for name, value in record.items() if name != id_field}
        text = rest[_first(rest, QUERY_TEXT, "text", place)]
        yield place, str(id_of(record, id_field)), str(text)


def _id_field(record: Mapping[str, Any], known: tuple[str, ...], place: str) -> str:
    """Return the first known field that holds an id."""
    found = find_fields([name for name, value in record.items() if id_text(value)], known)
    if not found:
        raise _missing(record, known, "id", place)
    return found[0]


def _first(record: Mapping[str, Any], known: tuple[str, ...], what: str, place: str) -> str:
    """Return the first known field with a text or a number; a blank one only if all are blank."""
    cells = [name for name, value in record.items() if isinstance(value, str | int | float)]
    found = find_fields(cells, known)
    if not found:
        raise _missing(record, known, what, place)
    return next((name for name in found if str(record[name]).strip()), found[0])


def _missing(
    record: Mapping[str, Any], known: tuple[str, ...], what: str, place: str
) -> InputError:
    return InputError(
        f"{place} has no {what}",
        hint=f"there are {shown_names(record)}; known: {', '.join(known)}",
    )
