"""The tests of a run: judged queries over its items, and which answers training has seen.

Queries whose answers training has seen are easier, so they are counted apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypedDict

from idiolect.ranking.evaluation.judged_collection import JudgedCollection

__all__ = ["Ranking", "answerable_queries", "describe", "judged_collection", "unseen_queries"]


class Ranking(TypedDict):
    """A test of rankings."""

    queries: int
    unseen: int
    """Queries none of whose relevant items occurs in a training pair."""
    items: int
    notes: list[str]


def judged_collection(
    texts: Mapping[str, str],
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, float]],
) -> JudgedCollection | None:
    """Return a test; None without judgements."""
    return JudgedCollection.join(texts, queries, qrels) if qrels else None


def unseen_queries(collection: JudgedCollection, seen: Collection[str]) -> list[str]:
    """Return the queries none of whose relevant items training has seen.

    Of similar items, the query is an item itself and must be unseen as well.
    """
    return [
        query
        for query in answerable_queries(collection)
        if query not in seen
        and not any(grade > 0 and item in seen for item, grade in collection.qrels[query].items())
    ]


def answerable_queries(collection: JudgedCollection | None) -> list[str]:
    """Return the queries with a relevant item."""
    qrels = collection.qrels if collection is not None else {}
    return [query for query, grades in qrels.items() if max(grades.values()) > 0]


def describe(collection: JudgedCollection | None, seen: Collection[str]) -> Ranking | None:
    """Return the size of a test.

    Args:
        collection: The test.
        seen: Ids of the items that occur in training pairs.
    """
    if collection is None:
        return None
    return {
        "queries": len(answerable_queries(collection)),
        "unseen": len(unseen_queries(collection, seen)),
        "items": len(collection.documents),
        "notes": list(collection.notes),
    }
