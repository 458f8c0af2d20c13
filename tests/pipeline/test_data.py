"""The inputs of a run, read from several files."""

from __future__ import annotations

from pathlib import Path

import pytest

from idiolect.errors import InputError
from idiolect.pipeline.data import Data
from idiolect.pipeline.settings import DataSettings
from pipeline.shop import write


def test_several_files_may_judge_one_query(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"id": "a", "text": "a lamp"}\n')
    (tmp_path / "day1.tsv").write_text("query-id\tcorpus-id\nq\ta\nq\tb\n")
    (tmp_path / "day2.tsv").write_text("query-id\tcorpus-id\tscore\nq\tc\t2\nr\ta\t1\n")
    settings = DataSettings(items="items.jsonl", qrels="day*.tsv", similar="day*.tsv")
    data = Data(settings, tmp_path)
    assert data.qrels == {"q": {"a": 1.0, "b": 1.0, "c": 2.0}, "r": {"a": 1.0}} == data.similar


def test_pairs_of_ids_name_the_item_that_the_catalogue_lacks(tmp_path: Path) -> None:
    """Also if it is in the first pair; its id is not taken for a text, and so all ids for texts."""
    write(tmp_path / "items.jsonl", [{"id": f"p{n}", "text": f"lamp {n}"} for n in range(5)])
    known = [{"query": f"q{n}", "document": f"p{n}"} for n in range(5)]
    write(tmp_path / "pairs.jsonl", known)
    data = Data(DataSettings(items="items.jsonl", pairs="pairs.jsonl"), tmp_path)
    assert data.pairs()[0].document == "lamp 0"
    write(tmp_path / "pairs.jsonl", [{"query": "q", "document": "gone"}, *known])
    with pytest.raises(InputError, match="no document has the id 'gone'"):
        data.pairs()
    write(tmp_path / "pairs.jsonl", [known[0], *[{"query": "q", "document": "a pump"}] * 2])
    assert [pair.document for pair in data.pairs()] == ["p0", "a pump", "a pump"]
