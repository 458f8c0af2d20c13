"""Pairs out of files of every kind, what is wrong with a file, and what is right for a query."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from idiolect.encoding.pairs import Pair, PairFile, PairTable, read_texts
from idiolect.errors import InputError

_RECORDS: list[dict[str, Any]] = [
    {"query": "q1", "document": "d1", "negatives": ["n1", "n2"], "scores": [3.0, 1.0, 0.5]},
    {"query": "q2", "document": "d2", "negatives": ["n3"], "scores": [2.0, 1.5]},
]
_PAIRS = [
    Pair("q1", "d1", ("n1", "n2"), (3.0, 1.0, 0.5)),
    Pair("q2", "d2", ("n3",), (2.0, 1.5)),
]


def _jsonl(path: Path, records: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet"])
def test_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"pairs.{kind}"
    if kind == "jsonl":
        _jsonl(path, _RECORDS)
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(_RECORDS), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, _RECORDS[0], delimiter="," if kind == "csv" else "\t")
            writer.writeheader()
            for record in _RECORDS:
                lists = {n: json.dumps(v) for n, v in record.items() if isinstance(v, list)}
                writer.writerow(record | lists)
    assert list(PairFile(path)) == _PAIRS


def test_a_field_for_each_negative(tmp_path: Path) -> None:
    path = tmp_path / "triplets.csv"
    path.write_text("anchor,positive,negative_1,negative_2\na,p,x,y\nb,q,z,\n")
    pairs = PairFile(path, query="anchor", document="positive")
    assert list(pairs) == [Pair("a", "p", ("x", "y")), Pair("b", "q", ("z",))]


def test_ids_stand_for_texts(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("query\tdocument\tnegative\n1\t7\t8\n")
    queries = {"1": "what"}
    documents = read_texts(
        _jsonl(
            tmp_path / "corpus.jsonl",
            [{"_id": "7", "title": "A", "text": "seven"}, {"_id": 8, "text": "eight"}],
        )
    )
    assert list(PairFile(path, queries=queries, documents=documents)) == [
        Pair("what", "A\nseven", ("eight",))
    ]
    with pytest.raises(InputError, match=r"line 2: no document has the id '8'"):
        list(PairFile(path, queries=queries, documents={"7": "seven"}))


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"query": "a"}, r"line 1 has no field document \(there are query"),
        ({"anchor": "a", "positive": "b"}, "no field query and no field document"),
        ({"query": "a", "document": None}, "no field document"),
        ({"query": 7, "document": "b"}, "a query is 7, not a text"),
        ({"query": "a", "document": "b", "scores": ["x"]}, "a list of numbers"),
        ({"query": "a", "document": "b", "scores": "[1"}, "not a JSON list"),
        ({"query": " ", "document": "b"}, "no pairs in .*skipped: 1 empty"),
        ("text", "1 of 1 lines cannot be read: 1 not an object"),
    ],
)
def test_bad_files_are_told(tmp_path: Path, record: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        list(PairFile(_jsonl(tmp_path / "pairs.jsonl", [record])))


def test_files_that_are_no_pairs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        PairFile(tmp_path / "nothing.jsonl")
    (tmp_path / "pairs.txt").write_text("a b")
    with pytest.raises(InputError, match=r"no fields \(known: \.jsonl"):
        list(PairFile(tmp_path / "pairs.txt"))
    (tmp_path / "pairs.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="not a readable Parquet"):
        list(PairFile(tmp_path / "pairs.parquet"))


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"query": "a", "document": "b"}\n{"query":\n{"query": "c", "document": ""}\n')
    with pytest.raises(InputError, match=r"1 of 3 lines .*1 malformed JSON \(pairs.jsonl line 2\)"):
        list(PairFile(path))
    pairs = PairFile(path, max_unreadable=0.4)
    assert list(pairs) == [Pair("a", "b")]
    assert pairs.skipped == {"malformed JSON": 1, "empty": 1}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"text": "a"}, "line 1 has no id"),
        ({"_id": "1", "color": "b"}, "line 1 has no text"),
    ],
)
def test_texts_need_ids(tmp_path: Path, record: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_texts(_jsonl(tmp_path / "corpus.jsonl", [record]))
    twice = [{"_id": "1", "text": "a"}, {"_id": "1", "text": "b"}]
    with pytest.raises(InputError, match="the id 1 comes twice"):
        read_texts(_jsonl(tmp_path / "corpus.jsonl", twice))


def test_a_table_knows_what_is_right() -> None:
    table = PairTable.of(
        [
            Pair("a", "x", ("y", "z", "w"), (4.0, 3.0, 2.0, 1.0)),
            Pair("a", "y"),
            Pair("b", "x", ("b",)),
            Pair("a", "x"),
        ],
        corpus=["v", "x", "a"],
    )
    assert table.queries == ["a", "b"]
    assert list(table.documents) == ["x", "y", "z", "w", "b", "v", "a"]
    assert table.pairs == [(0, 0), (0, 1), (1, 0)], "a pair that comes again is left out"
    # y is right for a, says the second pair; b is the query itself.
    assert table.negatives == [(2, 3), (), ()]
    assert table.scores == [(4.0, 2.0, 1.0), (), ()], "scores go with their documents"
    assert table.right == [{0, 1, 6}, {0, 4}]


def test_tables_differ_by_every_text() -> None:
    one = PairTable.of([Pair("a", "x")]).fingerprint
    assert one == PairTable.of([Pair("a", "x")]).fingerprint
    others = [Pair("a", "y"), Pair("ax", "x"), Pair("a", "x", ("n",))]
    assert one not in {PairTable.of([pair]).fingerprint for pair in others}


def test_pairs_in_memory_are_checked() -> None:
    with pytest.raises(InputError, match="no pairs"):
        PairTable.of([])
    with pytest.raises(InputError, match="pair 2 has an invalid text: empty"):
        PairTable.of([Pair("a", "b"), Pair("a", " ")])
    with pytest.raises(InputError, match="pair 1 has 1 scores and 2 documents"):
        PairTable.of([Pair("a", "b", ("c",), (1.0,))])
    with pytest.raises(InputError, match="pair 1 has the scores"):
        PairTable.of([Pair("a", "b", ("c",), (1.0, float("nan")))])


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.tsv"])
def test_a_stray_quote_loses_no_pair(tmp_path: Path, name: str) -> None:
    comma = "," if name.endswith("csv") else "\t"
    rows = [f'query {n}{comma}a 24" monitor {n}' for n in range(20)]
    rows += [f'"open {n}{comma}document {n}' for n in range(20)]
    (tmp_path / name).write_text("\n".join([f"query{comma}document", *rows]))
    pairs = PairFile(tmp_path / name)
    assert len(list(pairs)) == 40
    assert not pairs.skipped


def test_texts_that_look_like_lists(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text('query,document,negatives\na,b,[2024]\nc,d,"[""e"", ""f""]"\ng,h,[1] see\n')
    assert [pair.negatives for pair in PairFile(path)] == [("[2024]",), ("e", "f"), ("[1] see",)]
    path.write_text("query,document,negatives\na,b,[7]\n")
    texts = {"b": "B", "7": "seven"}
    assert [pair.negatives for pair in PairFile(path, documents=texts)] == [("seven",)]
    path.write_text(f"query,document,scores\na,b,{'[' * 100_000}\n")
    with pytest.raises(InputError, match="line 2: scores is nested too deeply"):
        list(PairFile(path))


def test_ids_of_a_column_with_gaps(tmp_path: Path) -> None:
    """pandas stores integers with a missing value as floats."""
    pq.write_table(
        pa.table({"id": [7.0, float("nan")], "text": ["seven", "none"]}),
        tmp_path / "documents.parquet",
    )
    with pytest.raises(InputError, match="row 2 has no id"):
        read_texts(tmp_path / "documents.parquet")
    pq.write_table(pa.table({"id": [7.0], "text": ["seven"]}), tmp_path / "documents.parquet")
    assert read_texts(tmp_path / "documents.parquet") == {"7": "seven"}
    pq.write_table(pa.table({"query": ["a"], "document": [7.0]}), tmp_path / "pairs.parquet")
    (pair,) = PairFile(tmp_path / "pairs.parquet", documents={"7": "seven"})
    assert pair.document == "seven"
