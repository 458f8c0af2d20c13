"""All readers of records agree: on a document's text, and on the records of a file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from idiolect.encoding.pairs import PairFile, read_query_texts, read_texts
from idiolect.errors import InputError
from idiolect.pipeline.data import Data
from idiolect.pipeline.pipeline_config import PipelineConfig
from idiolect.pipeline.settings import DataSettings
from idiolect.pipeline.survey.survey import survey
from idiolect.ranking.evaluation.judged_collection import read_documents, read_queries
from idiolect.search.item_files import read_items
from idiolect.text.corpus import Corpus
from idiolect.text.fields import id_text, join_fields, text_fields
from idiolect.text.records import read_records

TYPES = ("jsonl", "csv", "tsv", "parquet")
RECORDS: list[dict[str, Any]] = [
    {"_id": "d1", "title": "Pumps", "text": "They move water."},
    {"_id": "d2", "title": "", "text": "no title, 日本語 🦙 „Zeichen“"},
    {"_id": "d3", "title": 'the "quoted"', "text": 'two\nlines, "and, commas"'},
    {"_id": "d4", "title": "no text", "text": ""},
    {"_id": "d5", "title": None, "text": "null\ttitle"},
    {"_id": "d6", "title": "", "text": " "},
]
DOCUMENTS = {
    "d1": "Pumps\nThey move water.",
    "d2": "no title, 日本語 🦙 „Zeichen“",
    "d3": 'the "quoted"\ntwo\nlines, "and, commas"',
    "d4": "no text",
    "d5": "null\ttitle",
}


def write(path: Path, records: list[dict[str, Any]], *, damaged: bool = False) -> Counter[str]:
    """Write records, and rows that cannot be read; return how many of these, by reason."""
    type_ = path.name.removesuffix(".gz").rpartition(".")[2]
    reasons: Counter[str] = Counter()
    if type_ == "parquet":
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(records), buffer)
        data = buffer.getvalue().to_pybytes()
    elif type_ == "jsonl":
        data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
        if damaged:
            data += b'{"_id": "d7", "text": \n"\xff"\n{"_id": "d8", "text": "half \\ud83d"}\n'
            reasons.update({"malformed JSON": 1, "bad UTF-8": 2})
    else:
        text = io.StringIO()
        delimiter = "\t" if type_ == "tsv" else ","
        table = csv.DictWriter(text, records[0], delimiter=delimiter, lineterminator="\n")
        table.writeheader()
        table.writerows(records)
        data = text.getvalue().encode()
        if damaged:
            data += b"d7\nd8\xff\n"
            reasons.update({"malformed CSV": 1, "bad UTF-8": 1})
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return reasons


@pytest.fixture(params=[f"{type_}{gz}" for type_ in TYPES for gz in ("", ".gz")])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The path of a catalogue, in each type of file."""
    return tmp_path / f"items.{request.param}"


def test_a_document_has_one_text(path: Path) -> None:
    record = RECORDS[0]
    write(path, [record])
    text = DOCUMENTS["d1"]
    assert join_fields(record) == text
    assert list(Corpus(path)) == [text]
    assert read_texts(path) == {"d1": text}
    assert read_documents(path) == {"d1": text}
    (item,) = read_items([path], skipped=Counter())
    assert (item.id, item.text) == ("d1", text)

    by_default = Data(DataSettings(items=path.name), path.parent)
    assert by_default.texts == {"d1": text}
    surveyed = path.with_name("surveyed.toml")
    surveyed.write_text(survey(path.parent, base="model").text)
    data = Data(PipelineConfig.load(surveyed).data, path.parent)
    assert data.texts == {"d1": text}
    assert data.title_pairs()[0].document == "They move water."
    for corpus in (by_default.corpus, data.corpus):
        assert [part for side in corpus for part in _all(side)] == [text]


def _all(corpus: Corpus) -> list[str]:
    try:
        return list(corpus)
    except InputError:  # the one document is on the other side of the split
        return []


def test_a_trec_document_has_the_same_text(tmp_path: Path) -> None:
    path = tmp_path / "documents.xml"
    path.write_text("<doc><docno>d1</docno><title>Pumps</title><text>They move water.</text></doc>")
    assert read_documents(path) == {"d1": DOCUMENTS["d1"]}


def test_the_readers_agree_on_records_and_reasons(path: Path) -> None:
    reasons = write(path, RECORDS, damaged=True)
    empty = Counter({"empty": 1})

    skipped: Counter[str] = Counter()
    records = list(read_records(path, skipped, max_unreadable=1))
    assert [record["_id"] for record in records] == [record["_id"] for record in RECORDS]
    assert skipped == reasons

    corpus = Corpus(path, max_unreadable=1)
    assert list(corpus) == list(DOCUMENTS.values())
    assert corpus.skipped == reasons + empty

    skipped = Counter()
    items = list(read_items([path], max_unreadable=1, skipped=skipped))
    assert {item.id: item.text for item in items} == DOCUMENTS
    assert skipped == reasons + empty

    data = Data(DataSettings(items=path.name, max_unreadable=1), path.parent)
    assert data.texts == DOCUMENTS
    assert data.skipped == reasons + empty

    pairs = PairFile(path, query="_id", document="text", max_unreadable=1)
    assert [pair.query for pair in pairs] == ["d1", "d2", "d3", "d5"]
    assert pairs.skipped == reasons + Counter({"empty": 2})  # no title is part of a pair

    for read in (read_texts, read_documents, read_query_texts, read_queries):
        if not reasons:
            continue
        with pytest.raises(InputError) as caught:
            read(path)
        for reason, count in reasons.items():
            assert f"{count} {reason} (items." in str(caught.value)


ODD = (
    "\ufeffid;title;text\r\n"
    '1;24" monitor;"two\r\nlines; ""quoted"""\r\n'
    '2;"5\\" pipe";"never closed\r\n'
    "\r\n"
    "3;;Größe\u2028\x0cand more;\r\n"
)
ODD_TEXTS = {
    "1": '24" monitor\ntwo\r\nlines; "quoted"',
    "2": '5" pipe\n"never closed',
    "3": "Größe\u2028\x0cand more",
}


@pytest.mark.parametrize("name", ["odd.CSV", "odd.tsv.gz", "odd.csv.xz"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_the_readers_agree_on_an_odd_file(tmp_path: Path, name: str, encoding: str) -> None:
    """Another delimiter, quotes of three kinds, odd line breaks, an encoding, a compression."""
    path = tmp_path / name
    pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(pack(ODD.encode(encoding)))
    texts = list(ODD_TEXTS.values())
    assert list(Corpus(path)) == texts
    assert list(Corpus(path, ["title", "text"])) == texts
    assert {i.id: i.text for i in read_items([path], skipped=Counter())} == ODD_TEXTS
    assert read_texts(path) == read_documents(path) == ODD_TEXTS
    assert read_query_texts(path)["3"] == read_queries(path)["3"] == ODD_TEXTS["3"]
    assert [pair.query for pair in PairFile(path, query="id", document="text")] == ["1", "2", "3"]
    data = Data(DataSettings(items=name), tmp_path)
    assert data.texts == ODD_TEXTS
    assert sorted(_all(data.corpus[0]) + _all(data.corpus[1])) == sorted(texts)


def test_collections_keep_an_empty_document(path: Path) -> None:
    write(path, RECORDS)
    assert read_documents(path) == read_texts(path) == DOCUMENTS | {"d6": ""}


def test_a_text_that_is_no_text_is_no_field(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    write(path, [RECORDS[0], {"_id": "d2", "text": 3}, {"_id": "d3", "text": None}])
    corpus, skipped = Corpus(path), Counter[str]()
    list(corpus)
    list(read_items([path], skipped=skipped))
    assert corpus.skipped == skipped == {"no field": 1, "empty": 1}


def test_queries_have_one_text(path: Path) -> None:
    write(path, [{"qid": "q1", "query": "what?"}, {"qid": "q2", "query": "who?"}])
    assert read_queries(path) == read_query_texts(path) == {"q1": "what?", "q2": "who?"}


@pytest.mark.parametrize(
    ("record", "fields"),
    [
        ({"id": "1", "Text": "a", "TITLE": "b"}, ("TITLE", "Text")),
        ({"body": "a", "abstract": "b", "name": "c"}, ("name", "abstract", "body")),
        ({"id": "1", "passage": "a", "color": "b"}, ("passage",)),
        ({"text": "a", "document": "scan.pdf"}, ("text",)),
        ({"title": 1984, "text": "a", "description": {"en": "b"}}, ("text",)),
        ({"color": "b"}, ()),
    ],
)
def test_usual_fields(record: dict[str, Any], fields: tuple[str, ...]) -> None:
    assert text_fields(record) == fields


@pytest.mark.parametrize("cell", [7, 7.0, "7", " 7 "])
def test_an_id_is_the_same_from_every_file(cell: Any, tmp_path: Path) -> None:
    """A column of integers with gaps is one of floats; cells may be padded."""
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        path = tmp_path / name
        write(path, [{"id": cell, "text": "a pump", "query": "pumps"}])
        assert [item.id for item in read_items([path], skipped=Counter())] == ["7"]
        assert read_texts(path) == read_documents(path) == {"7": "a pump"}
        assert read_queries(path) == {"7": "a pump"}
        pairs = PairFile(
            path,
            query="query",
            document="id",
            documents={"7": "a pump"},
            queries={"pumps": "pumps"},
        )
        assert [pair.document for pair in pairs] == ["a pump"]


def test_a_column_of_versions_is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,text\n1.0,a\n1.1,b\n")
    assert [item.id for item in read_items([path], skipped=Counter())] == ["1.0", "1.1"]
    assert read_texts(path) == {"1.0": "a", "1.1": "b"}


def test_odd_ids_of_python() -> None:
    found = [
        id_text(value)
        for value in (
            np.float32(7),
            np.float64(2.5),
            np.int64(7),
            Decimal("7.00"),
            b"7",
            object(),
            np.float32("nan"),
            (1, 2),
            {1},
            {"$oid": "5f"},
            {"a": 1},
            b"\xff",
            0,
            "007",
        )
    ]
    assert found == [
        "7",
        "2.5",
        "7",
        "7",
        "7",
        None,
        None,
        None,
        None,
        "5f",
        None,
        None,
        "0",
        "007",
    ]


def test_a_blank_cell_is_not_the_text_of_a_query(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("qid,query,text\n1,red shoes,\n2,,blue\n")
    assert read_queries(path) == {"1": "red shoes", "2": "blue"}


def test_the_names_of_shops_are_known(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "Product ID,Product Title,Short description,product_description\n7,a pump,small,moves\n"
    )
    (item,) = read_items([path], skipped=Counter())
    assert (item.id, item.text, item.metadata) == ("7", "a pump\nmoves\nsmall", {})
