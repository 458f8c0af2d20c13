"""Join the item ids of histories with a catalogue of texts and other fields."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from idiolect.recommend.histories import Histories
from idiolect.text.fields import DOCUMENT_ID, find_fields, join_fields, text_fields
from idiolect.text.record_types.column_types import ColumnTypes
from idiolect.text.records import IdReader, has_text_cells, numbered_records
from idiolect.text.skipped import MAX_UNREADABLE, Skipped, skip

__all__ = ["ItemCatalogue", "join_catalogue", "prices_of", "read_catalogue"]

_ITEM_ID = (*DOCUMENT_ID, "itemid", "movieid", "movie_id", "stockcode")
_PRICE = ("price", "unitprice", "unit_price", "list_price", "amount")


@dataclass(frozen=True)
class ItemCatalogue:
    """The texts and fields of items, by id."""

    texts: dict[str, str] = field(default_factory=dict)
    """The text of each item; empty for an item without text."""
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The other fields: texts, numbers, booleans, and lists of these."""


def read_catalogue(
    path: str | Path, skipped: Skipped, *, max_unreadable: float = MAX_UNREADABLE
) -> ItemCatalogue:
    """Read a catalogue.

    Args:
        path: A file of records with an id, and a title or text.
        skipped: Updated with the records without an id, and with repeated ids.
        max_unreadable: The share of the file's rows that may be unreadable.

    Raises:
        InputError: The file cannot be read.
    """
    path, catalogue = Path(path), ItemCatalogue()
    ids = IdReader(path)
    for place, record in numbered_records(path, skipped, max_unreadable=max_unreadable):
        own = find_fields(list(record), _ITEM_ID)[:1]
        id = ids(record, own[0]) if own else None
        if id is None:
            skip(skipped, "without an id", f"{path.name} {place}")
        elif id in catalogue.texts:
            skip(skipped, "repeated ids", f"{path.name} {place}")
        else:
            catalogue.texts[id] = join_fields(record) or ""
            catalogue.metadata[id] = _other_fields(record, {own[0], *text_fields(record)})
    if has_text_cells(path):
        _convert_columns(catalogue.metadata.values())
    return catalogue


def _convert_columns(rows: Collection[dict[str, Any]]) -> None:
    """Give each column of text cells its type, as an index does; missing values are removed."""
    types = ColumnTypes()
    for row in rows:
        for name, cell in row.items():
            types.add(name, cell)
    for row in rows:
        for name, cell in list(row.items()):
            value = types.convert(name, cell)
            if value is None:
                del row[name]
            else:
                row[name] = value


def _other_fields(record: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """Return the fields that filters support."""
    given = record.get("metadata")
    values = {name: value for name, value in record.items() if name not in known}
    if isinstance(given, Mapping):
        values |= given
    return {name: value for name, value in values.items() if _is_comparable(value)}


def _is_comparable(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(one, str | int | float) and one == one for one in value)
    return isinstance(value, str | int | float) and value == value


def join_catalogue(
    histories: Histories, texts: Mapping[str, str]
) -> tuple[Histories, list[str], str]:
    """Add the other items of the catalogue to the items of histories, and return all texts.

    Returns:
        The histories; the text of each item, empty if there is none; and a one-line report on how
        many items match.
    """
    known = set(histories.items)
    cold = tuple(id for id in texts if id not in known)
    joined = Histories(
        histories.users,
        (*histories.items, *cold),
        histories.offsets,
        histories.events,
        histories.times,
    )
    found = np.array([id in texts for id in histories.items])
    blank = sum(not text.strip() for text in texts.values())
    report = (
        f"catalogue: {len(texts):,} items, {len(cold):,} of them in no event; it lacks"
        f" {int((~found).sum()):,} of the {len(known):,} items of the histories"
    )
    if found.mean() < 0.5:
        missing = next(id for id in histories.items if id not in texts)
        report += f"; WARNING: most of them: are the ids the same? for example {missing!r}"
    if blank:
        report += f"; {blank:,} items have no text"
    return joined, [texts.get(id, "") for id in joined.items], report


def prices_of(metadata: list[dict[str, Any]]) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """Return the price of each item, NaN where it is unknown; `None` if no item has one."""
    prices = np.full(len(metadata), np.nan, np.float32)
    for place, values in enumerate(metadata):
        for name in find_fields(list(values), _PRICE)[:1]:
            value = values[name]
            if isinstance(value, int | float) and not isinstance(value, bool):
                prices[place] = value
    return prices if np.isfinite(prices).any() else None
