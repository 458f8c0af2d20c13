"""Reading items from files: text fields and metadata fields."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idiolect.errors import InputError
from idiolect.search.item_files import read_items
from idiolect.search.items import Item
from idiolect.text.skipped import Skipped


def test_the_fields_of_a_metadata_object_are_metadata(tmp_path: Path) -> None:
    record = {
        "id": "svd",
        "text": "decompose a matrix",
        "pages": 3,
        "metadata": {"package": "scipy", "text": "never the text", "pages": 4, "none": None},
    }
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps(record))
    (item,) = read_items([path], skipped=Counter())
    assert item == Item("svd", "decompose a matrix", {"pages": 3, "package": "scipy"})
    (chosen,) = read_items([path], metadata=["metadata"], skipped=Counter())
    assert chosen.metadata == {"metadata": record["metadata"]}


def test_an_export_is_read_again(tmp_path: Path) -> None:
    from idiolect.search.index import Index
    from idiolect.search.store.export import write_jsonl, write_parquet

    items = [Item("a", "lamp", {"price": 3, "tags": ["x"]}, np.ones(2, np.float32))]
    with Index.build(tmp_path / "index", None, items) as index:
        list(write_jsonl(index.store, tmp_path / "a.jsonl"))
        list(write_parquet(index.store, tmp_path / "a.parquet"))
    for name in ("a.jsonl", "a.parquet"):
        (item,) = read_items(tmp_path / name, vectors="vector", skipped=Counter())
        assert item == Item("a", "lamp", {"price": 3, "tags": ["x"], "namespace": ""})
        assert item.vector is not None
        assert item.vector.tolist() == [1.0, 1.0]
    for odd in ("{", "[1]", "{]", "plain"):
        (item,) = _items(tmp_path / "b.jsonl", json.dumps({"id": 1, "text": "a", "metadata": odd}))
        assert item.metadata == {"metadata": odd}


def _items(path: Path, text: str, **options: Any) -> list[Item]:
    path.write_text(text)
    return list(read_items([path], skipped=Counter(), **options))


def test_a_column_of_all_files_has_one_type(tmp_path: Path) -> None:
    rows = "".join(f"{n},a,10001,{n}.5,true,2E10,{n}\n" for n in range(1500))
    header = "id,text,zip,price,new,code,count\n"
    (tmp_path / "a.csv").write_text(header + rows)
    (tmp_path / "b.tsv").write_text((header + "x,b,02139,3,False,A12,\n").replace(",", "\t"))
    items = list(read_items(tmp_path, skipped=Counter()))
    assert items[0].metadata == {
        "zip": "10001", "price": 0.5, "new": True, "code": "2E10", "count": 0,
    }  # fmt: skip
    assert items[-1].metadata == {"zip": "02139", "price": 3.0, "new": False, "code": "A12"}
    assert isinstance(items[-1].metadata["price"], float)


def test_a_deeply_nested_cell_is_text(tmp_path: Path) -> None:
    (item,) = _items(tmp_path / "a.csv", f"id,text,x\n1,a,{'[' * 100_000}\n")
    assert item.metadata == {"x": "[" * 100_000}


def test_nothing_is_yielded_before_all_is_checked(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1, "text": "a"}\n')
    (tmp_path / "b.jsonl").write_text('{"id": 2, "text": "b"}\n{"id": 3\n')
    with pytest.raises(InputError, match=r"b.jsonl: 1 of 2 lines .*1 malformed JSON"):
        read_items([tmp_path], skipped=Counter())
    skipped = Skipped()
    found = list(read_items([tmp_path], max_unreadable=0.5, skipped=skipped))
    assert [item.id for item in found] == ["1", "2"]
    assert skipped.places == {"malformed JSON": ["b.jsonl line 2"]}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "no items in .*there are no records"),
        ("a.csv", "id,text\n", "no items in .*there are no records"),
        ("a.jsonl", "\n\n", "no items in .*there are no records"),
        ("a.json", "[]", "no items in .*there are no records"),
        ("a.jsonl", '{"id": 1, "text": ["a", "b"]}', "which field holds the text"),
        ("a.jsonl", '{"id": 1, "text": ""}', r"no items in .*1 empty \(a.jsonl line 1\)"),
        ("a.jsonl", '{"id": NaN, "text": "a"}', "which field holds the id"),
        ("a.csv", "text\na\n", "which field holds the id"),
    ],
)
def test_no_items_are_an_error(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _items(tmp_path / name, text)


def test_an_empty_file_among_others_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,a\n")
    (tmp_path / "b.csv").write_text("")
    assert [item.id for item in read_items(tmp_path, skipped=Counter())] == ["1"]
    assert f"{tmp_path / 'b.csv'} has no items" in caplog.text


def test_each_file_may_have_another_id_field(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,a\n")
    (tmp_path / "b.csv").write_text("sku,text\n2,b\n")
    (tmp_path / "c.jsonl").write_text('{"id": null, "sku": 3, "text": "c"}')
    assert [item.id for item in read_items(tmp_path, skipped=Counter())] == ["1", "2", "3"]


def test_a_field_that_no_record_has_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _items(tmp_path / "a.csv", "id,title,text\n1,a,b\n", fields=["title", "txet"])
    assert "no record has the field txet; did you mean text?" in caplog.text
    _items(tmp_path / "a.csv", "id,title,text\n1,a,b\n", fields=["title", "colour"])
    assert "no record has the field colour; there are id, title, text" in caplog.text
