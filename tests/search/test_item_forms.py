"""The forms of items: dicts, tuples, and tables of pandas and pyarrow."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from idiolect.errors import InputError
from idiolect.search.item_forms import as_items
from idiolect.search.items import Item

RECORDS = [
    {"id": 1, "title": "red lamp", "price": 20.0, "tags": ["a"], "vector": [1.0, 0.0]},
    {"id": 2, "title": "blue lamp", "price": None, "tags": [], "vector": [0.0, 1.0]},
    {"id": 3, "title": "chair", "price": 3.5, "tags": None, "vector": None},
]
ITEMS = [
    Item("1", "red lamp", {"price": 20.0, "tags": ["a"]}),
    Item("2", "blue lamp", {"tags": []}),
    Item("3", "chair", {"price": 3.5}),
]


class Named(NamedTuple):
    key: int
    text: str
    price: float


def _vectors(items: list[Item]) -> list[Any]:
    return [None if item.vector is None else np.asarray(item.vector).tolist() for item in items]


@pytest.mark.parametrize("table", [pd.DataFrame(RECORDS), pa.Table.from_pylist(RECORDS)])
def test_the_rows_of_a_table_are_items_without_its_missing_values(table: Any) -> None:
    items = list(as_items(table))
    assert items == ITEMS
    assert _vectors(items) == [[1.0, 0.0], [0.0, 1.0], None]


def test_a_named_index_holds_the_ids_of_a_frame() -> None:
    frame = pd.DataFrame(RECORDS).astype({"id": float}).set_index("id")
    assert list(as_items(frame)) == ITEMS
    with pytest.raises(InputError, match="item 1 has no id; there are text"):
        list(as_items(pd.DataFrame({"text": ["lamp"]})))


def test_tuples_are_items_in_the_order_of_their_fields() -> None:
    given = [
        ("a", "lamp"),
        (7, "chair", {"price": 1}),
        (np.int64(8), "table", None, [1.0, 0.0]),
        ("b", None, None, np.ones(2)),
        Named(9, "stool", 2.5),
    ]
    items = list(as_items(given))
    assert items == [
        Item("a", "lamp"),
        Item("7", "chair", {"price": 1}),
        Item("8", "table"),
        Item("b", ""),
        Item("9", "stool", {"price": 2.5}),
    ]
    assert _vectors(items) == [None, None, [1.0, 0.0], [1.0, 1.0], None]


def test_a_dict_with_a_vector_needs_no_text() -> None:
    (item,) = as_items([{"_id": 7.0, "vector": (1, 2), "metadata": {"a": 1}, "b": 2}])
    assert item == Item("7", "", {"a": 1, "b": 2})
    with pytest.raises(InputError, match="item 1 has no text; there are id, price"):
        list(as_items([{"id": 1, "price": 2}]))
