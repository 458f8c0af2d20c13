"""Read items from files: choose the id field, the text fields and the metadata fields."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idiolect.errors import InputError
from idiolect.search.items import Item
from idiolect.text.arguments import iterate, wrong_type
from idiolect.text.fields import DOCUMENT_ID, find_fields, join_fields, text_fields
from idiolect.text.records import file_type, has_fields, read_records, unusable

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence

__all__ = ["as_items", "read_items"]

_EXTENSIONS = (".jsonl", ".csv", ".tsv", ".parquet")


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
        id_field: the id field; by default a common name, such as `id`, found in the first record.
        fields: the text fields, joined by line breaks; by default the common names, such as
            `title` and `text`, found in each record.
        metadata: the metadata fields; by default all other fields that are not null, and the fields
            of an object called `metadata`. In CSV and TSV files, numbers, true and false are
            converted.
        also: text fields to store as metadata as well.
        skipped: incremented by reason for each skipped record.

    Raises:
        InputError: a source cannot be read, or the first record has no id or text field.
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


def as_items(items: Any) -> Iterator[Item]:
    """Yield items; a dict is read as a record of a file, and a table by its rows.

    Raises:
        InputError: They are not several items, or one is neither an item nor such a dict.
    """
    if isinstance(items, str | Path):
        raise wrong_type(items, "items", "a list of items", "read a file with read_items([path])")
    if hasattr(items, "to_dict") and hasattr(items, "columns"):
        items = items.to_dict("records")
    for number, item in enumerate(iterate(items, "items", "a list of items"), start=1):
        if isinstance(item, Item):
            yield item
        elif isinstance(item, Mapping):
            yield _item_of(dict(item), f"item {number}")
        else:
            raise wrong_type(item, f"item {number}", "an item", "pass an Item, or a dict like it")


def _item_of(record: dict[str, Any], place: str) -> Item:
    """Return the item of a dict with its id, text and other fields."""
    names = find_fields(record, DOCUMENT_ID)
    text = record.get("text", join_fields(record))
    if not names or text is None:
        missing = "text" if names else "id"
        raise InputError(
            f"{place} has no {missing}; there are {', '.join(map(str, record)) or 'no fields'}",
            hint="pass a dict with id and text, or an Item",
        )
    metadata, vector = record.pop("metadata", None) or {}, record.pop("vector", None)
    if not isinstance(metadata, Mapping):
        raise wrong_type(metadata, f"{place}: its metadata", "a dict")
    own = {names[0], *(("text",) if "text" in record else text_fields(record))}
    others = {name: value for name, value in record.items() if name not in own}
    return Item(str(record[names[0]]), text, {**metadata, **others}, vector)


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
    """Convert a value to JSON: `'12.5'` in a CSV file is a number, a date is an ISO string."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if untyped and isinstance(value, str):
        try:
            parsed = json.loads(value)
        except ValueError:
            return value
        finite = isinstance(parsed, bool | int) or (
            isinstance(parsed, float) and abs(parsed) < 1e308
        )
        return parsed if finite else value
    return value


def _paths(sources: Sequence[str | Path]) -> Iterator[Path]:
    for source in map(Path, sources):
        if source.is_dir():
            found = [p for p in sorted(source.rglob("*")) if p.is_file() and has_fields(p)]
            if not found:
                raise InputError(
                    f"no records in {source}", hint=f"supported: {' '.join(_EXTENSIONS)}"
                )
            yield from found
        elif source.exists():
            yield source
        else:
            raise InputError(f"no such file or folder: {source}", hint="check the path")
