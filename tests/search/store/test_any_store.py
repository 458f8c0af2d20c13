"""The common behaviour of all stores: embedded with and without a graph, and Milvus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from idiolect.errors import InputError
from idiolect.search.items import Item
from idiolect.search.store.any_store import AnyStore
from search.things import DIMENSIONS, matches, nearest, thing, vector

THINGS = [
    thing(0, price=10, brand="acme", new=True, tags=["red", "small"]),
    thing(1, price=20.5, brand="acme", new=False, tags=["blue"]),
    thing(2, price=30, brand="bolt", tags=[]),
    thing(3, price=40, brand="bolt", new=True, day="2024-05-01"),
    thing(4, price="40", brand="Été", day="2024-06-01"),
    thing(5, price=True, brand='say "hi"\\', tags=["red", 7]),
    thing(6, brand=None, size={"w": 1}, tags=[["nested"]]),
    thing(7),
    thing(8, price=-5, day="2023-01-01", new=False),
    thing(9, price=1e300, brand="", day="2025-01-01"),
]

FILTERS: list[dict[str, Any]] = [
    {},
    {"price": 10},
    {"price": 10.0},
    {"price": {"$eq": "40"}},
    {"price": True},
    {"price": 1},
    {"brand": ""},
    {"brand": 'say "hi"\\'},
    {"brand": "Été"},
    {"brand": {"$ne": "acme"}},
    {"price": {"$gt": 20.5}},
    {"price": {"$gte": 20.5}},
    {"price": {"$lt": 20.5}},
    {"price": {"$lte": 20.5}},
    {"price": {"$gte": 10, "$lt": 40}},
    {"price": {"$gte": -5, "$lt": -4.5}},
    {"price": {"$gte": 1e300}},
    {"price": {"$gt": "3"}},
    {"day": {"$gte": "2024-01-01", "$lt": "2025-01-01"}},
    {"brand": {"$in": ["acme", "Été", "nope"]}},
    {"brand": {"$nin": ["acme", "bolt"]}},
    {"tags": "red"},
    {"tags": {"$ne": "red"}},
    {"tags": {"$in": ["blue", 7]}},
    {"new": {"$exists": True}},
    {"new": {"$exists": False}},
    {"brand": {"$exists": True}},
    {"size": {"$exists": False}},
    {"nowhere": {"$exists": False}},
    {"nowhere": {"$exists": True}},
    {"new": True, "brand": "acme"},
    {"$and": [{"new": True}, {"price": {"$gt": 20}}]},
    {"$or": [{"brand": "acme"}, {"day": {"$lt": "2024-01-01"}}]},
    {"$not": {"brand": "acme"}},
    {"$not": {"$or": [{"brand": "acme"}, {"price": {"$gt": 35}}]}},
    {"$not": {"$not": {"new": False}}},
    {"price": {"$not": {"$gt": 20}}},
    {"price": {"$not": {"$gte": 10, "$lte": 30}}},
    {"brand": "acme", "$or": [{"new": True}, {"tags": "blue"}], "price": {"$exists": True}},
]


def _ids(items: Any) -> list[str]:
    return [item.id for item in items]


def test_written_items_are_read(store: AnyStore) -> None:
    store.upsert(THINGS)
    found = store.fetch(["t3", "nope", "t0"], vectors=True)
    assert list(found) == ["t3", "t0"]
    assert found["t3"] == THINGS[3]
    assert np.array_equal(found["t3"].vector, THINGS[3].vector)
    assert store.fetch(["t3"])["t3"].vector is None
    assert sorted(_ids(store.items())) == sorted(_ids(THINGS))
    assert {i.id: i for i in store.items()} == {i.id: i for i in THINGS}


@pytest.mark.parametrize("metric", ["cosine", "inner", "l2"])
def test_queries_agree_with_the_definition(opened: Callable[..., AnyStore], metric: str) -> None:
    store = opened(metric=metric)
    items = [thing(n) for n in range(60)]
    store.upsert(items)
    for seed in range(100, 110):
        hits = store.query(vector(seed), 5)
        expected = nearest(items, vector(seed), 5, metric)
        assert _ids(hits) == [id for id, _ in expected]
        assert [hit.score for hit in hits] == pytest.approx([s for _, s in expected], abs=1e-4)
    assert hits[0].text == f"thing number {hits[0].id[1:]}"


@pytest.mark.parametrize("metric", ["cosine", "inner", "l2"])
def test_a_matrix_of_queries_is_answered_as_its_rows_are(
    opened: Callable[..., AnyStore], metric: str
) -> None:
    store = opened(metric=metric)
    store.upsert([thing(n, even=n % 2 == 0) for n in range(30)])
    store.delete(["t7"])
    queries = np.stack([vector(seed) for seed in range(100, 140)])
    for options in ({}, {"filter": {"even": True}}, {"namespace": "none"}):
        many = store.query_many(queries, 4, **options)
        assert len(many) == len(queries)
        for query, hits in zip(queries, many, strict=True):
            one = store.query(query, 4, **options)
            assert _ids(hits) == _ids(one)
            assert [h.score for h in hits] == pytest.approx([h.score for h in one], abs=1e-5)
    assert _ids(store.query_many(queries[0].tolist(), 2)[0]) == _ids(store.query(queries[0], 2))
    assert store.query_many([], 3) == []
    with pytest.raises(InputError, match=r"query 1: its vector has nan at 2"):
        store.query_many([vector(0), np.where(np.arange(DIMENSIONS) == 2, np.nan, 1.0)])
    with pytest.raises(InputError, match="query 0: its vector has 3 dimensions, the store has 8"):
        store.query_many(np.ones((2, 3)))
    with pytest.raises(InputError, match=r"the queries have the shape \(1, 1, 8\)"):
        store.query_many(vector(0)[None, None])
    for value in ([[1.0], [1.0, 2.0]], [["a"] * 8], None):
        with pytest.raises(InputError, match="the queries are not a matrix of numbers"):
            store.query_many(value)  # type: ignore[arg-type]


def test_a_write_is_visible_immediately(store: AnyStore) -> None:
    for n in range(12):
        store.upsert([thing(n)])
        assert _ids(store.query(vector(n), 1)) == [f"t{n}"]
    store.upsert([Item("t3", "moved", {}, vector(50))])
    assert _ids(store.query(vector(50), 1)) == ["t3"]
    assert store.query(vector(50), 1)[0].text == "moved"
    assert _ids(store.query(vector(3), 1)) != ["t3"]
    store.delete(["t3"])
    assert "t3" not in _ids(store.query(vector(50), 12))
    assert len(store.query(vector(50), 12)) == 11


def test_filters(store: AnyStore) -> None:
    store.upsert(THINGS)
    for filter in FILTERS:
        expected = {item.id for item in THINGS if matches(filter, item.metadata)}
        found = {hit.id for hit in store.query(vector(0), 10, filter=filter)}
        assert found == expected, filter
        assert {hit.id for hit in store.match("thing", 10, filter=filter)} == expected, filter


def test_a_filter_on_an_unknown_field_is_an_error(store: AnyStore) -> None:
    store.upsert(THINGS)
    with pytest.raises(InputError, match="no item has the field 'colour'"):
        store.query(vector(0), filter={"$or": [{"price": 1}, {"colour": "red"}]})
    with pytest.raises(InputError, match="colour"):
        store.delete(filter={"colour": "red"})
    with pytest.raises(InputError, match="colour"):
        store.match("thing", filter={"colour": "red"})
    assert store.namespaces() == {"": 10}


def test_the_error_of_a_malformed_filter_has_its_path(store: AnyStore) -> None:
    with pytest.raises(InputError, match=r"at \$or\[1\]\.price\.\$in\[0\]"):
        store.query(vector(0), filter={"$or": [{"a": 1}, {"price": {"$in": [[]]}}]})


def test_namespaces_are_separate(store: AnyStore) -> None:
    store.upsert([thing(1, a=1), thing(2, a=1)], namespace="one")
    store.upsert([Item("t1", "other words", {"b": 2}, vector(9))], namespace="two")
    assert store.namespaces() == {"one": 2, "two": 1}
    assert store.fetch(["t1"], namespace="two")["t1"].text == "other words"
    assert _ids(store.query(vector(1), 5, namespace="two")) == ["t1"]
    assert store.match("other", 5, namespace="one") == []
    with pytest.raises(InputError, match="no item has the field 'b'"):
        store.query(vector(1), filter={"b": 2}, namespace="one")
    assert store.delete(["t1"], namespace="one") == 1
    assert "t1" in store.fetch(["t1"], namespace="two")
    assert store.drop("two") == 1
    assert store.drop("two") == 0
    assert store.namespaces() == {"one": 1}
    store.upsert([thing(1)], namespace="two")
    assert store.namespaces() == {"one": 1, "two": 1}
    described = store.describe()
    assert (described.dimensions, described.metric, described.items) == (8, "cosine", 2)
    assert {name: one.items for name, one in described.namespaces.items()} == store.namespaces()
    assert store.match("other", 5, namespace="two") == []


def test_a_namespace_dropped_through_another_handle_is_created_again(
    opened: Callable[..., AnyStore],
) -> None:
    first, second = opened(), opened()
    first.upsert([thing(1)], namespace="one")
    assert second.drop("one") == 1
    first.upsert([thing(2)], namespace="one")
    assert second.namespaces() == {"one": 1}
    assert _ids(second.query(vector(2), 5, namespace="one")) == ["t2"]


def test_delete_by_id_and_by_filter(store: AnyStore) -> None:
    store.upsert(THINGS)
    assert store.delete(["t0", "t0", "nope"]) == 1
    assert store.delete(filter={"brand": "bolt"}) == 2
    assert store.delete(filter={"brand": "acme", "price": {"$gt": 100}}) == 0
    assert store.namespaces() == {"": 7}
    assert not {"t0", "t2", "t3"} & {hit.id for hit in store.query(vector(0), 10)}
    assert not {"t0", "t2", "t3"} & {hit.id for hit in store.match("thing", 10)}
    for wrong in ({}, {"ids": ["t1"], "filter": {"a": 1}}):
        with pytest.raises(InputError, match="ids or a filter"):
            store.delete(**wrong)
    with pytest.raises(InputError, match="give a list of ids"):
        store.delete("t1")


def test_update_changes_only_the_given_fields(store: AnyStore) -> None:
    store.upsert(THINGS)
    store.update("t0", metadata={"price": 11, "new": None})
    after = store.fetch(["t0"], vectors=True)["t0"]
    assert after.metadata == {"price": 11, "brand": "acme", "tags": ["red", "small"]}
    assert after.text == THINGS[0].text
    assert np.array_equal(after.vector, THINGS[0].vector)
    assert _ids(store.query(vector(0), 1, filter={"price": 11})) == ["t0"]
    assert "t0" not in {hit.id for hit in store.query(vector(0), 10, filter={"new": True})}
    store.update("t0", text="a lamp", vector=vector(77))
    assert _ids(store.match("lamp", 1)) == ["t0"]
    assert _ids(store.query(vector(77), 1)) == ["t0"]
    with pytest.raises(InputError, match="no item 'nope'"):
        store.update("nope", text="x")


def test_list_continues_after_an_id(store: AnyStore) -> None:
    ids = ["a%1", "a%2", "ab1", "b", "é"]
    store.upsert([Item(id, "", {}, vector(n)) for n, id in enumerate(ids)])
    assert list(store.list()) == sorted(ids)
    assert list(store.list("a%")) == ["a%1", "a%2"]
    assert list(store.list(limit=2)) == ["a%1", "a%2"]
    assert list(store.list(after="a%2", limit=2)) == ["ab1", "b"]
    assert list(store.list("a", after="a%2")) == ["ab1"]
    assert list(store.list(namespace="nope")) == []


def test_match_finds_texts_by_words(store: AnyStore) -> None:
    texts = ["The XR-2000B runs hot", "running shoes", "a red lamp", "Café lamp, red and blue"]
    store.upsert([Item(str(n), text, {}, vector(n)) for n, text in enumerate(texts)])
    assert _ids(store.match("xr-2000b", 3)) == ["0"]
    assert _ids(store.match("shoes runs", 3)) in (["0", "1"], ["1", "0"])
    assert _ids(store.match("blue lamp", 3)) == ["3", "2"]
    assert _ids(store.match("CAFÉ", 3)) == ["3"]
    hits = store.match("red lamp", 4, marks=("<", ">"))
    assert all("<red>" in hit.highlight and "<lamp" in hit.highlight for hit in hits)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0
    for nothing in ("", "  ", '"', "—", "(", "NEAR", "zzz", "\x00", "*"):
        assert store.match(nothing, 3) == []


def test_an_empty_store_and_more_results_than_items(store: AnyStore) -> None:
    assert store.query(vector(0), 5) == []
    assert store.query(vector(0), 5, filter={"a": 1}) == []
    assert store.match("thing", 5) == []
    assert store.namespaces() == {}
    assert list(store.items()) == []
    assert store.delete(["t1"]) == 0
    assert store.delete(filter={"a": 1}) == 0
    store.upsert([])
    assert store.query(vector(0), 5) == []
    store.upsert([thing(1), thing(2)])
    assert len(store.query(vector(0), 10_000)) == 2
    assert len(store.match("thing", 10_000)) == 2


def _with(vector_: Any) -> Item:
    return Item("bad", "", {}, vector_)


LOOP: list[Any] = []
LOOP.append(LOOP)

BAD = {
    "width": (_with(np.ones(3, np.float32)), "item 'bad'.*3 dimensions, the store has 8"),
    "shape": (_with(np.ones((1, 8), np.float32)), "the shape"),
    "nan": (_with(np.full(DIMENSIONS, np.nan)), "has nan at 0"),
    "infinite": (_with([0, 1, np.inf, 0, 0, 0, 0, 0]), "has inf at 2"),
    "overflow": (_with([1e39] + [0] * 7), "finite"),
    "long": (_with([3e38] * 8), "overflows float32"),
    "zero": (_with(np.zeros(DIMENSIONS)), "zero, so its cosine is undefined"),
    "words": (_with(["a"] * 8), "not numeric"),
    "ragged": (_with([[1], [1, 2]]), "not numeric"),
    "none": (Item("bad", "", {}), "no vector"),
    "twice": (thing(0), "'t0' occurs twice"),
    "no id": (Item("", "", {}, vector(0)), "empty id"),
    "number id": (Item(7, "", {}, vector(0)), "is a int, not a string"),  # type: ignore[arg-type]
    "long id": (Item("x" * 600, "", {}, vector(0)), "at most 512"),
    "half id": (Item("\ud800", "", {}, vector(0)), "not valid Unicode"),
    "nul id": (Item("a\x00", "", {}, vector(0)), "NUL"),
    "text": (Item("bad", None, {}, vector(0)), "its text is a NoneType"),  # type: ignore[arg-type]
    "half text": (Item("bad", "\udc80", {}, vector(0)), "not valid Unicode"),
    "list metadata": (Item("bad", "", [1], vector(0)), "not an object"),  # type: ignore[arg-type]
    "set": (thing(99, a={"b": [1, {2}]}), r"not JSON at a\.b\[1\]: a set"),
    "nan inside": (thing(99, a=[1.0, float("nan")]), r"not JSON at a\[1\]: nan"),
    "key": (thing(99, a={1: 2}), r"not JSON at a: key 1"),
    "loop": (thing(99, a=LOOP), "not JSON"),
    "large": (thing(99, a="x" * 50_000), "50,008 bytes.*at most 40,960"),
}


def test_an_invalid_item_is_named_and_nothing_is_written(store: AnyStore) -> None:
    for item, message in BAD.values():
        with pytest.raises(InputError, match=message):
            store.upsert([thing(0), item])
    assert list(store.items()) == []


def test_invalid_queries(store: AnyStore) -> None:
    store.upsert(THINGS)
    for bad, message in (
        (np.ones(3), "the query.*3 dimensions"),
        (np.full(DIMENSIONS, np.nan), "the query.*nan"),
        (np.zeros(DIMENSIONS), "cosine is undefined"),
        ("text", "not numeric"),
    ):
        with pytest.raises(InputError, match=message):
            store.query(bad)
    for k in (0, -1, 10_001, 2.5, True, None):
        with pytest.raises(InputError, match="top_k is"):
            store.query(vector(0), k)
        with pytest.raises(InputError, match="top_k is"):
            store.match("thing", k)


def test_settings_are_stored(opened: Callable[..., AnyStore]) -> None:
    store = opened()
    store.remember(encoder="abc", source="here")
    store.remember(encoder="abcd")
    assert store.settings["encoder"] == "abcd"
    assert store.settings["source"] == "here"
    assert store.settings["dimensions"] == DIMENSIONS
    assert store.namespaces() == {}
    store.close()
    again = opened(dimensions=None)
    assert again.settings["encoder"] == "abcd"
    with pytest.raises(InputError, match="8 dimensions with metric cosine, not 9"):
        opened(dimensions=9)
