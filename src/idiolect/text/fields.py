r"""Usual names of a record's fields, and joining fields to one text.

Every reader of records finds ids, titles and texts with these tables, so that a document is the
same string whether it is trained on, indexed, paired with a query or evaluated. Names are
compared without regard to case, and to spaces or underscores between words.

A title and a text are joined by a line break, which separates the title from the first sentence.
The index stores documents in this form.

>>> join_fields({"_id": "7", "title": "Pumps", "text": "They move water."})
'Pumps\nThey move water.'
"""

from __future__ import annotations

import math
from datetime import date
from decimal import Decimal
from functools import lru_cache
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "DOCUMENT_ID",
    "GRADE",
    "GRADED_DOCUMENT",
    "GRADED_QUERY",
    "QUERY_ID",
    "QUERY_TEXT",
    "TEXT",
    "TITLE",
    "find_fields",
    "id_text",
    "join_fields",
    "join_parts",
    "shown_names",
    "text_fields",
]

_OWN_ID = ("id", "_id")
_DOCUMENT_REFERENCE = (
    "corpus-id", "corpus_id", "docno", "docid", "doc-id", "doc_id", "item_id", "product_id",
    "sku", "asin", "key",
)  # fmt: skip
_QUERY_REFERENCE = ("query-id", "query_id", "qid", "topic")

DOCUMENT_ID = (*_OWN_ID, *_DOCUMENT_REFERENCE)
"""The id of a document or item, in a file of documents."""
QUERY_ID = (*_OWN_ID, *_QUERY_REFERENCE)
"""The id of a query, in a file of queries."""
GRADED_QUERY = (*_QUERY_REFERENCE, "query")
"""The query of a relevance judgement: its id, or its text."""
GRADED_DOCUMENT = (*_DOCUMENT_REFERENCE, "document", "item")
"""The document of a relevance judgement."""
GRADE = ("score", "rating", "relevance", "rel", "grade", "label", "judgement")
"""The grade of a document for a query, or the score that a system gave it."""
TITLE = ("title", "name", "product_name", "product_title", "heading")
"""The title of a document."""
TEXT = (
    "text", "contents", "content", "abstract", "description", "product_description",
    "short_description", "body",
)  # fmt: skip
"""The text of a document: all of these fields that a record has, joined."""
QUERY_TEXT = ("text", "query", "question", "claim", "contents", "title")
"""The text of a query: the first of these fields that a record has."""
_SHOWN = 20  # names in a message
_SINGLE = ("document", "passage", "query", "question", "claim")
"""The text of a document without any of the usual fields: the first of these it has."""


def find_fields(names: Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    """Find the fields with known names, in the order of `known`."""
    return _find(tuple(names), tuple(known))


@lru_cache(maxsize=4096)  # the records of a file have the same few sets of names
def _find(names: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    by_name = {name.lower().replace(" ", "_"): name for name in reversed(names)}
    return tuple(by_name[name] for name in known if name in by_name)


def shown_names(names: Iterable[str]) -> str:
    """List names for a message, only the first ones if there are many.

    >>> shown_names(["id", "text"])
    'id, text'
    """
    first = list(names)
    more = f" … {len(first) - _SHOWN:,} more" if len(first) > _SHOWN else ""
    return (", ".join(map(str, first[:_SHOWN])) or "none") + more


def id_text(value: Any) -> str | None:
    """Return an id as text, in the same form for every file type; None if a value is not an id.

    A whole number is written without decimal places, since a column of integers with missing values
    is often stored as floats. Surrounding white space is removed. MongoDB writes an id as
    `{"$oid": "5f…"}`. Null, blank, NaN, lists and other objects are not ids.

    >>> id_text(7.0), id_text(" 007 "), id_text(float("nan"))
    ('7', '007', None)
    """
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, dict) and list(value) == ["$oid"]:
        value = value["$oid"]
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return None
    if isinstance(value, Decimal | Real) and not isinstance(value, Integral):
        number = float(value)
        if not math.isfinite(number):
            return None
        return f"{value:.0f}" if number.is_integer() else str(value)
    if not isinstance(value, str | int | Integral | UUID | date):
        return None
    return (None if value != value else str(value).strip()) or None  # pandas' NaT differs


def text_fields(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Find the fields that form a document's text: every title, then every text.

    >>> text_fields({"id": "7", "description": "They move water.", "name": "Pumps"})
    ('name', 'description')
    """
    names = [name for name, value in record.items() if value is None or isinstance(value, str)]
    titles = find_fields(names, TITLE)
    return titles + (find_fields(names, TEXT) or find_fields(names, _SINGLE)[:1])


def join_fields(record: Mapping[str, Any], fields: Sequence[str] = ()) -> str | None:
    """Join the fields of a record to one text.

    Args:
        record: the values by field name.
        fields: the fields to join; by default those of `text_fields`.

    Returns:
        The text, which is empty if all fields are empty or null; None if the record has none of
        the fields, or if a field holds something other than text.
    """
    chosen = [name for name in fields if name in record] if fields else text_fields(record)
    values = [record[name] for name in chosen]
    texts = [value or "" for value in values if value is None or isinstance(value, str)]
    return join_parts(texts) if texts else None


def join_parts(parts: Iterable[str]) -> str:
    """Join the parts of a document, such as its title and its text, omitting blank parts."""
    return "\n".join(part for part in parts if part.strip())
