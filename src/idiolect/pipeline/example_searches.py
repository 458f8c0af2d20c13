"""Example searches before and after a run, and searches without a relevant result.

"After" is the default search of the finished index. "Before" is the same search with the vectors of
the base: the same lexical results, fused with the same weights. So every difference is due to the
vectors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Literal, TypedDict

from idiolect.search.fusion import fuse
from idiolect.search.items import Hit

if TYPE_CHECKING:
    from idiolect.encoding.encoder import Encoder
    from idiolect.ranking.evaluation.judged_collection import JudgedCollection
    from idiolect.ranking.evaluation.metrics import Run
    from idiolect.search.index import Index
    from idiolect.search.items import Item

__all__ = [
    "ExampleSearches",
    "FoundItem",
    "MissedSearch",
    "Search",
    "compare_searches",
    "compare_similar",
    "find_missed",
    "some_queries",
]

_QUERIES = 10
_HITS = 5
_DEPTH = 100
_FIRST = 10  # a relevant item must be among this many results
_WORD = re.compile(r"\w+")


class FoundItem(TypedDict):
    """A result of a search."""

    id: str
    title: str
    text: str
    """The beginning of its text."""
    grade: float | None
    """Its grade for this query; None if it was not judged."""


class Search(TypedDict):
    """The first five results of a search before and after."""

    query: str
    before: list[FoundItem]
    """Results with the vectors of the base."""
    after: list[FoundItem]
    """Results of the finished index."""
    new_terms: list[str]
    """New tokens in the query."""


class MissedSearch(TypedDict):
    """A search without a relevant item in the top ten."""

    query: str
    wanted: str
    """Title of the most relevant item."""
    rank: int | None
    """Rank of the first relevant item; None if none is in the top hundred."""
    shared: list[str]
    """Words of four letters or more that the query and the wanted item have in common."""


class ExampleSearches(TypedDict):
    """The content of searches.json."""

    kind: Literal["search", "similar"]
    """Whether the examples are searches, or items with their similar items."""
    examples: list[Search]
    missed: list[MissedSearch]
    """The ten worst."""
    missed_of: tuple[int, int]
    """The number of missed searches, and of all searches with a relevant item."""


def some_queries(collection: JudgedCollection) -> dict[str, str]:
    """Return ten queries at regular intervals."""
    queries = {query: text for query, text in collection.queries.items() if text.strip()}
    step = max(1, len(queries) // _QUERIES)
    return dict(islice(islice(queries.items(), 0, None, step), _QUERIES))


def compare_searches(
    index: Index, before: Run, collection: JudgedCollection, items: Mapping[str, Item]
) -> list[Search]:
    """Search the index for some queries, and fuse its lexical results with the base's vectors.

    Args:
        index: The finished index.
        before: The rankings of these queries by the base's vectors.
        collection: The test with the queries.
        items: The catalogue.
    """
    method, weights = index.fusion
    searches: list[Search] = []
    for query in before:
        text = collection.queries[query]
        words = index.search(text, _DEPTH, mode="lexical")
        vectors = [Hit(name, score, "", {}) for name, score in before[query].items()]
        old = fuse([vectors, words], method=method, weights=weights)
        new = index.search(text, _HITS)
        searches.append(_search(index, collection, query, items, old, new))
    return searches


def compare_similar(
    index: Index, before: Run, collection: JudgedCollection, items: Mapping[str, Item]
) -> list[Search]:
    """The same as `compare_searches`, for items similar to an item."""
    return [
        _search(
            index,
            collection,
            item,
            items,
            [Hit(name, score, "", {}) for name, score in ranking.items() if name != item],
            index.similar(item, _HITS),
        )
        for item, ranking in before.items()
    ]


def find_missed(
    collection: JudgedCollection, run: Run, items: Mapping[str, Item]
) -> tuple[list[MissedSearch], tuple[int, int]]:
    """Find searches without a relevant item in the top ten.

    Returns:
        The ten worst, and the numbers of missed searches and of all that have a relevant item.
    """
    missed: list[MissedSearch] = []
    answerable = 0
    for query, grades in collection.qrels.items():
        relevant = {item for item, grade in grades.items() if grade > 0}
        if not relevant:
            continue
        answerable += 1
        scores = run.get(query, {})
        ranking = sorted(scores, key=lambda item: (-scores[item], item))
        rank = next((n for n, item in enumerate(ranking, 1) if item in relevant), None)
        if rank is not None and rank <= _FIRST:
            continue
        wanted = max(sorted(relevant), key=lambda item: grades[item])
        text = collection.queries[query]
        missed.append(
            {
                "query": text,
                "wanted": _title(items[wanted]),
                "rank": rank,
                "shared": sorted(_words(text) & _words(items[wanted].text)),
            }
        )
    missed.sort(key=lambda one: -(one["rank"] or _DEPTH + 1))
    return missed[:_QUERIES], (len(missed), answerable)


def _search(
    index: Index,
    collection: JudgedCollection,
    query: str,
    items: Mapping[str, Item],
    before: Sequence[Hit],
    after: Sequence[Hit],
) -> Search:
    def found(hits: Sequence[Hit]) -> list[FoundItem]:
        grades = collection.qrels[query]
        return [
            {
                "id": hit.id,
                "title": _title(items[hit.id]),
                "text": items[hit.id].text[:200],
                "grade": grades.get(hit.id),
            }
            for hit in hits[:_HITS]
        ]

    text = collection.queries[query]
    new_terms = _new_terms(index.encoder, text) if index.encoder else []
    return {"query": text, "before": found(before), "after": found(after), "new_terms": new_terms}


def _title(item: Item) -> str:
    return str(item.metadata.get("title", item.id))


def _words(text: str) -> set[str]:
    return {word for word in _WORD.findall(text.casefold()) if len(word) > 3}


def _new_terms(tuned: Encoder, text: str) -> list[str]:
    tokenizer = tuned.model.tokenizer
    record = tokenizer.extension
    if record is None:
        return []
    names = {token.id: token.text.strip() for token in record.added}
    ids = tokenizer.encode(text, add_special_tokens=False)
    return list(dict.fromkeys(names[id_] for id_ in ids if id_ in names))
