"""Ids, names, values and namespaces that real data has, on every kind of store."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pytest

from idiolect.errors import InputError
from idiolect.search.items import Item
from idiolect.search.store.any_store import AnyStore
from search.things import thing, vector

NAMES = ["a.b", 'q"x', "it's", "", "id", "text", "metadata", "k\\n", "k\nn", "k\x00", "[0]"]
TEXTS = ["a'b", 'a"b', "a\\b", "a\\nb", "a\nb", "%", "\u65e5\u672c", "\U0001f600", "a b ", "\x01"]


def _ids(items: Any) -> list[str]:
    return [item.id for item in items]


def test_fields_of_any_name_can_be_filtered(store: AnyStore) -> None:
    names = [*NAMES, "\u00e9", "e\u0301", "E\u0301"]  # equal to the eye, not to a filter
    store.upsert([Item(f"i{n}", "", {name: n}, vector(n)) for n, name in enumerate(names)])
    for n, name in enumerate(names):
        for condition in (n, {"$gte": n}, {"$in": [n, 99]}, {"$exists": True}):
            assert _ids(store.query(vector(0), 50, filter={name: condition})) == [f"i{n}"]


def test_ids_values_and_namespaces_may_hold_quotes_and_backslashes(store: AnyStore) -> None:
    items = [Item(text, "", {"f": text}, vector(n)) for n, text in enumerate(TEXTS)]
    spaces = ["", *TEXTS[:3]]
    for space in spaces:
        store.upsert(items, namespace=space)
    assert store.namespaces() == dict.fromkeys(sorted(spaces), len(TEXTS))
    for space in spaces[1:]:
        assert list(store.fetch(TEXTS, namespace=space)) == TEXTS
        assert sorted(_ids(store.items(namespace=space))) == sorted(TEXTS)
        assert list(store.list(namespace=space)) == sorted(TEXTS)
        for text in TEXTS:
            for condition in (text, {"$gte": text, "$lte": text}):
                found = store.query(vector(0), 50, filter={"f": condition}, namespace=space)
                assert _ids(found) == [text]
        assert store.delete(TEXTS[:4], namespace=space) == 4
        assert store.drop(space) == len(TEXTS) - 4
    assert store.namespaces() == {"": len(TEXTS)}


def test_filters_take_the_types_that_metadata_takes(store: AnyStore) -> None:
    day = datetime.date(2024, 5, 1)
    store.upsert(
        [
            thing(1, n=np.int64(7), price=np.float32(0.1), new=np.bool_(True), day=day),
            thing(2, n=True, price="0.1", new=1, day="2023-01-01"),
            thing(3, n=[7, "x", None]),
        ]
    )
    for given, ids in (
        ({"n": 7}, ["t1", "t3"]),
        ({"n": np.int32(7)}, ["t1", "t3"]),
        ({"n": True}, ["t2"]),
        ({"n": np.bool_(True)}, ["t2"]),
        ({"n": 1}, []),
        ({"n": "x"}, ["t3"]),
        ({"price": np.float32(0.1)}, ["t1"]),
        ({"price": {"$lt": np.float64(1)}}, ["t1"]),
        ({"price": {"$gte": "0"}}, ["t2"]),
        ({"new": 1}, ["t2"]),
        ({"day": day}, ["t1"]),
        ({"day": {"$gte": datetime.date(2023, 6, 1)}}, ["t1"]),
        ({"day": {"$lt": datetime.datetime(2023, 6, 1)}}, ["t2"]),
    ):
        assert sorted(_ids(store.query(vector(0), 9, filter=given))) == ids, given
    bad: Any
    for bad in (float("nan"), b"x", {1}, datetime.timedelta(1), 2**1024):
        with pytest.raises(InputError, match="filter: "):
            store.query(vector(0), filter={"n": bad})
    with pytest.raises(InputError, match="filter: 'n' occurs twice"):
        store.query(vector(0), filter='{"n": {"$gt": 1}, "n": {"$lt": 9}}')


def test_integers_of_64_bits_are_kept_exactly(store: AnyStore) -> None:
    numbers = {"t1": 2**63 - 1, "t2": -(2**63), "t3": 2**64 - 1, "t4": 2**53 + 1}
    store.upsert([thing(int(id[1:]), n=number) for id, number in numbers.items()])
    for id, number in numbers.items():
        assert store.fetch([id])[id].metadata == {"n": number}
        assert id in _ids(store.query(vector(0), 9, filter={"n": number}))
    try:
        store.upsert([thing(5, n=2**70)])
    except InputError as error:
        assert "item 't5': its metadata has a whole number of over 64 bits" in str(error)  # noqa: PT017
    else:
        assert store.fetch(["t5"])["t5"].metadata == {"n": 2**70}


def test_updated_metadata_is_converted_too(store: AnyStore) -> None:
    store.upsert([thing(1, price=1)])
    store.update("t1", metadata={"day": datetime.date(2024, 5, 1), "price": np.float64(2)})
    assert store.fetch(["t1"])["t1"].metadata == {"price": 2.0, "day": "2024-05-01"}
    assert _ids(store.query(vector(0), filter={"day": "2024-05-01", "price": 2})) == ["t1"]
    with pytest.raises(InputError, match="item 't1': its metadata is a list"):
        store.update("t1", metadata=["x"])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["\ud800", "a\x00", "x" * 600, 5, None])
def test_names_that_cannot_exist_are_refused_when_reading(store: AnyStore, name: Any) -> None:
    store.upsert([thing(1)])
    for read in (
        lambda: store.query(vector(0), namespace=name),
        lambda: store.match("thing", namespace=name),
        lambda: store.fetch(["t1"], namespace=name),
        lambda: list(store.items(namespace=name)),
        lambda: store.list(namespace=name),
        lambda: store.list(name),
        lambda: store.list(after=name),
        lambda: store.delete(["t1"], namespace=name),
        lambda: store.drop(name),
        lambda: store.update("t1", text="x", namespace=name),
        lambda: store.upsert([thing(2)], namespace=name),
    ):
        with pytest.raises(InputError, match=r"namespace|prefix|id"):
            read()
    assert store.namespaces() == {"": 1}
