"""Layouts of judgements and runs, faults that are told at once, and a run written and read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idiolect.errors import InputError
from idiolect.ranking.evaluation.judged_collection import JudgedCollection
from idiolect.ranking.evaluation.judgement_files import read_qrels, read_run, write_run
from idiolect.ranking.evaluation.metrics import evaluate, ranked

MATCHES = {"q1": {"d1": 1.0, "d2": 1.0}, "q2": {"d3": 1.0}}
GRADES = {"q1": {"d1": 2.0, "d2": 0.0}, "q2": {"d3": 1.0}}


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _lines(rows: list[tuple[object, ...]], separator: str) -> str:
    return "".join(separator.join(map(str, row)) + "\n" for row in rows)


PAIRS: list[tuple[object, ...]] = [("q1", "d1"), ("q1", "d2"), ("q2", "d3")]


@pytest.mark.parametrize(
    ("name", "separator"),
    [
        ("m.csv", ","),
        ("m.tsv", "\t"),
        ("m.txt", " "),
        ("m.txt", "\t"),
        ("m.txt", ","),
        ("m.txt", ";"),
        ("m.qrels", "   "),
    ],
)
@pytest.mark.parametrize(
    "header",
    [
        None,
        ("query-id", "corpus-id"),
        ("query_id", "product_id"),
        ("query", "document"),
        ("qid", "pid"),
        ("user_query", "sku"),
        ("Query", "DocID"),
    ],
)
def test_two_columns_are_matches(
    name: str, separator: str, header: tuple[str, str] | None, tmp_path: Path
) -> None:
    rows = PAIRS if header is None else [header, *PAIRS]
    assert read_qrels(_write(tmp_path / name, _lines(rows, separator))) == MATCHES


def test_matches_with_the_text_of_the_query(tmp_path: Path) -> None:
    for text in ("red lamp big\t7\nlamp\t8\n", "query\titem\nred lamp big\t7\nlamp\t8\n"):
        judged = read_qrels(_write(tmp_path / "m.tsv", text))
        assert judged == {"red lamp big": {"7": 1.0}, "lamp": {"8": 1.0}}
        assert JudgedCollection.join({"7": "x", "8": "y"}, None, judged).notes == ()


@pytest.mark.parametrize(
    ("name", "text", "judged"),
    [
        ("m.txt", "q1 d,1\nq1 d2\n", {"q1": {"d,1": 1.0, "d2": 1.0}}),
        ("m.txt", "red lamp,d1\nlamp,d2\n", {"red lamp": {"d1": 1.0}, "lamp": {"d2": 1.0}}),
        ("m.csv", "red lamp,d 1\nlamp,d2\n", {"red lamp": {"d 1": 1.0}, "lamp": {"d2": 1.0}}),
        ("m.csv", '"lamp, red",d1\n', {"lamp, red": {"d1": 1.0}}),
        ("m.csv", "q1\td1\n", {"q1": {"d1": 1.0}}),
        ("m.tsv", "lamp, red\td1\n", {"lamp, red": {"d1": 1.0}}),
        ("t.txt", "q1 1 d,1 2\nq1 0 d;2 0\n", {"q1": {"d,1": 2.0, "d;2": 0.0}}),
        ("t.txt", "q1\t0\td1\t2\nq1 0 d2 1\nq1 0 d3 0\n", {"q1": {"d1": 2, "d2": 1, "d3": 0}}),
        ("h.txt", '"query-id"\t"corpus-id"\n"q1"\t"d1"\n', {"q1": {"d1": 1.0}}),
        ("h.tsv", '24" monitor\td1\n"q\td2\n', {'24" monitor': {"d1": 1.0}, '"q': {"d2": 1.0}}),
    ],
)
def test_what_separates_the_columns(
    name: str, text: str, judged: dict[str, dict[str, float]], tmp_path: Path
) -> None:
    assert read_qrels(_write(tmp_path / name, text)) == judged


def test_matches_as_records(tmp_path: Path) -> None:
    lines = [json.dumps({"query": q, "doc_id": d}) for q, d in PAIRS]
    assert read_qrels(_write(tmp_path / "m.jsonl", "\n".join(lines))) == MATCHES
    table = pa.table({"query_id": [q for q, _ in PAIRS], "product": [d for _, d in PAIRS]})
    pq.write_table(table, tmp_path / "m.parquet")
    assert read_qrels(tmp_path / "m.parquet") == MATCHES
    labels = pa.table({"query_id": [1, 1], "doc_id": [2, 3], "label": [True, False]})
    pq.write_table(labels, tmp_path / "l.parquet")
    assert read_qrels(tmp_path / "l.parquet") == {"1": {"2": 1.0, "3": 0.0}}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("trec.txt", "q1 0 d1 2\nq1 0 d2 0\nq2 0 d3 1\n"),
        ("trec.txt", "\ufeffq1\t0\td1\t2\r\n\r\nq1\t0\td2\t0\r\nq2\t0\td3\t1"),
        ("marco.tsv", "q1\t0\td1\t2\nq1\t0\td2\t0\nq2\t0\td3\t1\n"),
        ("beir.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td3\t1\n"),
        ("beir.txt", "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td3\t1\n"),
        ("rated.csv", "rating,docid,query\n2,d1,q1\n0,d2,q1\n1,d3,q2\n"),
        ("three.txt", "q1,d1,2\nq1,d2,0\nq2,d3,1.0\n"),
        ("three.txt", "q1 d1 2\nq1 d2 0\nq2 d3 1.0\n"),
        ("twice.txt", "q1 0 d1 2\nq1 0 d1 2\nq1 0 d2 0\nq2 0 d3 1\n"),
    ],
)
def test_grades(name: str, text: str, tmp_path: Path) -> None:
    assert read_qrels(_write(tmp_path / name, text)) == GRADES
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert read_qrels(packed) == GRADES


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = "q1 0 d1 1\nq1 0 d2\n\nq1 0 d3 x\nq2 0 d1 nan\nq1 0 d1 2\nq3 0 d 1 1\n"
    with pytest.raises(InputError) as error:
        read_qrels(_write(tmp_path / "q.txt", text))
    for part in (
        "5 of 6 lines are wrong",
        "line 2: 3 columns instead of 4",
        "line 4: 'x' is not a number",
        "line 5: 'nan' is not a finite number",
        "line 6: document 'd1' has 2 for query 'q1', and 1 in an earlier line",
        "line 7: 5 columns instead of 4",
    ):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    many = "".join(f"q{n} 0 d high\n" for n in range(1500))
    with pytest.raises(InputError, match=r"1,500 of 1,500 .*line 10: .*; and 1,490 more") as error:
        read_qrels(_write(tmp_path / "q.txt", many))
    assert "line 11" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("esci.csv", "query_id,product_id,label\n1,a,E\n1,b,S\n", "E, S, C, I into 3, 2, 1, 0"),
        (
            "esci.csv",
            "query,product_id,esci_label\n1,a,E\n",
            "found: query, product_id, esci_label",
        ),
        ("no.csv", "a,b,c\n1,2,3\n", "no query and document are among a, b, c .*query_id,doc_id"),
        ("no.txt", "a,b,c\n1,2,3\n", "line 1: 'c' is not a number .*first line of a table names"),
        ("gap.csv", "query_id,doc_id,score\n1,a,\n1,b,2\n", "'' is not a number"),
        ("gap.csv", "query_id,doc_id,score\n,a,1\n1,,2\n", "no query.*no document"),
        ("wide.txt", "query_id doc_id score\n1 a\n1 b 2 3\n", "line 2: more or fewer columns"),
        ("one.txt", "q1\nq2\n", "1 columns instead of 4"),
        ("short.txt", "1 0 d1\n", "3 columns instead of 4"),
        ("under.txt", "1 0 d1 1_0\n", "'1_0' is not a number"),
        ("big.txt", "1 0 d1 1e999\n", "'1e999' is not a finite number"),
        ("blank.txt", "\n \n", "is empty"),
    ],
)
def test_judgements_that_cannot_be_used(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_qrels(_write(tmp_path / name, text))


@pytest.mark.parametrize(
    ("text", "run"),
    [
        ("q Q0 b 2 -2.5E+3 s\nq\tQ0\ta  9 1e-5 s\n", {"q": {"b": -2500.0, "a": 1e-5}}),
        ("q Q0 a 1 0.5\nq Q0 b 2 0.25\n", {"q": {"a": 0.5, "b": 0.25}}),  # no name
        ("q Q0 a 1 1 s\nq Q0 b 2 2 s\n", {"q": {"a": 1.0, "b": 2.0}}),  # not ranks
        ("q\ta\t1\nq\tb\t2\nr\tc\t1\n", {"q": {"a": 1.0, "b": 0.5}, "r": {"c": 1.0}}),  # MS MARCO
        ("q a 3\nq b 2\nq c 1\n", {"q": {"a": 3.0, "b": 2.0, "c": 1.0}}),  # scores
        ("q,a,0.5\nq,b,0.25\n", {"q": {"a": 0.5, "b": 0.25}}),
        ("query_id,doc_id,score\nq,a,0.5\n", {"q": {"a": 0.5}}),
    ],
)
def test_runs(text: str, run: dict[str, dict[str, float]], tmp_path: Path) -> None:
    assert read_run(_write(tmp_path / "run.txt", text)) == run


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 a 1 inf s\n", "'inf' is not a finite number"),
        ("q Q0 a 1 0.5 s\nq Q0 a 2 0.4 s\n", "line 2: document 'a' has 0.4 for query 'q'"),
        ("q Q0 a b 1 0.5 s\n", "7 columns instead of 6"),
        ("q a\n", "2 columns instead of 6"),
        ("", "is empty"),
    ],
)
def test_runs_that_cannot_be_used(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_run(_write(tmp_path / "run.txt", text))


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"a b": {"d": 1.0}}, "white space"),
        ({"q": {"": 1.0}}, "empty"),
        ({"q": {"a\u2028b": 1.0}}, "white space"),
        ({"q": {"a\x00": 1.0}}, "plain text"),
        ({"q": {"\ud800": 1.0}}, "plain text"),
        ({"\ufeffq": {"a": 1.0}}, "plain text"),
        ({"q": {7: 1.0}}, "document 7"),
        ({7: {"a": 1.0}}, "query 7"),
        ({"q": {"a": float("nan")}}, "score of document 'a' for query 'q' is nan"),
    ],
)
def test_runs_that_cannot_be_written(run: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        write_run(tmp_path / "run.txt", run)
    assert not (tmp_path / "run.txt").exists()
    with pytest.raises(InputError, match="name 'my run'"):
        write_run(tmp_path / "run.txt", {"q": {"a": 1.0}}, name="my run")


def test_numpy_scores_are_written_as_numbers(tmp_path: Path) -> None:
    write_run(tmp_path / "run.txt", {"q": {"a": np.float32(0.1), "b": np.int64(3)}})
    assert read_run(tmp_path / "run.txt") == {"q": {"b": 3.0, "a": float(np.float32(0.1))}}


IDS = st.text(st.characters(codec=None), min_size=1, max_size=4)
SCORES = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(
    run=st.dictionaries(IDS, st.dictionaries(IDS, SCORES, min_size=1, max_size=6), min_size=1),
    data=st.data(),
)
def test_a_written_run_has_the_same_order_and_metrics(
    run: dict[str, dict[str, float]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("run") / "run.txt"
    try:
        write_run(path, run)
    except InputError:
        return
    again = read_run(path)
    assert again == run
    assert all(ranked(again[query]) == list(again[query]) for query in run)
    qrels = {query: {data.draw(st.sampled_from(sorted(run[query]))): 1} for query in run}
    assert evaluate(qrels, again) == evaluate(qrels, run)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.json", '[{"query_id": 1, "doc_id": 7.0, "score": 1}]', {"1": {"7": 1.0}}),
        ("a.csv", "query_id, doc_id, score\n1, 7, 1\n", {"1": {"7": 1.0}}),
        ("a.csv", "query_id,doc_id,score\n1,7.0,1\n2,8.0,1\n", {"1": {"7": 1}, "2": {"8": 1}}),
        ("a.csv", "query_id,doc_id,score\n1,7.0,1\n2,7.1,1\n", {"1": {"7.0": 1}, "2": {"7.1": 1}}),
        ("a.csv", "qid,docid,docno,score\n1,0,d7,2.5\n", {"1": {"d7": 2.5}}),
        ("a.json", '{"1": {"7": 1, "8": 2}}', {"1": {"7": 1, "8": 2}}),
        ("a.jsonl", '{"query_id": 1, "doc_id": [7, "8"], "score": 2}', {"1": {"7": 2, "8": 2}}),
        ("a.tsv", "query_id\tdoc_id\n1\t[7, 8]\n2\t[x\n", {"1": {"7": 1, "8": 1}, "2": {"[x": 1}}),
        ("a.txt", "1  0   7\t1 \n", {"1": {"7": 1.0}}),
    ],
)  # fmt: skip
def test_ids_are_those_of_the_items(
    name: str, text: str, expected: dict[str, dict[str, float]], tmp_path: Path
) -> None:
    assert read_qrels(_write(tmp_path / name, text)) == expected


@pytest.mark.parametrize(
    "text", ["q1 7,8\nq1 9\n", "q1\td9\nq1\t7,8\n", "query;document\nq1;9\nq1;7,8\n"]
)
def test_numbers_with_a_comma_are_not_one_id(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'7,8'.* not one id"):
        read_qrels(_write(tmp_path / "m.txt", text))
