"""`idiolect init`: files are recognized by what they hold, and the configuration it writes runs."""

from __future__ import annotations

import gzip
import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from idiolect.cli.main import app
from idiolect.errors import InputError
from idiolect.pipeline.data import Data
from idiolect.pipeline.pipeline_config import PipelineConfig
from idiolect.pipeline.run import run
from idiolect.pipeline.survey.survey import survey
from pipeline.shop import KINDS, open_shop, write

ITEMS = [
    {"id": f"p{n}", "title": f"Lamp {n}", "text": f"A lamp number {n} for the garden."}
    for n in range(12)
]
QUERIES = [{"id": f"q{n}", "text": f"garden lamp {n}"} for n in range(4)]
GRADES = [(f"q{n}", f"p{n}", 1) for n in range(4)]


def lines(path: Path, rows: Iterable[Sequence[Any]], delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(delimiter.join(map(str, row)) + "\n" for row in rows))


def jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record) + "\n" for record in records)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


def written(folder: Path, base: str = "model") -> PipelineConfig:
    path = folder / "written.toml"
    path.write_text(survey(folder, base=base).text)
    return PipelineConfig.load(path)


def told(folder: Path) -> str:
    return "\n".join(survey(folder, base="model").findings)


_OPTIONS = ("id", "text", "title", "max_unreadable")


def chosen(folder: Path) -> dict[str, Any]:
    """The keys of `[data]` that name files."""
    data = written(folder).data.model_dump()
    return {key: data[key] for key in data if data[key] and key not in _OPTIONS}


def test_everything_is_found(tmp_path: Path) -> None:
    open_shop(tmp_path)
    config = written(tmp_path)
    usual = PipelineConfig.load(tmp_path / "idiolect.toml").data
    assert config.data == usual.model_copy(update={"id": "id", "text": ("title", "text")})
    assert config.base == "model"
    findings = told(tmp_path)
    assert "items.jsonl: JSON Lines; looked at 40 records; columns: id, title, text" in findings
    assert "taken as items: ids in id, text in title, text" in findings
    assert "corpus: none found" in findings
    assert "read: 40 items, 20 pairs, 4 judged queries" in findings


def test_names_say_nothing_and_contents_everything(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", QUERIES)
    jsonl(tmp_path / "b.jsonl", ITEMS)
    lines(tmp_path / "c.csv", [("query-id", "corpus-id", "score"), *GRADES])
    similar = [("p1", "p2", 1), ("p1", "p3", 1), ("p2", "p3", 2)]
    lines(tmp_path / "d.csv", [("query-id", "corpus-id", "score"), *similar])
    lines(
        tmp_path / "e.csv",
        [("query", "document_id"), *((f"a lamp {n}", f"p{n}") for n in range(9))],
    )
    assert chosen(tmp_path) == {
        "items": "b.jsonl", "queries": "a.jsonl", "qrels": "c.csv", "similar": "d.csv",
        "pairs": "e.csv",
    }  # fmt: skip


def test_a_log_is_not_judgements(tmp_path: Path) -> None:
    movies = [(n, f"Movie {n} (1995)", "Comedy") for n in range(1, 9)]
    lines(tmp_path / "movies.csv", [("movieId", "title", "genres"), *movies])
    ratings = [(1, n, 4.0, 964982703 + n) for n in range(1, 9)]
    lines(tmp_path / "ratings.csv", [("userId", "movieId", "rating", "timestamp"), *ratings])
    assert chosen(tmp_path) == {"items": "movies.csv", "histories": ("ratings.csv",)}
    assert written(tmp_path).data.id == "movieId"
    assert "users in userId, items in movieId, times in timestamp" in told(tmp_path)
    assert "8 events of users" in told(tmp_path)


@pytest.mark.parametrize("user", ["user_id", "CustomerID", "session", "reviewerID", "Kunde"])
def test_logs_under_other_names(tmp_path: Path, user: str) -> None:
    jsonl(tmp_path / "items.jsonl", ITEMS)
    rows = [(f"u{n % 2}", f"p{n}", 5) for n in range(8)]
    lines(tmp_path / "judgements.csv", [(user, "item_id", "rating"), *rows])
    known = {} if user == "Kunde" else {"histories": ("judgements.csv",)}
    assert chosen(tmp_path) == {"items": "items.jsonl", **known}
    assert ("which column is the user cannot be told" in told(tmp_path)) == (not known)


def test_a_log_of_other_items_is_no_history(tmp_path: Path) -> None:
    jsonl(tmp_path / "items.jsonl", ITEMS)
    rows = [("user_id", "item_id"), *((f"u{n % 3}", f"p{n % 9}") for n in range(30))]
    for name, part in (("clicks.csv", rows), ("orders.csv", rows[:20])):
        lines(tmp_path / name, part)
    lines(tmp_path / "other.csv", [rows[0], *((f"u{n % 3}", f"x{n}") for n in range(90))])
    assert chosen(tmp_path) == {"items": "items.jsonl", "histories": ("clicks.csv",)}
    assert "a log as well; clicks.csv was chosen" in told(tmp_path)
    assert "with other items: 0% are in the catalogue" in told(tmp_path)


def test_the_beir_layout_and_its_splits(tmp_path: Path) -> None:
    jsonl(tmp_path / "corpus.jsonl", [{"_id": i["id"], **i} for i in ITEMS])
    jsonl(tmp_path / "queries.jsonl", [{"_id": q["id"], "text": q["text"]} for q in QUERIES])
    for split in ("dev", "old", "test", "train"):
        rows = [("query-id", "corpus-id", "score"), *GRADES]
        lines(tmp_path / "qrels" / f"{split}.tsv", rows, "\t")
    assert chosen(tmp_path) == {
        "items": "corpus.jsonl", "queries": "queries.jsonl", "qrels": "qrels/test.tsv"
    }  # fmt: skip
    assert "chosen before qrels/old.tsv, qrels/dev.tsv, qrels/train.tsv" in told(tmp_path)
    assert "judgements as well; qrels/test.tsv was chosen" in told(tmp_path)


def test_compressed_files_in_subfolders(tmp_path: Path) -> None:
    jsonl(tmp_path / "data" / "products.jsonl.gz", ITEMS)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "general.txt.gz").write_bytes(gzip.compress(b"The house is red.\n" * 9))
    assert chosen(tmp_path) == {
        "items": "data/products.jsonl.gz", "general": ("texts/general.txt.gz",)
    }  # fmt: skip
    assert "read: 12 items" in told(tmp_path)


def test_trec_files(tmp_path: Path) -> None:
    documents = (
        f"<DOC>\n<DOCNO>{i['id']}</DOCNO>\n<TEXT>{i['text']}</TEXT>\n</DOC>\n" for i in ITEMS
    )
    (tmp_path / "collection.trec").write_text("".join(documents))
    topics = (f"<top>\n<num> Number: {q['id']}\n<title> {q['text']}\n</top>\n" for q in QUERIES)
    (tmp_path / "topics.xml").write_text("".join(topics))
    lines(tmp_path / "judged.txt", [(q, 0, p, g) for q, p, g in GRADES], " ")
    run_file = [(q, "Q0", p, 1, 0.5, "x") for q, p, _ in GRADES]
    lines(tmp_path / "bm25.run.txt", run_file, " ")
    assert chosen(tmp_path) == {
        "items": "collection.trec", "queries": "topics.xml", "qrels": "judged.txt"
    }  # fmt: skip
    assert "read: 12 items, 4 judged queries" in told(tmp_path)
    train, held_out = Data(written(tmp_path).data, tmp_path).corpus
    assert len([*train, *held_out]) == 12
    assert "bm25.run.txt: TREC run" in told(tmp_path)


def test_a_folder_of_parquet_parts(tmp_path: Path) -> None:
    (tmp_path / "products").mkdir()
    for part in range(3):
        table = pa.Table.from_pylist(ITEMS[part * 4 : part * 4 + 4])
        pq.write_table(table, tmp_path / "products" / f"part-0000{part}.snappy.parquet")
    assert chosen(tmp_path) == {"items": "products/part-*.snappy.parquet"}
    assert "Parquet; 3 files; looked at 12 records" in told(tmp_path)
    assert len(Data(written(tmp_path).data, tmp_path).items) == 12


def test_numbered_files_beside_others(tmp_path: Path) -> None:
    for part in (1, 2):
        jsonl(tmp_path / f"products_{part}.jsonl", ITEMS[part * 4 : part * 4 + 4])
    jsonl(tmp_path / "queries.jsonl", QUERIES)
    assert chosen(tmp_path)["items"] == "products_*.jsonl"
    assert len(Data(written(tmp_path).data, tmp_path).items) == 8


def test_names_and_columns_in_another_language(tmp_path: Path) -> None:
    rows = [(f"A{n}", f"Lampe {n}", f"Eine Lampe für den Garten {n}") for n in range(12)]
    lines(tmp_path / "artikel.csv", [("artikelnummer", "bezeichnung", "beschreibung"), *rows])
    jsonl(tmp_path / "suchanfragen.jsonl", QUERIES)
    graded = [(f"q{n}", f"A{n}", 2) for n in range(4)]
    lines(tmp_path / "bewertungen.csv", [("query-id", "docid", "rating"), *graded])
    assert chosen(tmp_path) == {
        "items": "artikel.csv", "queries": "suchanfragen.jsonl", "qrels": "bewertungen.csv"
    }  # fmt: skip
    config = written(tmp_path)
    assert (config.data.id, config.data.text) == ("artikelnummer", ("beschreibung",))


def test_two_catalogues_are_a_question(tmp_path: Path) -> None:
    jsonl(tmp_path / "products.jsonl", ITEMS)
    jsonl(
        tmp_path / "articles.jsonl", [{**item, "id": f"a{n}"} for n, item in enumerate(ITEMS[:6])]
    )
    assert chosen(tmp_path) == {"items": "products.jsonl"}
    findings = told(tmp_path)
    assert "chosen before articles.jsonl" in findings
    assert "question: is products.jsonl the catalogue? articles.jsonl could be it" in findings
    assert "# To decide: is products.jsonl" in survey(tmp_path, base="model").text


def test_a_larger_corpus_with_ids_is_not_the_catalogue(tmp_path: Path) -> None:
    jsonl(tmp_path / "items.jsonl", ITEMS)
    jsonl(tmp_path / "corpus.jsonl", [{**item, "id": f"c{n}"} for n, item in enumerate(ITEMS * 3)])
    assert chosen(tmp_path) == {"items": "items.jsonl", "corpus": ("corpus.jsonl",)}


def test_the_largest_of_equal_tables_is_the_catalogue(tmp_path: Path) -> None:
    for split, count in (("dev", 3), ("train", 12), ("test", 4)):
        jsonl(tmp_path / f"{split}.jsonl", ITEMS[:count])
    assert chosen(tmp_path) == {"items": "train.jsonl"}
    assert "question: is train.jsonl the catalogue? dev.jsonl, test.jsonl could be" in told(
        tmp_path
    )


def test_text_of_an_unknown_kind_is_a_question(tmp_path: Path) -> None:
    jsonl(tmp_path / "items.jsonl", ITEMS)
    (tmp_path / "notes.txt").write_text("The lamp stands in the garden of the house.\n" * 5)
    (tmp_path / "words.txt").write_text("zorblaxine\nXR-2000B\n")
    assert chosen(tmp_path) == {"items": "items.jsonl"}
    findings = told(tmp_path)
    assert "question: what is in notes.txt? text of the domain (corpus) or other text" in findings
    assert "question: what is in words.txt? terms to teach (glossary), text" in findings


def test_judgements_may_hold_the_texts_of_queries(tmp_path: Path) -> None:
    jsonl(tmp_path / "items.jsonl", ITEMS)
    rows = [(f"garden lamp {n}", f"p{n}", n % 3) for n in range(6)]
    lines(tmp_path / "rated.csv", [("query", "docid", "rating"), *rows])
    assert chosen(tmp_path) == {"items": "items.jsonl", "qrels": "rated.csv"}
    assert Data(written(tmp_path).data, tmp_path).queries["garden lamp 2"] == "garden lamp 2"


def test_judgements_without_queries_or_of_other_items_are_left_out(tmp_path: Path) -> None:
    jsonl(tmp_path / "items.jsonl", ITEMS)
    lines(tmp_path / "qrels.csv", [("query-id", "corpus-id", "score"), *GRADES])
    assert chosen(tmp_path) == {"items": "items.jsonl"}
    assert "left out: no file holds the texts of its queries, such as 'q0'" in told(tmp_path)
    others = [("q1", f"x{n}", 1) for n in range(4)]
    lines(tmp_path / "qrels.csv", [("query-id", "corpus-id", "score"), *others])
    assert "judgements of other items: 0% of its item ids are in the catalogue" in told(tmp_path)


def test_pairs_under_other_names_are_read(tmp_path: Path) -> None:
    jsonl(tmp_path / "items.jsonl", ITEMS)
    rows = [(f"lamp for garden {n}", f"p{n}") for n in range(8)]
    lines(tmp_path / "clicks.csv", [("search", "product_id"), *rows])
    assert chosen(tmp_path) == {"items": "items.jsonl", "pairs": "clicks.csv"}
    pairs = Data(written(tmp_path).data, tmp_path).pairs()
    assert pairs[1].document == "Lamp 1\nA lamp number 1 for the garden."
    lines(
        tmp_path / "clicks.csv", [("anchor", "positive"), *((q, f"text of {i}") for q, i in rows)]
    )
    assert Data(written(tmp_path).data, tmp_path).pairs()[2].document == "text of p2"
    lines(tmp_path / "clicks.csv", [("query", "document"), *rows])
    assert Data(written(tmp_path).data, tmp_path).pairs()[1].document.startswith("Lamp 1\n")


def test_a_file_without_names_of_columns(tmp_path: Path) -> None:
    jsonl(tmp_path / "items.jsonl", ITEMS)
    rows = [(f"A man plays {n} guitars in the street today", "A man plays", n) for n in (5, 3)]
    lines(tmp_path / "pairs.tsv", rows, "\t")
    assert chosen(tmp_path) == {"items": "items.jsonl"}
    assert "its first line looks like data: write the names of the columns above" in told(tmp_path)


def test_other_files_are_named_with_a_reason(tmp_path: Path) -> None:
    jsonl(tmp_path / "items.jsonl", ITEMS)
    (tmp_path / "README.md").write_text("About.")
    (tmp_path / "items.zip").write_bytes(b"PK\0\1")
    (tmp_path / "more.json").write_text("[1]")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\0")
    (tmp_path / "broken.jsonl.gz").write_bytes(b"not gzip")
    (tmp_path / ".hidden.jsonl").write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{}")
    (tmp_path / "run" / "items.jsonl").write_text("{}")
    findings = told(tmp_path)
    for shown in (
        "left out: describes the data",
        "left out: an archive: unpack it",
        "left out: of a type that cannot be read",
        "left out: cannot be read: ",
    ):
        assert shown in findings, shown
    assert "hidden" not in findings
    assert "run/" not in findings


def test_links_to_a_folder_above_are_not_followed(tmp_path: Path) -> None:
    jsonl(tmp_path / "items.jsonl", ITEMS)
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    findings = told(tmp_path)
    assert "again" not in findings
    assert "gone.jsonl" in findings
    assert "left out: cannot be read: " in findings
    assert chosen(tmp_path) == {"items": "items.jsonl"}


def test_numbers_may_be_ids_of_queries_and_of_items(tmp_path: Path) -> None:
    """The queries decide, not that the catalogue has the same numbers."""
    jsonl(tmp_path / "items.jsonl", [{**item, "id": n} for n, item in enumerate(ITEMS)])
    jsonl(tmp_path / "queries.jsonl", [{**query, "id": n} for n, query in enumerate(QUERIES)])
    rows = [("query-id", "corpus-id", "score"), *((n, n + 1, 1) for n in range(4))]
    lines(tmp_path / "graded.csv", rows)
    assert chosen(tmp_path)["qrels"] == "graded.csv"
    jsonl(tmp_path / "queries.jsonl", [{**query, "id": n + 2} for n, query in enumerate(QUERIES)])
    assert "50% of the queries judged in graded.csv are in queries.jsonl: do both use" in told(
        tmp_path
    )


def test_a_log_of_four_columns_is_not_trec(tmp_path: Path) -> None:
    jsonl(tmp_path / "items.jsonl", [{**item, "id": n} for n, item in enumerate(ITEMS)])
    lines(tmp_path / "u.txt", [(n, n + 1, 4, 881250949) for n in range(9)], "\t")
    assert chosen(tmp_path) == {"items": "items.jsonl"}


def test_a_run_that_would_stop_is_announced(tmp_path: Path) -> None:
    jsonl(tmp_path / "items.jsonl", [*ITEMS * 100, {**ITEMS[0], "id": ""}])
    with_copies = [{**item, "sku": n} for n, item in enumerate(ITEMS)]
    jsonl(
        tmp_path / "items.jsonl", [*with_copies, *[{**ITEMS[0], "sku": n} for n in range(90, 1200)]]
    )
    findings = told(tmp_path)
    assert "ids in sku" in findings
    jsonl(tmp_path / "items.jsonl", [{"id": n, "text": "a lamp"} for n in [*range(1100), 1]])
    assert "idiolect run would stop: " in told(tmp_path)
    assert "two items have the id '1'" in told(tmp_path)


def uncommented(text: str, wanted: str = "") -> str:
    """Turn the comments with a key into settings: all, or the one that is wanted."""
    comment = re.compile(r"# (\w+ = .*)")
    return "\n".join(
        match[1] if (match := comment.fullmatch(line)) and wanted in ("", line) else line
        for line in text.splitlines()
    )


def test_every_key_is_described_and_its_default_is_true(tmp_path: Path) -> None:
    jsonl(tmp_path / "items.jsonl", ITEMS)
    text = survey(tmp_path, base="model").text
    path = tmp_path / "some.toml"
    path.write_text(text)
    usual = PipelineConfig.load(path)
    comments = [line for line in text.splitlines() if re.fullmatch(r"# \w+ = .*", line)]
    assert len(comments) > 20
    for wanted in ("", *comments):
        path.write_text(uncommented(text, wanted))
        found = PipelineConfig.load(path)
        assert found == usual, wanted
        assert found.model_dump() == usual.model_dump(), wanted
    values = tomllib.loads(uncommented(text))
    assert set(values) == set(PipelineConfig.model_fields)
    for table, kind in PipelineConfig.model_fields.items():
        if isinstance(values[table], dict):
            assert values[table].keys() == kind.annotation.model_fields.keys()
    assert "# Share of general text, if there is any." in text


def test_a_run_with_all_defaults_written_out(tmp_path: Path) -> None:
    """The smallest numbers apart, every default is taken from the comments."""
    open_shop(tmp_path)
    text = uncommented(survey(tmp_path, base="model").text)
    small = {
        "steps": 2, "max_rows": 4, "contexts": 1, "batch_size": 4, "windows": 2,
        "controls": "false",
    }  # fmt: skip
    for key, value in small.items():
        text = re.sub(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
    (tmp_path / "idiolect.toml").write_text(text)
    metrics = json.loads((run(tmp_path / "idiolect.toml") / "metrics.json").read_text())
    assert metrics["evaluate"]["search"]["queries"] == len(KINDS)


def test_a_real_collection_in_trec_files(shared: Path) -> None:
    found = survey(shared / "data" / "cranfield", base="model")
    data = tomllib.loads(found.text)["data"]
    assert {key: data[key] for key in ("items", "queries", "qrels")} == {
        "items": "cran.all.1400.xml.gz", "queries": "cran.qry.xml", "qrels": "cranqrel.trec.txt"
    }  # fmt: skip
    # Its judgements name queries by their position, not by their number.
    assert any("do both use the same ids?" in line for line in found.findings)


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("onlineretail", "a log of what users did (CustomerID)"),
        ("icecat-chorus", "judgements of a missing catalogue"),
        ("stsb-multi-mt", "its first line looks like data"),
        ("openstax", "no table with ids and texts"),
    ],
)
def test_real_folders_without_a_catalogue(shared: Path, folder: str, why: str) -> None:
    seen: list[str] = []
    with pytest.raises(InputError, match="holds no catalogue"):
        survey(shared / "data" / folder, base="model", report=seen.append)
    assert why in "\n".join(seen)


def test_names_that_need_quoting(tmp_path: Path) -> None:
    folder = tmp_path / 'a "b" \\ [1]'
    jsonl(folder / "items.jsonl", ITEMS)
    assert Data(written(tmp_path).data, tmp_path).items.keys() >= {"p1", "p2"}


def test_fields_of_a_table_of_another_shop(tmp_path: Path) -> None:
    (tmp_path / "products.csv").write_text(
        "sku,name,description,price\na1,Lamp,A lamp for the garden,3\nb2,Pump,A pump,4\n"
    )
    found = written(tmp_path)
    assert (found.data.items, found.data.id, found.data.title) == ("products.csv", "sku", "name")
    assert found.data.text == ("name", "description")
    item = Data(found.data, tmp_path).items["a1"]
    assert item.text == "Lamp\nA lamp for the garden"
    assert item.metadata == {"price": 3, "name": "Lamp", "title": "Lamp"}


def test_an_id_is_a_field_with_unique_values(tmp_path: Path) -> None:
    rows = [{"kind": "lamp", "code": f"x{i}", "words": "some words here"} for i in range(3)]
    write(tmp_path / "things.jsonl", rows)
    found = written(tmp_path)
    assert (found.data.items, found.data.id) == ("things.jsonl", "code")
    assert found.data.text == ("words",)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("notes.md", "hello", "holds no catalogue"),
        ("items.jsonl", "", "is empty"),
        ("items.jsonl", '{"id": 1, "n": 2}\n{"id": 2, "n": 2}\n', "no field with text"),
        ("items.jsonl", '{"a": "x"}\n{"a": "x"}\n', "no field with unique values"),
    ],
)
def test_invalid_catalogues(tmp_path: Path, file: str, content: str, message: str) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=message):
        survey(tmp_path, base="model")


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        survey(tmp_path / "nowhere", base="model")


def test_the_command_lists_what_it_saw_and_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(b"PK\0")
    refused = CliRunner().invoke(app, ["init", str(tmp_path)])
    assert refused.exit_code != 0
    assert "left out: an archive: unpack it" in refused.output
    assert not (tmp_path / "idiolect.toml").exists()
    jsonl(tmp_path / "items.jsonl", ITEMS)
    done = CliRunner().invoke(app, ["init", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "taken as items" in done.output
    (tmp_path / "idiolect.toml").write_text("# mine\n")
    assert CliRunner().invoke(app, ["init", str(tmp_path)]).exit_code != 0
    assert (tmp_path / "idiolect.toml").read_text() == "# mine\n"
