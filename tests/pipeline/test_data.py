"""The inputs of a run, read from several files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from idiolect.errors import InputError
from idiolect.pipeline.data import Data
from idiolect.pipeline.settings import DataSettings
from idiolect.pipeline.system_runs import SystemRuns
from idiolect.pipeline.systems import MeasuredSystem
from idiolect.ranking.evaluation.judged_collection import JudgedCollection
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


def test_judgements_that_cannot_be_used_are_reported_before_any_work(tmp_path: Path) -> None:
    """Not in the last stage, after hours of training."""
    write(tmp_path / "items.jsonl", [{"id": "a", "text": "a lamp"}])
    write(tmp_path / "queries.jsonl", [{"id": "q", "text": "light"}])
    settings = DataSettings(items="items.jsonl", queries="queries.jsonl", qrels="qrels.tsv")
    for row, message in (
        ("q\tother\t1", r"data\.qrels: no judgement names an existing query"),
        ("q\ta\t0", r"data\.qrels: no query has a relevant item"),
    ):
        (tmp_path / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{row}\n")
        with pytest.raises(InputError, match=message):
            Data(settings, tmp_path).check()
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t0.1\n")
    Data(settings, tmp_path).check()


def test_grades_may_be_fractions() -> None:
    """ESCI's gains are 1, 0.1 and 0.01. A query without a grade of 1 is evaluated like any other.

    It was left out of the metrics, but not of the queries that training has not seen.
    """
    texts = {"a": "a lamp", "b": "a pump"}
    grades = {"q": {"a": 1.0}, "r": {"b": 0.1, "a": 0.0}}
    collection = JudgedCollection.join(texts, {"q": "lamp", "r": "pump"}, grades)
    work: Any = SimpleNamespace(data=SimpleNamespace(texts=texts), systems=())
    runs = SystemRuns(work, collection, None, seen={"a"})
    bm25 = MeasuredSystem(name="bm25", label="BM25", by="bm25")
    runs.add(bm25)
    assert list(runs.values["search"]["bm25"].per_query["ndcg@10"]) == ["q", "r"]
    figures = runs.figures(bm25)
    assert figures["unseen"]["search"]["recall@100"] == 1
