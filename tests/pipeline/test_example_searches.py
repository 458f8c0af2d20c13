"""Searches before and after: the same search, with the vectors of the base and of the index."""

from __future__ import annotations

from typing import Any

import pytest

from idiolect.pipeline.example_searches import (
    compare_searches,
    compare_similar,
    find_missed,
    some_queries,
)
from idiolect.ranking.evaluation.judged_collection import JudgedCollection
from idiolect.search.items import Hit, Item

ITEMS = {
    name: Item(name, f"lamp {name} garden", {"title": name.upper()}) for name in "abcdefghijkl"
}
TEXTS = {name: item.text for name, item in ITEMS.items()}


class Index:
    """An index whose words find a, b, c and whose default finds c, a."""

    encoder = None

    def __init__(self, dense: float) -> None:
        self.fusion = ("weighted", (dense, 1 - dense))

    def search(self, text: str, top_k: int, *, mode: str = "hybrid") -> list[Hit]:
        found = "abc" if mode == "lexical" else "ca"
        return [Hit(name, 1 / n, "", {}) for n, name in enumerate(found, 1)][:top_k]

    def similar(self, item_id: str, top_k: int) -> list[Hit]:
        return [Hit(name, 1.0, "", {}) for name in "ba"][:top_k]


def ids(found: Any) -> list[str]:
    return [hit["id"] for hit in found]


@pytest.mark.parametrize(("dense", "before"), [(1.0, ["d", "a"]), (0.0, ["a", "b"])])
def test_before_has_the_weights_of_the_index(dense: float, before: list[str]) -> None:
    collection = JudgedCollection.join(TEXTS, {"q": "garden"}, {"q": {"c": 2, "d": 0}})
    run = {"q": {"d": 0.9, "a": 0.5, "b": 0.1}}
    index: Any = Index(dense)
    (search,) = compare_searches(index, run, collection, ITEMS)
    assert ids(search["before"])[:2] == before
    assert ids(search["after"]) == ["c", "a"]
    assert search["after"][0]["grade"] == 2
    assert (search["query"], search["after"][0]["title"]) == ("garden", "C")


def test_an_item_is_not_similar_to_itself() -> None:
    collection = JudgedCollection.join(TEXTS, TEXTS, {"c": {"a": 1}})
    index: Any = Index(0.5)
    (search,) = compare_similar(index, {"c": {"c": 1.0, "d": 0.9, "a": 0.8}}, collection, ITEMS)
    assert ids(search["before"]) == ["d", "a"]
    assert ids(search["after"]) == ["b", "a"]


def test_missed_searches_are_those_without_a_relevant_item_among_ten() -> None:
    queries = {"found": "garden", "late": "old garden", "never": "chair", "none": "x"}
    qrels = {"found": {"a": 1}, "late": {"l": 2, "a": 0}, "never": {"b": 1}, "none": {"a": 0}}
    collection = JudgedCollection.join(TEXTS, queries, qrels)
    ranking = {name: 1 / n for n, name in enumerate("abcdefghijkl", 1)}
    run = {"found": ranking, "late": ranking, "never": {"a": 1.0}}
    missed, counts = find_missed(collection, run, ITEMS)
    assert counts == (2, 3)
    assert [(one["query"], one["wanted"], one["rank"]) for one in missed] == [
        ("chair", "B", None),
        ("old garden", "L", 12),
    ]
    assert [one["shared"] for one in missed] == [[], ["garden"]]


def test_ten_queries_are_taken_at_regular_intervals() -> None:
    queries = {f"q{n:02}": " " if n == 1 else f"text {n}" for n in range(31)}
    collection = JudgedCollection.join(TEXTS, queries, {name: {"a": 1} for name in queries})
    chosen = some_queries(collection)
    assert len(chosen) == 10
    assert " " not in chosen.values()
    assert list(chosen)[:3] == ["q00", "q04", "q07"]
