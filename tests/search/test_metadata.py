"""Metadata: what is stored in which form, what is refused or left out, and what has changed."""

from __future__ import annotations

import datetime
import enum
import json
import logging
import math
import uuid
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idiolect.errors import InputError
from idiolect.search.index import Index
from idiolect.search.items import Item
from idiolect.search.metadata import encode_metadata, same_metadata
from idiolect.search.store.store import Store
from search.words import Words


class Colour(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    LARGE = 3


class Name(enum.StrEnum):
    ACME = "acme"


def _words() -> Any:
    return Words()


def _stored(value: Any) -> Any:
    return encode_metadata([Item("i", "t", {"f": value})])[0][0].metadata["f"]


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (np.int64(3), 3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.longdouble(1.5), 1.5),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.datetime64("2024-05-01"), "2024-05-01"),
        (np.datetime64("2024-05-01T00:00:00.000000001"), "2024-05-01T00:00:00.000000001"),
        (np.array([1, 2]), [1, 2]),
        (np.array(5), 5),
        (np.array([[0.5], [1.5]]), [[0.5], [1.5]]),
        (datetime.date(2024, 5, 1), "2024-05-01"),
        (datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC), "2024-05-01T00:00:00+00:00"),
        (datetime.time(3), "03:00:00"),
        (Decimal("19.90"), 19.9),
        (Decimal("1234567890123456789012"), 1234567890123456789012),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (PurePosixPath("/a/b"), "/a/b"),
        (Colour.RED, "red"),
        (Size.LARGE, 3),
        (Name.ACME, "acme"),
        ((1, (2, 3)), [1, [2, 3]]),
        (2**70, 2**70),
        ("a\x00b", "a\x00b"),
        ({"": None, "b.c": [True, 1, 1.0, "1"]}, {"": None, "b.c": [True, 1, 1.0, "1"]}),
    ],
    ids=repr,
)  # fmt: skip
def test_values_with_a_json_form(value: Any, stored: Any) -> None:
    found = _stored(value)
    assert repr(found) == repr(stored)  # 1, 1.0 and True have different texts
    assert json.loads(json.dumps(found)) == stored


LOOP: list[Any] = []
LOOP += [LOOP, LOOP]
DEEP: Any = 1
for _ in range(5000):
    DEEP = [DEEP]

REFUSED = {
    "nan": (math.nan, "f: nan"),
    "infinity": (-math.inf, "f: -inf"),
    "numpy nan": (np.float32("nan"), "f: nan"),
    "inner nan": ({"a": [1.0, math.nan]}, r"f\.a\[1\]: nan"),
    "nan in an array": (np.array([0.0, np.nan]), r"f\[1\]: nan"),
    "no time": (np.datetime64("NaT"), "f: a datetime64"),
    "numpy time delta": (np.timedelta64(3, "s"), "f: a timedelta64"),
    "time delta": (datetime.timedelta(1), "f: a timedelta"),
    "bytes": (b"raw", "f: a bytes"),
    "array of bytes": (np.array([b"raw"]), r"f\[0\]: a bytes"),
    "set": ({1}, "f: a set"),
    "complex": (1j, "f: a complex"),
    "fraction": (Fraction(1, 3), "f: a Fraction"),
    "long decimal": (Decimal("0.1234567890123456789012"), "f: a Decimal"),
    "decimal nan": (Decimal("NaN"), "f: a Decimal"),
    "object": (object(), "f: a object"),
    "huge integer": (10**5000, "f: a whole number of over 1,023 bits"),
    "half a character": ("\ud800", "f: text that is not valid Unicode"),
    "key": ({"a": {1: 2}}, r"f\.a: key 1"),
    "loop": (LOOP, "over 100 levels"),
    "deep": (DEEP, "over 100 levels"),
    "many": ([0] * 50_000, "40,960 values"),
    "long": ("x" * 50_000, "50,008 bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_values_without_one_are_refused_with_item_and_field(name: str) -> None:
    value, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as error:
        _stored(value)
    assert "item 'i'" in str(error.value)


def test_missing_values_of_pandas_are_refused() -> None:
    pandas = pytest.importorskip("pandas")
    assert _stored(pandas.Timestamp("2024-05-01")) == "2024-05-01T00:00:00"
    for missing in (pandas.NA, pandas.NaT, pandas.Timedelta(1)):
        with pytest.raises(InputError, match=r"item 'i'.* at f: a "):
            _stored(missing)


def test_fields_that_cannot_be_stored_are_left_out_and_counted() -> None:
    left_out = Counter[str]()
    items = [
        Item("a", "", {"price": math.nan, "brand": "acme"}),
        Item("b", "", {"price": math.nan, 7: 1, "tags": ["x", b"raw"]}),  # type: ignore[dict-item]
    ]
    kept, texts = encode_metadata(items, left_out)
    assert [item.metadata for item in kept] == [{"brand": "acme"}, {}]
    assert texts == ['{"brand":"acme"}', "{}"]
    assert left_out == {"price: nan": 2, "7: key 7": 1, "tags: a bytes": 1}


def test_what_is_the_same() -> None:
    assert same_metadata({"a": 1, "b": [1.5]}, {"b": [1.5], "a": 1})
    for first, second in (
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ([1], [True]),
        ({"x": 0}, {"x": False}),
    ):
        assert not same_metadata({"a": first}, {"a": second})
    assert not same_metadata({"a": None}, {})


@pytest.mark.parametrize(
    ("before", "after"),
    [(1, True), (True, 1), (1, 1.0), (0.0, -0.0), ([0], [False]), ({"x": 1}, {"x": True})],
)
def test_a_changed_type_is_written_and_an_equal_value_is_not(
    before: Any, after: Any, tmp_path: Path
) -> None:
    """Filters tell 1 from true, so it must not count as unchanged."""
    with Index.build(tmp_path / "index", _words(), [Item("a", "lamp", {"f": before})]) as index:
        changes = index.store.settings["changes"]
        assert dict(index.add([Item("a", "lamp", {"f": before})])) == {"unchanged": 1}
        assert dict(index.add([Item("a", "lamp", {"f": after})])) == {"written": 1}
        assert index.store.settings["changes"] > changes
        assert repr(index.store.fetch(["a"])["a"].metadata["f"]) == repr(after)
        assert dict(index.add([Item("a", "lamp", {"f": after})])) == {"unchanged": 1}
        assert len(index.encoder.encoded) == 1  # type: ignore[union-attr]


def test_equal_metadata_is_not_rewritten(tmp_path: Path) -> None:
    vector = np.ones(4, np.float32)
    with Store.open(tmp_path / "index", dimensions=4) as store:
        store.upsert([Item("a", "", {"x": 1, "y": 2}, vector)])
        store.upsert([Item("a", "", {"y": np.int64(2), "x": 1}, vector)])
        assert list(store.fetch(["a"])["a"].metadata) == ["x", "y"]  # the row is as it was
        store.upsert([Item("a", "", {"y": 2.0, "x": 1}, vector)])
        assert list(store.fetch(["a"])["a"].metadata) == ["y", "x"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_metadata_is_found_as_it_was_given_or_refused(tmp_path: Path) -> None:
    with Index.build(tmp_path / "index", _words(), []) as index:

        @settings(max_examples=80, deadline=None)
        @given(metadata=st.dictionaries(st.text(st.characters(codec=None), max_size=8), JSON))
        def check(metadata: dict[str, Any]) -> None:
            try:
                index.add([Item("a", "red lamp", metadata)])
            except InputError:
                return
            (hit,) = index.search("red lamp", 1)
            for found in (index.store.fetch(["a"])["a"].metadata, hit.metadata):
                assert same_metadata(found, metadata)
            assert dict(index.add([Item("a", "red lamp", metadata)])) == {"unchanged": 1}
            for name, value in metadata.items():
                if isinstance(value, str | bool | int | float) and not name.startswith("$"):
                    assert [one.id for one in index.search("lamp", filter={name: value})] == ["a"]

        check()
        assert isinstance(index.store, Store)
        assert list(index.store.verify()) == []


def test_an_index_leaves_out_what_cannot_be_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items = [
        Item("a", "red lamp", {"price": math.nan, "brand": "acme"}),
        Item("b", "blue lamp", {"price": 3, "age": datetime.timedelta(1)}),
    ]
    with pytest.raises(InputError, match=r"item 'a'.* at price: nan \(.*skip_invalid_metadata"):
        Index.build(tmp_path / "index", _words(), items)
    caplog.set_level(logging.WARNING)
    options: Any = {"skip_invalid_metadata": True}
    with Index.build(tmp_path / "index", _words(), items, **options) as index:
        assert dict(index.counts) == {"written": 2, "left_out": 2}
        assert index.store.fetch(["a", "b"])["a"].metadata == {"brand": "acme"}
        assert index.store.fetch(["b"])["b"].metadata == {"price": 3}
        assert dict(index.add(items, **options)) == {"unchanged": 2, "left_out": 2}
    assert "left out 2 metadata fields" in caplog.text
    assert "price: nan (1)" in caplog.text


def test_plain_metadata_is_encoded_as_json_does() -> None:
    """Plain objects have an encoder of their own; it must agree with the module `json`."""
    plain: list[dict[str, Any]] = [
        {},
        {"a": 'x\n"\\\x7f\u2028', "ü": "日本", "n": -0.0, "e": 1e-300, "big": 2**62},
        {"yes": True, "no": False, "f": 1.0, "i": 10**18, 'q"': ""},
    ]
    _, texts = encode_metadata([Item("a", "", one) for one in plain])
    expected = [json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in plain]
    assert texts == expected
