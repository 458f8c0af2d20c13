"""Convert items from their accepted forms: `Item`, records, tuples, and tables.

Ids are texts. In records, tuples and tables, integer ids are converted: 7 and 7.0 become "7" (see
`idiolect.text.fields.id_text`). An `Item` whose id is not a text is an error.

>>> list(as_items([("p1", "a lamp"), {"id": 7, "title": "a chair", "price": 20}]))
[Item(id='p1', text='a lamp', metadata={}), Item(id='7', text='a chair', metadata={'price': 20})]
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idiolect.errors import InputError
from idiolect.search.items import Item
from idiolect.text.arguments import iterate, wrong_type
from idiolect.text.fields import DOCUMENT_ID, find_fields, id_text, join_fields, text_fields

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["as_items"]

_ROWS = 1000
"""Rows of a table that are converted at once."""
_FORM = "pass an Item, a dict like it, or a tuple (id, text, metadata, vector)"


def as_items(items: Any) -> Iterator[Item]:
    """Yield items.

    Args:
        items: a stream of

            - `Item`;
            - records: dicts, named tuples, or the rows of a pandas, pyarrow or polars table. The id
              is the first field with a common name, such as `id`; the text is the field `text`, or
              the fields with other common names, such as `title` and `description`; `vector` is the
              vector; all other fields, and those of a dict `metadata`, are metadata. Missing values
              of a table are skipped;
            - tuples (id, text), (id, text, metadata) or (id, text, metadata, vector).

    Raises:
        InputError: `items` is not an iterable of items, or an item has none of these forms.
    """
    if isinstance(items, str | Path):
        raise wrong_type(items, "items", "a list of items", "read a file with read_items([path])")
    rows = _table_rows(items)
    stream = iterate(items, "items", "a list of items") if rows is None else rows
    for number, item in enumerate(stream, start=1):
        if isinstance(item, Item):
            yield item
        elif isinstance(item, Mapping):
            yield _of_record(dict(item), f"item {number}")
        elif isinstance(item, tuple):
            yield _of_tuple(item, f"item {number}")
        else:
            raise wrong_type(item, f"item {number}", "an item", _FORM)


def _of_record(record: dict[str, Any], place: str) -> Item:
    """Return the item of a dict with its id, text and other fields."""
    names = find_fields([name for name in record if isinstance(name, str)], DOCUMENT_ID)
    vector = record.pop("vector", None)
    text = record.get("text", join_fields(record))
    if text is None and vector is not None:
        text = ""
    id = id_text(record[names[0]]) if names else None
    if not id or text is None:
        missing = "text" if id else "id"
        raise InputError(
            f"{place} has no {missing}; there are {', '.join(map(str, record)) or 'no fields'}",
            hint="pass a dict with id and text, or an Item",
        )
    metadata = record.pop("metadata", None) or {}
    if not isinstance(metadata, Mapping):
        raise wrong_type(metadata, f"{place}: its metadata", "a dict")
    own = {names[0], *(("text",) if "text" in record else text_fields(record))}
    others = {name: value for name, value in record.items() if name not in own}
    return Item(id, text, {**metadata, **others}, vector)


def _of_tuple(values: tuple[Any, ...], place: str) -> Item:
    """Return the item of a tuple (id, text, metadata, vector); the last two may be missing."""
    if hasattr(values, "_asdict"):
        return _of_record(values._asdict(), place)
    if not 2 <= len(values) <= 4:
        raise InputError(f"{place} is a tuple of {len(values)} values", hint=_FORM)
    id, text, metadata, vector = (*values, None, None)[:4]
    if id_text(id) is None:
        raise InputError(f"{place}: its id is {id!r}", hint=_FORM)
    if text is None and vector is not None:
        text = ""
    if not isinstance(text, str):
        raise wrong_type(text, f"{place}: its text", "a text", _FORM)
    if not isinstance(metadata, Mapping | None):
        raise wrong_type(metadata, f"{place}: its metadata", "a dict", _FORM)
    return Item(str(id_text(id)), text, metadata or {}, vector)


def _table_rows(table: Any) -> Iterator[dict[str, Any]] | None:
    """Return the rows of a table as records without missing values; None if it is not a table."""
    if hasattr(table, "iloc") and hasattr(table, "notna") and hasattr(table, "columns"):
        return _pandas_rows(table)
    if hasattr(table, "to_pylist") and hasattr(table, "column_names"):  # pyarrow
        starts = range(0, len(table), _ROWS)
        return _present(row for at in starts for row in table.slice(at, _ROWS).to_pylist())
    if hasattr(table, "iter_rows") and hasattr(table, "columns"):  # polars
        return _present(table.iter_rows(named=True))
    if hasattr(table, "to_dict") and hasattr(table, "columns"):  # pandas and similar
        return _present(table.to_dict("records"))
    return None


def _pandas_rows(frame: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of a frame; named index levels are fields, too."""
    named = [name for name in frame.index.names if name is not None and name not in frame.columns]
    for start in range(0, len(frame), _ROWS):
        part = frame.iloc[start : start + _ROWS]
        part = part.reset_index(level=named) if named else part
        present = part.notna().to_numpy()
        records = part.astype(object).to_dict("records")
        for record, row in zip(records, present, strict=True):
            yield {name: v for (name, v), there in zip(record.items(), row, strict=True) if there}


def _present(rows: Any) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {name: value for name, value in row.items() if value is not None}
