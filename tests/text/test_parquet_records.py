"""Parquet: every type is converted, or its column is named; and everything is read back."""

from __future__ import annotations

import datetime
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idiolect.encoding.pairs import read_texts
from idiolect.errors import InputError
from idiolect.search.item_files import read_items
from idiolect.search.metadata import encode_metadata
from idiolect.text.corpus import Corpus
from idiolect.text.records import read_records
from idiolect.text.skipped import Skipped

TEXTS = ["first", "日本語", None, "last"]
UTC = datetime.UTC


def _write(path: Path, **columns: pa.Array[Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def _column(path: Path, values: pa.Array[Any]) -> list[Any]:
    _write(path, x=values)
    return [record["x"] for record in read_records(path, Skipped())]


TEXT_TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int8(), pa.large_string()),
    pa.binary(),
    pa.large_binary(),
]


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_all_types_of_text(tmp_path: Path, kind: pa.DataType) -> None:
    cells = pa.array(TEXTS, pa.string()).cast(kind)
    path = _write(tmp_path / "a.parquet", id=pa.array([1, 2, 3, 4]), text=cells)
    expected = ["first", "日本語", "last"]
    assert list(Corpus(path)) == list(Corpus(path, "text")) == expected
    items = list(read_items([path], skipped=Counter()))
    assert [(item.id, item.text) for item in items] == [
        ("1", "first"), ("2", "日本語"), ("4", "last"),
    ]  # fmt: skip
    assert read_texts(path)["3"] == ""


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([1, None]), [1, None]),
        (pa.array([2**63], pa.uint64()), [2**63]),
        (pa.array([True, None]), [True, None]),
        (pa.array([1.5, float("nan"), None]), [1.5, None, None]),
        (pa.array([0.5], pa.float16()), [0.5]),
        (pa.nulls(1), [None]),
        (pa.array([Decimal("12.50"), None]), [12.5, None]),
        (pa.array([Decimal(10**21 + 1)]), [10**21 + 1]),
        (pa.array([Decimal("1234567890123456.78")]), ["1234567890123456.78"]),
        (pa.array([datetime.date(2024, 2, 29), None]), ["2024-02-29", None]),
        (pa.array([datetime.time(1, 2, 3)]), ["01:02:03"]),
        (pa.array([datetime.datetime(2024, 1, 2, 3, 4)]), ["2024-01-02T03:04:00"]),
        (
            pa.array([datetime.datetime(2024, 1, 2, tzinfo=UTC)], pa.timestamp("ms", "UTC")),
            ["2024-01-02T00:00:00+00:00"],
        ),
        (pa.array([1_000], pa.timestamp("ns")), ["1970-01-01T00:00:00.000001"]),
        (pa.array([1, None], pa.timestamp("ns")), ["1970-01-01T00:00:00.000000001", None]),
        (pa.array([datetime.timedelta(minutes=2)]), [120.0]),
        (pa.array([["a", None], [], None]), [["a", None], [], None]),
        (pa.array([["a"]], pa.large_list(pa.string())), [["a"]]),
        (pa.array([{"a": {"b": datetime.date(2024, 1, 1)}}]), [{"a": {"b": "2024-01-01"}}]),
        (pa.array([[("k", 1.0)]], pa.map_(pa.string(), pa.float64())), [{"k": 1.0}]),
        (pa.array([[1.0, float("nan")]]), [[1.0, None]]),
        (pa.array([b"text"]), ["text"]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_conversions(tmp_path: Path, values: pa.Array[Any], expected: list[Any]) -> None:
    assert _column(tmp_path / "a.parquet", values) == expected
    ids = pa.array([str(n) for n in range(len(values))])
    path = _write(tmp_path / "b.parquet", id=ids, text=ids, x=values)
    for item in read_items([path], skipped=Counter()):
        encode_metadata([item])


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    column = pa.array([b"\x89PNG\xff"])
    path = _write(tmp_path / "a.parquet", id=pa.array(["1"]), text=pa.array(["a"]), image=column)
    with pytest.raises(InputError, match="the column image holds bytes that are not UTF-8"):
        list(read_items([path], skipped=Counter()))
    assert list(Corpus(path)) == ["a"], "other columns are not read"


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([1.0, float("nan"), 3.0]), ["1", "3"]),
        (pa.array([1.0, None, 3.0]), ["1", "3"]),
        (pa.array([7, None, 9]), ["7", "9"]),
        (pa.array([10**15 + 1, None, 9], pa.float64()), ["1000000000000001", "9"]),
        (pa.array(["007", "", "9"]), ["007", "9"]),
        (pa.array(["007", None, "9"]).dictionary_encode(), ["007", "9"]),
    ],
)
def test_ids(tmp_path: Path, ids: pa.Array[Any], expected: list[str]) -> None:
    path = _write(tmp_path / "a.parquet", id=ids, text=pa.array(["a", "b", "c"]))
    skipped = Skipped()
    assert [item.id for item in read_items([path], skipped=skipped)] == expected
    assert skipped == {"no id": 1}
    assert skipped.places == {"no id": ["a.parquet row 2"]}


def test_a_text_is_never_guessed_to_be_the_id(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.parquet", text=pa.array(["a", "b"]), label=pa.array([0, 1]))
    with pytest.raises(InputError, match=r"which field holds the id\? There are text, label"):
        list(read_items([path], skipped=Counter()))
    keyed = _write(tmp_path / "b.parquet", key=pa.array(["a", "b"]), n=pa.array([0, 1]))
    with pytest.raises(InputError, match="which field holds the id"):
        list(read_items([keyed], fields=["key"], skipped=Counter()))
    nulls = _write(tmp_path / "c.parquet", id=pa.nulls(2), sku=pa.array([1, 2]), text=["a", "b"])
    assert [item.id for item in read_items([nulls], skipped=Counter())] == ["1", "2"]


def test_a_text_column_of_lists_is_an_error(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.parquet", id=pa.array([1]), text=pa.array([["a", "b"]]))
    with pytest.raises(InputError, match="which field holds the text"):
        list(read_items([path], skipped=Counter()))
    with pytest.raises(InputError, match=r"no items in .*1 no field \(a.parquet row 1\)"):
        list(read_items([path], fields=["text"], skipped=Counter()))
    with pytest.raises(InputError, match="no documents"):
        list(Corpus(path, "text"))


def test_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.table([pa.array(["1"]), pa.array(["a"]), pa.array(["b"])], ["id", "text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="several columns text"):
        list(read_records(tmp_path / "a.parquet", Skipped()))


_VALUES = st.one_of(
    st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])), min_size=3, max_size=3),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3),
    st.lists(st.none() | st.floats(allow_nan=False), min_size=3, max_size=3),
    st.lists(st.none() | st.booleans(), min_size=3, max_size=3),
    st.lists(st.none() | st.lists(st.integers(0, 9)), min_size=3, max_size=3),
)


@given(st.dictionaries(st.text("ab. ", min_size=1, max_size=3), _VALUES, min_size=1, max_size=4))
@settings(deadline=None, max_examples=50)
def test_any_table_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, columns: dict[str, list[Any]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "table.parquet"
    pq.write_table(pa.table(columns), path)
    expected = [{name: values[n] for name, values in columns.items()} for n in range(3)]
    assert list(read_records(path, Skipped())) == expected
