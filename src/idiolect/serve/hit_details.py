"""Details of a hit for the web page: the best passage, matched words, shared words."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any

from idiolect.search.store.lexical_terms import find_matches, query_terms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idiolect.search.index import Index
    from idiolect.search.items import Hit, Item

__all__ = ["common_words", "field_values", "hit_record"]

_MAX_CHARACTERS = 20_000  # searched for the words of the query
_SAMPLE = 1000
_VALUES = 20
_MAX_VALUE = 60
_WORDS = 6


def hit_record(hit: Hit, query: str, language: str) -> dict[str, Any]:
    """Return a hit with its best passage and the spans of the query's words, in characters."""
    text = hit.text[:_MAX_CHARACTERS]
    found = find_matches(query, text, language)
    passage = {"start": found.start, "end": found.end, "text": text[found.start : found.end]}
    return {
        "id": hit.id,
        "score": hit.score,
        "text": hit.text,
        "metadata": hit.metadata,
        "passage": passage if passage["text"] else None,
        "highlights": found.places,
    }


def common_words(texts: Sequence[str], other: str, language: str) -> list[str]:
    """Return the longest words of the text `other` that also occur in `texts`."""
    own = Counter[str]()
    for text in texts:
        own.update(_words(text, language))
    shared = {word for word in _words(other, language) if word in own}
    return sorted(shared, key=lambda word: (-len(word), word))[:_WORDS]


def _words(text: str, language: str) -> list[str]:
    plain = (word.strip("\"'.,;:()[]{}") for word in query_terms(text[:4000].lower(), language))
    return [word for word in plain if len(word) > 3 and word.isalpha()]


def field_values(index: Index) -> dict[str, list[Any]]:
    """Return the metadata fields with their most frequent values, in a sample of items.

    A field with many different numbers has their minimum and maximum instead. Fields whose texts
    rarely repeat, such as titles, are skipped, since they do not group items.
    """
    counts: dict[str, Counter[Any]] = {}
    items: list[Item] = list(islice(index.store.items(), _SAMPLE))
    for item in items:
        for name, value in item.metadata.items():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, str | int | float) and len(str(one)) <= _MAX_VALUE:
                    counts.setdefault(name, Counter())[one] += 1
    values = {name: _some_values(found) for name, found in counts.items()}
    return {name: some for name, some in values.items() if some}


def _some_values(found: Counter[Any]) -> list[Any]:
    if len(found) <= _VALUES:
        return [value for value, _ in found.most_common()]
    if all(isinstance(value, int | float) for value in found):
        return [min(found), max(found)]
    return [value for value, _ in found.most_common(_VALUES)] if _recurs(found) else []


def _recurs(found: Counter[Any]) -> bool:
    """Return whether a value occurs twice or more, on average."""
    return found.total() >= 2 * len(found)
