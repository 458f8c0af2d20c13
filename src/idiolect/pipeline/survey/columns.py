"""Detect what the columns of a table hold: ids, texts, grades, or users."""

from __future__ import annotations

import re
from typing import Any

from idiolect.pipeline.survey.data_files import DataFile
from idiolect.text.fields import (
    DOCUMENT_ID,
    GRADE,
    GRADED_DOCUMENT,
    GRADED_QUERY,
    QUERY_ID,
    QUERY_TEXT,
    TEXT,
    TITLE,
    find_fields,
)

__all__ = [
    "has_queries",
    "identity_column",
    "item_fields",
    "may_be_judgements",
    "people_columns",
    "text_columns",
]

_LONGEST_ID = 80  # characters
_SENTENCE = 3  # a column without a usual name holds texts from this many words on
_PEOPLE = (
    "user userid uid customer customerid session sessionid visitor visitorid reviewer reviewerid "
    "client clientid member memberid account accountid buyer buyerid shopper shopperid kunde "
    "kundennummer nutzer utilisateur usuario"
)
"""Names of user columns in logs. Compared without case and punctuation."""


def people_columns(file: DataFile) -> list[str]:
    """Return the columns that name users, if a table is a log of their actions."""
    if not file.is_table or find_fields(file.columns, GRADED_QUERY):
        return []
    own = find_fields(file.columns, ("id", "_id"))
    if own and file.is_unique(own[0]) and text_columns(file, own[0]):
        return []
    return [
        name for name in file.columns if re.sub(r"[\W_]+", "", name.casefold()) in _PEOPLE.split()
    ]


def may_be_judgements(file: DataFile, *, certain: bool = False) -> bool:
    """Return whether a table may hold judgements: by column names, or by two or three ids.

    Args:
        file: The table.
        certain: Whether all three column names are required.
    """
    if not file.is_table:
        return False
    known = [find_fields(file.columns, names) for names in (GRADED_QUERY, GRADED_DOCUMENT, GRADE)]
    if all(known) or certain:
        return all(known)
    if len(file.columns) not in (2, 3):
        return False
    values = [str(value) for column in file.columns for value in file.values(column)]
    ids = all(len(value) <= _LONGEST_ID and " " not in value for value in values)
    item = find_fields(file.columns, ("id", "_id", *TITLE, *TEXT))
    return bool(known[0] and known[1]) or (ids and not item)


def identity_column(file: DataFile) -> str | None:
    """Return the id column: one with a usual name, or with short unique values."""
    usual = find_fields(file.columns, (*DOCUMENT_ID, *QUERY_ID))
    for name in usual:
        if file.is_unique(name):
            return name
    for name in file.columns:
        values = file.values(name)
        simple = all(isinstance(v, str | int) and not isinstance(v, bool) for v in values)
        short = simple and all(len(str(v)) <= _LONGEST_ID for v in values) and file.words(name) <= 2
        if name.strip() and short and file.is_unique(name):
            return name
    return None


def text_columns(file: DataFile, identity: str | None) -> tuple[str, ...]:
    """Return the columns that form an item's text: those with usual names, or else the longest."""
    columns = [name for name in file.columns if name != identity and file.words(name) > 0]
    titles, texts = find_fields(columns, TITLE), find_fields(columns, TEXT)
    if not texts:
        rest = [name for name in columns if name not in titles]
        rest.sort(key=lambda name: -file.words(name))
        texts = tuple(name for name in rest[:1] if name.strip() and file.words(name) >= _SENTENCE)
    return tuple(dict.fromkeys((*titles, *texts)))


def item_fields(items: DataFile) -> dict[str, Any]:
    """Return the values of `id`, `title` and `text` in `[data]` for a catalogue."""
    identity = identity_column(items)
    text = text_columns(items, identity)
    titles = find_fields(text, TITLE)
    return {"id": identity, "title": titles[0] if titles else None, "text": text}


def has_queries(file: DataFile) -> bool:
    """Return whether a table has the ids and texts of queries under usual names."""
    identity = find_fields(file.columns, QUERY_ID)
    rest = [name for name in file.columns if name not in identity[:1]]
    return bool(identity and find_fields(rest, QUERY_TEXT))
