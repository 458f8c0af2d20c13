"""Vectors that come with the records of files: in a field, or in a `.npy` file."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idiolect.errors import InputError
from idiolect.search.item_files import read_items
from idiolect.search.items import Item
from idiolect.search.own_vectors import open_matrix, parse_vector
from idiolect.text.skipped import Skipped

VECTORS = [[1.0, 0.0, 0.5], [0.0, -1.0, 2.0], [3.0, 4.0, 5.0]]


def _read(*paths: Path, **options: Any) -> list[Item]:
    return list(read_items(list(paths), skipped=Skipped(), **options))


def _jsonl(path: Path, records: list[Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def _vectors(items: list[Item]) -> list[Any]:
    assert all(item.vector is None or item.vector.dtype == np.float32 for item in items)
    return [None if item.vector is None else item.vector.tolist() for item in items]


def test_a_field_of_each_type_of_file_holds_the_vectors(tmp_path: Path) -> None:
    records = [{"id": n, "text": "lamp", "own": own, "n": n} for n, own in enumerate(VECTORS)]
    lines = "".join(f'{n},lamp,"{own}",{n}\n' for n, own in enumerate(VECTORS))
    (tmp_path / "a.csv").write_text(f"id,text,own,n\n{lines}")
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    _jsonl(tmp_path / "a.jsonl", records)
    for name in ("a.csv", "a.parquet", "a.jsonl"):
        items = _read(tmp_path / name, vectors="own")
        assert _vectors(items) == VECTORS
        assert items[2] == Item("2", "lamp", {"n": 2})


def test_the_rows_of_a_matrix_belong_to_the_records_in_their_order(tmp_path: Path) -> None:
    first = _jsonl(tmp_path / "a.jsonl", [{"id": "a", "text": "lamp"}, {"text": "no id"}])
    second = _jsonl(tmp_path / "b.jsonl", [{"id": "c"}])
    for kind, order in ((np.float64, "C"), (">f4", "F"), (np.float16, "F"), (np.int8, "C")):
        np.save(tmp_path / "own.npy", np.asarray(VECTORS, kind, order=order))  # type: ignore[call-overload]
        skipped = Skipped()
        found = list(read_items([first, second], vectors=tmp_path / "own.npy", skipped=skipped))
        assert [item.id for item in found] == ["a", "c"]
        whole = np.asarray(VECTORS, kind).astype(float).tolist()
        assert _vectors(found) == [whole[0], whole[2]]
        assert skipped == {"no id": 1}
    for rows in (2, 4):
        np.save(tmp_path / "own.npy", np.ones((rows, 3)))
        with pytest.raises(InputError, match=rf"own.npy has {rows} rows, but there are 3 records"):
            _read(first, second, vectors=tmp_path / "own.npy")
    first.write_text('{"id": "a", "text": "lamp"}\n{"id"')
    with pytest.raises(InputError, match="1 malformed JSON"):
        _read(first, second, vectors=tmp_path / "own.npy", max_unreadable=1)


def test_a_record_may_have_a_vector_or_a_text(tmp_path: Path) -> None:
    records = [{"id": 1, "own": [1, 2]}, {"id": 2, "text": "lamp", "own": None}, {"id": 3}]
    skipped = Skipped()
    path = _jsonl(tmp_path / "a.jsonl", records)
    items = list(read_items([path], vectors="own", skipped=skipped))
    assert items == [Item("1", ""), Item("2", "lamp")]
    assert _vectors(items) == [[1.0, 2.0], None]
    assert skipped == {"no field": 1}
    with pytest.raises(InputError, match="no record has a vector in the field owm"):
        _read(path, vectors="owm")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "a.jsonl line 2: its vector has 2 numbers, the first has 3"),
        ([1, float("nan"), 2], "a.jsonl line 2: its vector has NaN or null at 1"),
        ([1, 2, 1e300], "a.jsonl line 2: its vector has 1e"),
        ("[1, 2, Infinity]", "a.jsonl line 2: its vector has inf at 2"),
        ("[1, 2", "a.jsonl line 2: its vector is not a list of numbers"),
        ("[" * 100_000, "a.jsonl line 2: its vector is not a list of numbers"),
        ([1, 2, 10**400], "not a list of numbers"),
        ([1, "2", 3], "not a list of numbers"),
        ([True, False, True], "not a list of numbers"),
        ([[1, 2, 3]], "not a list of numbers"),
        ([[1], [2, 3]], "not a list of numbers"),
        ([], "not a list of numbers"),
        ({"values": [1, 2, 3]}, "not a list of numbers"),
        (7, "not a list of numbers"),
    ],
)
def test_an_invalid_vector_is_named_by_its_line(tmp_path: Path, value: Any, message: str) -> None:
    records = [{"id": 1, "own": [1, 2, 3]}, {"id": 2, "own": value}]
    with pytest.raises(InputError, match=message):
        read_items([_jsonl(tmp_path / "a.jsonl", records)], vectors="own", skipped=Skipped())


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(3), r"type float64 and the shape \(3,\)"),
        (np.ones((0, 3)), r"the shape \(0, 3\)"),
        (np.ones((2, 3), complex), "type complex128"),
        (np.array([["a", "b"]]), "type <U1"),
        (np.ones((2, 3), bool), "type bool"),
        (np.array([[1, np.nan], [2, 3]]), "row 0 has nan at 1"),
        (np.array([[1, 2], [3, 1e300]]), r"row 1 has 1e\+300 at 1"),
    ],
)
def test_a_matrix_of_another_kind_is_refused(tmp_path: Path, array: Any, message: str) -> None:
    np.save(tmp_path / "own.npy", array)
    with pytest.raises(InputError, match=message):
        open_matrix(tmp_path / "own.npy")


class _Trap:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('a pickle was executed')",)


def test_no_pickle_is_executed(tmp_path: Path) -> None:
    path = tmp_path / "own.npy"
    np.save(path, np.array([[_Trap()]]), allow_pickle=True)
    with pytest.raises(InputError, match=r"type object .*needs a matrix of numbers"):
        open_matrix(path)
    path.write_bytes(pickle.dumps(_Trap()))
    with pytest.raises(InputError, match="is not a file of NumPy"):
        open_matrix(path)


def test_a_missing_matrix_is_named_with_a_similar_one(tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", np.ones((1, 2)))
    with pytest.raises(InputError, match=r"no such file: .*did you mean .*vectors.npy\?"):
        open_matrix(tmp_path / "vector.npy")


def _saved(shape: tuple[int, int] = (3, 4)) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones(shape, np.float32))
    return file.getvalue()


_WHOLE = _saved()


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.integers(0, len(_WHOLE)).map(lambda size: _WHOLE[:size]),
        st.binary(max_size=20).map(lambda more: _WHOLE + more),
        st.tuples(st.integers(0, 127), st.binary(min_size=1, max_size=8)).map(
            lambda change: _WHOLE[: change[0]] + change[1] + _WHOLE[change[0] + len(change[1]) :]
        ),
        st.tuples(st.integers(), st.integers()).map(
            lambda shape: _WHOLE.replace(b"(3, 4)", str(shape).encode())
        ),
        st.text(max_size=40).map(lambda text: _WHOLE.replace(b"'<f4'", text.encode())),
    )
)
def test_damaged_files_are_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.npy"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        matrix = open_matrix(path)
        assert matrix.ndim == 2
        assert np.isfinite(np.asarray(matrix, np.float32)).all()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(_JSON | _JSON.map(json.dumps) | st.text(max_size=30))
def test_any_value_is_a_vector_or_one_clear_error(value: Any) -> None:
    with contextlib.suppress(InputError):
        vector = parse_vector(value, "line 1")
        assert vector.dtype == np.float32
        assert vector.ndim == 1
        assert len(vector)
        assert np.isfinite(vector).all()
