"""The inputs of a run, read from several files."""

from __future__ import annotations

from pathlib import Path

from idiolect.pipeline.data import Data
from idiolect.pipeline.settings import DataSettings


def test_several_files_may_judge_one_query(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"id": "a", "text": "a lamp"}\n')
    (tmp_path / "day1.tsv").write_text("query-id\tcorpus-id\nq\ta\nq\tb\n")
    (tmp_path / "day2.tsv").write_text("query-id\tcorpus-id\tscore\nq\tc\t2\nr\ta\t1\n")
    settings = DataSettings(items="items.jsonl", qrels="day*.tsv", similar="day*.tsv")
    data = Data(settings, tmp_path)
    assert data.qrels == {"q": {"a": 1.0, "b": 1.0, "c": 2.0}, "r": {"a": 1.0}} == data.similar
