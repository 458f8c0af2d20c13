"""Items out of files: which field is the id, which hold the text, what becomes metadata."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idiolect.errors import InputError
from idiolect.search.items import Item
from idiolect.text.fields import DOCUMENT_ID, find_fields, join_fields, text_fields
from idiolect.text.records import file_type, has_fields, read_records, unusable

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence

__all__ = ["read_items"]

_ENDINGS = (".jsonl", ".csv", ".tsv", ".parquet")


def read_items(
    sources: Sequence[str | Path],
    *,
    id_field: str | None = None,
    fields: Sequence[str] = (),
    metadata: Sequence[str] | None = None,
    also: Sequence[str] = (),
    skipped: Counter[str],
) -> Iterator[Item]:
    """Stream items from `.jsonl`, `.csv`, `.tsv` and `.parquet` files, also with `.gz`.

    Args:
        sources: files, and folders of such files.
        id_field: the field that holds the id; by default the usual one that the first record has,
            such as `id`.
        fields: those that make the text, joined by a line break; by default the usual ones that
            each record has, such as `title` and `text`.
        metadata: the fields to keep as metadata; by default all others that are not null, and
            what stands in an object called `metadata`. In tables of text, what reads as a number,
            true or false is one.
        also: fields of the text that are metadata as well.
        skipped: is counted up by reason for each record left out.

    Raises:
        InputError: a source cannot be read, or its first record has no id or text field.
    """
    first = True
    for path in _paths(sources):
        untyped = file_type(path) in (".csv", ".tsv")
        for record in read_records(path, skipped):
            id_field = id_field or _choose_id(record, path)
            fields_here = fields or text_fields(record)
            if first and not fields_here:
                raise _unknown(record, path, "text", "--field")
            first = False
            id, text = record.get(id_field), join_fields(record, fields)
            if id is None or id == "" or isinstance(id, dict | list):
                skipped["no id"] += 1
                continue
            reason = "no field" if text is None else unusable(text)
            if text is None or reason is not None:
                skipped[str(reason)] += 1
                continue
            if metadata is None and isinstance(record.get("metadata"), dict):
                inner = record.pop("metadata")
                record = {**inner, **record}
            others = [
                name
                for name in record
                if name != id_field and (name not in fields_here or name in also)
            ]
            kept = {
                name: _value(record[name], untyped)
                for name in (others if metadata is None else metadata)
                if record.get(name) is not None
            }
            yield Item(str(id), text, kept)


def _choose_id(record: dict[str, Any], path: Path) -> str:
    for name in find_fields(record, DOCUMENT_ID):
        if record[name] is not None:
            return name
    raise _unknown(record, path, "id", "--id")


def _unknown(record: dict[str, Any], path: Path, what: str, option: str) -> InputError:
    return InputError(
        f"{path}: which field holds the {what}? There are {', '.join(record)}",
        hint=f"choose with {option}",
    )


def _value(value: Any, untyped: bool) -> Any:
    """A value as JSON has it: `'12.5'` from a table is a number, a date is ISO text."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if untyped and isinstance(value, str):
        try:
            read = json.loads(value)
        except ValueError:
            return value
        finite = isinstance(read, bool | int) or (isinstance(read, float) and abs(read) < 1e308)
        return read if finite else value
    return value


def _paths(sources: Sequence[str | Path]) -> Iterator[Path]:
    for source in map(Path, sources):
        if source.is_dir():
            found = [p for p in sorted(source.rglob("*")) if p.is_file() and has_fields(p)]
            if not found:
                raise InputError(f"no records in {source}", hint=f"known: {' '.join(_ENDINGS)}")
            yield from found
        elif source.exists():
            yield source
        else:
            raise InputError(f"no such file or folder: {source}", hint="check the path")
