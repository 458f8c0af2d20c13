"""Join the ids of histories to a catalogue of items and their texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from idiolect.recommend.histories import Histories
from idiolect.text.fields import DOCUMENT_ID, find_fields, join_fields
from idiolect.text.records import IdReader, numbered_records
from idiolect.text.skipped import Skipped, skip

__all__ = ["join_catalogue", "read_texts"]

_ITEM_ID = (*DOCUMENT_ID, "itemid", "movieid", "movie_id", "stockcode")


def read_texts(path: str | Path, skipped: Skipped) -> dict[str, str]:
    """Read the text of each item of a catalogue; an item without text has an empty one.

    Args:
        path: A file of records with an id, and a title or text.
        skipped: Updated with the records without an id, and with repeated ids.

    Raises:
        InputError: The file cannot be read.
    """
    path, texts = Path(path), dict[str, str]()
    ids = IdReader(path)
    for place, record in numbered_records(path, skipped):
        field = find_fields(list(record), _ITEM_ID)[:1]
        id = ids(record, field[0]) if field else None
        if id is None:
            skip(skipped, "without an id", f"{path.name} {place}")
        elif id in texts:
            skip(skipped, "repeated ids", f"{path.name} {place}")
        else:
            texts[id] = join_fields(record) or ""
    return texts


def join_catalogue(
    histories: Histories, texts: Mapping[str, str]
) -> tuple[Histories, list[str], str]:
    """Add the catalogue's other items to the histories' items, and return all texts.

    Returns:
        The histories; the text of each item, empty where there is none; and one line that says how
        well both fit.
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
