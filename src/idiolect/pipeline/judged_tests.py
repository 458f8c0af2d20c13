"""The tests of a run: judged queries, and which of their answers were seen in training.

Queries with relevant items seen in training are easier, so they are counted separately.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypedDict

from idiolect.ranking.evaluation.judged_collection import JudgedCollection

__all__ = [
    "Ranking",
    "answerable_queries",
    "describe",
    "judged_collection",
    "lowest_relevant",
    "unseen_queries",
]


class Ranking(TypedDict):
    """Size of a ranking test."""

    queries: int
    unseen: int
    """Queries without a relevant item in the training pairs."""
    items: int
    notes: list[str]


def judged_collection(
    texts: Mapping[str, str],
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, float]],
) -> JudgedCollection | None:
    """Return a test; None without judgements."""
    return JudgedCollection.join(texts, queries, qrels) if qrels else None


def lowest_relevant(collection: JudgedCollection) -> float:
    """Return the lowest relevant grade: any above 0, such as 0.1 among grades from 0 to 1."""
    grades = (grade for judged in collection.qrels.values() for grade in judged.values())
    return min((grade for grade in grades if grade > 0), default=1.0)


def unseen_queries(collection: JudgedCollection, seen: Collection[str]) -> list[str]:
    """Return the queries without a relevant item that was seen in training.

    For similar items, the query is itself an item, and must be unseen as well.
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
