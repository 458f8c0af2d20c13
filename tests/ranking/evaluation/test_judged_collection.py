"""The three layouts, read alike; mismatched ids and damaged files are reported."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from idiolect.errors import InputError
from idiolect.ranking.evaluation.judged_collection import (
    JudgedCollection,
    read_documents,
    read_qrels,
    read_queries,
    read_run,
    write_run,
)

DOCUMENTS = {"d1": "First\nwords", "d2": "Second words", "d3": "Third & last"}
QUERIES = {"1": "who is first", "2": "second"}
JUDGEMENTS = {"1": {"d1": 2.0, "d2": 0.0}, "2": {"d2": 1.0}}


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _beir(folder: Path) -> Path:
    records = [
        {"_id": "d1", "title": "First", "text": "words"},
        {"_id": "d2", "title": "", "text": "Second words"},
        {"_id": "d3", "text": "Third & last"},
    ]
    _write(folder / "corpus.jsonl", "\n".join(map(json.dumps, records)))
    queries = [{"_id": key, "text": text, "metadata": {}} for key, text in QUERIES.items()]
    _write(folder / "queries.jsonl", "\n".join(map(json.dumps, queries)) + "\n\n")
    rows = "query-id\tcorpus-id\tscore\n1\td1\t2\n1\td2\t0\n2\td2\t1\n"
    _write(folder / "qrels" / "test.tsv", rows)
    return folder


def test_beir_folder(tmp_path: Path) -> None:
    found = JudgedCollection.load(_beir(tmp_path))
    assert found == JudgedCollection(DOCUMENTS, QUERIES, JUDGEMENTS)


def test_beir_folder_packed(tmp_path: Path) -> None:
    path = _beir(tmp_path) / "corpus.jsonl"
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert JudgedCollection.load(tmp_path).documents == DOCUMENTS


def test_trec_files(tmp_path: Path) -> None:
    documents = _write(
        tmp_path / "docs.xml",
        "<DOC>\n<DOCNO> d1 </DOCNO><TITLE>First</TITLE>\n<TEXT>words\n</TEXT></DOC>"
        "<doc><docno>d2</docno><text>Second <b>words</b></text></doc>\n"
        "<doc><docno>d3</docno><text>Third &amp; last</text></doc>",
    )
    closed = "<top><num> 1 </num><title>\nwho is\nfirst</title></top>"
    open_ = "<top>\n<num> Number: 2\n<title> second\n\n<desc> Description:\nwhich one\n</top>"
    topics = _write(tmp_path / "topics.txt", closed + open_)
    qrels = _write(tmp_path / "qrels.txt", "1 0 d1 2\n1 0 d2 0\n\n2 0 d2 1\n")
    assert read_documents(documents) == DOCUMENTS
    assert read_queries(topics) == QUERIES
    assert read_qrels(qrels) == JUDGEMENTS


def test_tables(tmp_path: Path) -> None:
    text = "query,docid,rating\nwho is first,d1,2\nwho is first,d2,0\nsecond,d2,1\n"
    judged = read_qrels(_write(tmp_path / "rated.csv", text))
    found = JudgedCollection.join(DOCUMENTS, None, judged)
    assert found.queries == {"who is first": "who is first", "second": "second"}
    queries = _write(tmp_path / "q.tsv", "qid\tquery\n1\twho is first\n2\tsecond\n")
    assert read_queries(queries) == QUERIES


def test_run_there_and_back(tmp_path: Path) -> None:
    run = {"1": {"d2": 0.25, "d1": 1e-7}, "2": {"d3": -3.5}}
    write_run(tmp_path / "run.txt", run)
    assert (tmp_path / "run.txt").read_text().splitlines()[1] == "1 Q0 d1 2 1e-07 idiolect"
    assert read_run(tmp_path / "run.txt") == run
    with pytest.raises(InputError, match="white space"):
        write_run(tmp_path / "other.txt", {"a b": {"d": 1.0}})
    assert not (tmp_path / "other.txt").exists()


def test_unknown_ids_are_reported() -> None:
    judged = {"1": {"d1": 1.0, "gone": 1.0}, "3": {"d1": 1.0}, "4": {"lost": 1.0}}
    queries = {**QUERIES, "4": "fourth"}
    found = JudgedCollection.join(DOCUMENTS, queries, judged)
    assert found.qrels == {"1": {"d1": 1.0}}
    assert found.queries == {"1": "who is first"}
    assert any("1 judged queries have no text: '3'" in note for note in found.notes)
    assert any(
        "2 judgements name missing documents" in note and "'gone'" in note for note in found.notes
    )


def test_empty_query_is_reported() -> None:
    found = JudgedCollection.join(DOCUMENTS, {"1": "  "}, {"1": {"d1": 1.0}})
    assert found.notes == ("1 queries are empty: '1'",)


def test_nothing_fits() -> None:
    with pytest.raises(InputError, match=r"no judgement names .* 1 judgements name missing"):
        JudgedCollection.join(DOCUMENTS, QUERIES, {"1": {"x": 1.0}})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("q.txt", "1 0 d1\n", "line 1: 3 columns instead of 4"),
        ("q.txt", "1 0 d1 much\n", "'much' is not a number"),
        ("q.txt", "1 0 d1 1\n1 0 d1 2\n", "line 2: document 'd1' has 2 for query '1', and 1"),
        ("q.txt", "", "is empty"),
        ("q.tsv", "query-id\tcorpus-id\tday\n1\td1\t3\n", "none of the fields score"),
        ("q.csv", "query,docid,rating\na,b\n", "1 malformed CSV"),
        ("q.jsonl", '{"query": "a"\n', "malformed JSON"),
    ],
)
def test_damaged_judgements(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_qrels(_write(tmp_path / name, text))


def test_damaged_texts(tmp_path: Path) -> None:
    twice = '{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n'
    with pytest.raises(InputError, match="two texts with the id 'a'"):
        read_documents(_write(tmp_path / "d.jsonl", twice))
    with pytest.raises(InputError, match="holds no texts"):
        read_queries(_write(tmp_path / "t.txt", "nothing"))
    with pytest.raises(InputError, match="cannot be read"):
        JudgedCollection.load(tmp_path / "nowhere")
    (tmp_path / "t.txt").write_bytes(b"1 0 d\x81 1")
    with pytest.raises(InputError, match="UTF-8"):
        read_qrels(tmp_path / "t.txt")
