"""`idiolect index`, `search` and `similar` from the command line, with a small encoder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from idiolect.cli.main import app
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.errors import IdiolectError, InputError
from idiolect.search.store.store import Store

PRODUCTS = [
    {"id": 1, "title": "red lamp", "price": 20.0, "brand": "acme"},
    {"id": 2, "title": "blue lamp", "price": 30.5, "brand": "bolt"},
    {"id": 3, "title": "oak table", "price": 200, "brand": "bolt", "wood": "oak", "tags": []},
    {"title": "no id", "price": 1},
    {"id": 5, "price": 1},
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with records; `Encoder.load` returns an encoder without weights."""

    class Letters:
        """Encodes a text as its letter counts."""

        dimensions = 26
        fingerprint = "letters"

        def encode(self, texts: list[str], **_: Any) -> np.ndarray:
            counts = [[text.lower().count(chr(97 + n)) for n in range(26)] for text in texts]
            return np.array(counts, np.float32)

    monkeypatch.setattr(Encoder, "load", lambda source: Letters())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "products.jsonl").write_text("\n".join(map(json.dumps, PRODUCTS)))
    (tmp_path / "more.csv").write_text("id,title,price,brand\n4,green lamp,12.5,acme\n007,old,,x\n")
    return tmp_path


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})


def _fails(*arguments: str) -> IdiolectError:
    result = _run(*arguments)
    assert isinstance(result.exception, IdiolectError), result.output
    return result.exception


@pytest.fixture
def index(here: Path) -> str:
    result = _run("index", "build", "idx", "products.jsonl", "--encoder", "letters")
    assert result.exit_code == 0, result.output
    assert "3 items written, 0 unchanged" in result.output
    assert "skipped 1 records: no id" in result.output
    assert "skipped 1 records: no field" in result.output
    return "idx"


def _found(*arguments: str) -> list[str]:
    result = _run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line)["id"] for line in result.output.splitlines()]


def test_build_add_search_delete(index: str) -> None:
    assert _found("search", index, "lamp", "-n", "2") == ["2", "1"]
    assert _found("search", index, "lamp", "--filter", '{"price": {"$gt": 25}}')[0] == "2"
    assert _found("search", index, "table", "--mode", "lexical") == ["3"]
    assert _found("similar", index, "1", "-n", "1") == ["2"]
    result = _run("index", "add", index, "more.csv")
    assert "2 items written, 0 unchanged" in result.output
    assert _found("search", index, "lamp", "--filter", '{"price": 12.5}') == ["4"]
    assert _found("search", index, "old", "--mode", "lexical") == ["007"]
    again = _run("index", "build", index, "products.jsonl", "--encoder", "letters")
    assert "0 items written, 3 unchanged" in again.output
    assert _run("index", "delete", index, "1", "nope").output == "deleted 1 items\n"
    assert "deleted 2" in _run("index", "delete", index, "--filter", '{"brand":"bolt"}').output
    assert sorted(_found("search", index, "lamp")) == ["007", "4"]


def test_rich_markup_in_data_is_printed_literally(here: Path) -> None:
    record = {"id": "lamp[red]", "title": "a lamp", "col[/x]": 1}
    (here / "odd.jsonl").write_text(json.dumps(record))
    assert _run("index", "build", "o[v2]", "odd.jsonl", "--encoder", "letters").exit_code == 0
    assert "lamp[red]" in _run("search", "o[v2]", "lamp").output
    shown = _run("index", "info", "o[v2]").output
    assert "o[v2]: 1 items" in shown
    assert "col[/x]" in shown


def test_a_lexical_search_imports_what_it_needs(index: str) -> None:
    code = (
        "import sys; from idiolect.cli.main import app; "
        "app(sys.argv[1:], standalone_mode=False); "
        "print(sorted({'rich', 'numba', 'torch', 'idiolect.cli.tune'} & set(sys.modules)))"
    )
    words = ("search", index, "lamp", "--mode", "lexical")
    command = [sys.executable, "-c", code, *words]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert "red lamp" in run.stdout
    assert lines[-1] == "[]"


def test_an_export_does_not_write_into_the_index(index: str) -> None:
    error = _fails("index", "export", index, "--to", "jsonl", "-o", f"{index}/ledger.db")
    assert "inside the index" in str(error)
    assert _found("search", index, "lamp", "-n", "1")


def test_tables_show_the_results(index: str) -> None:
    shown = _run("search", index, "red lamp", "-n", "2").output
    assert "red lamp" in shown
    assert "price=20.0  brand=acme" in shown
    assert "\x02" not in shown
    shown = _run("search", index, "table", "--mode", "lexical").output
    assert "price=200" in shown
    assert "wood=" not in shown, "the text starts with it"
    assert "tags=" not in shown
    assert _run("search", index, "zzz", "--mode", "lexical").output == "nothing found\n"
    info = _run("index", "info", index).output
    assert "3 items, 26 dimensions, cosine" in info
    assert "brand, price" in info
    assert "encoder letters" in info
    assert "language en" in info
    assert "vectors 40%, words 60%: the default for an encoder that was published as" in info


def test_the_weight_of_vectors_is_fitted_and_told(index: str) -> None:
    Path("answers.csv").write_text("query,id\nlamp,1\nlamp,2\ntable,3\n")
    shown = _run("index", "fit-fusion", index, "--qrels", "answers.csv").output
    assert "2 queries with known answers: nDCG@10 1.000, words alone 1.000" in shown
    assert shown.splitlines()[-1] in _run("index", "info", index).output
    unknown = ("--qrels", "answers.csv", "--namespace", "shop")
    assert "no namespace 'shop'" in str(_fails("index", "fit-fusion", index, *unknown))
    assert shown.splitlines()[-1] in _run("index", "info", index).output
    with Store.open(index) as store:
        store.remember(dense_percent=0)
    result = _run("search", index, "red lamp")
    assert "by words alone, vectors have no weight: 2 queries with known answers" in result.stderr
    assert "red lamp" in result.stdout


def test_the_language_is_chosen_per_index(here: Path) -> None:
    Path("lampen.jsonl").write_text(json.dumps({"id": "1", "title": "rote Lampen 赤いランプ"}))
    options = ("lampen.jsonl", "--encoder", "letters", "--language")
    assert "unknown language 'german'" in str(_fails("index", "build", "de", *options, "german"))
    assert _run("index", "build", "de", *options, "de").exit_code == 0
    assert _found("search", "de", "Lampe", "--mode", "lexical") == ["1"]
    assert _found("search", "de", "ランプ", "--mode", "lexical") == ["1"]
    assert "language de" in _run("index", "info", "de").output
    refused = _fails("index", "build", "de", *options, "fr")
    assert "built with the language de, not fr" in str(refused)


def test_verify_lists_damage_and_compact_repairs_it(index: str) -> None:
    import sqlite3

    assert "no damage found" in _run("index", "verify", index).output
    with sqlite3.connect(Path(index) / "ledger.db") as db:
        db.execute("DELETE FROM facts WHERE value = 'acme'")
    db.close()
    result = _run("index", "verify", index)
    assert result.exit_code == 1
    assert "its brand is missing from the filters" in result.output
    assert _run("index", "compact", index, "--rebuild").exit_code == 0
    assert _run("index", "verify", index).exit_code == 0


def test_snapshot_and_restore(index: str) -> None:
    assert _run("index", "snapshot", index, "first").exit_code == 0
    _run("index", "delete", index, "1", "2")
    assert _run("index", "restore", index, "first").output == "restored 3 items\n"
    assert _found("search", index, "lamp", "-n", "2") == ["2", "1"]


def test_export(index: str, here: Path) -> None:
    pytest.importorskip("milvus_lite")
    assert (
        "3 items to a.jsonl"
        in _run("index", "export", index, "--to", "jsonl", "-o", "a.jsonl").output
    )
    records = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    assert {r["id"]: r["metadata"] for r in records}["1"] == {"price": 20.0, "brand": "acme"}
    _run("index", "export", index, "--to", "parquet", "-o", "a.parquet")
    table = pq.read_table("a.parquet").to_pylist()
    assert [row["id"] for row in table] == [record["id"] for record in records]
    assert [row["vector"] for row in table] == [record["vector"] for record in records]
    to = ("--to", "milvus", "--uri", "a.db", "--collection", "things")
    assert "3 items to collection things" in _run("index", "export", index, *to).output
    from idiolect.search.milvus.milvus_store import MilvusStore

    with MilvusStore.open("a.db", "things") as moved:
        assert moved.settings["encoder"] == "letters"
        assert moved.fetch(["1"])["1"].metadata == {"price": 20.0, "brand": "acme"}
        assert [hit.id for hit in moved.match("oak", 3)] == ["3"]
    assert sorted(path.name for path in here.iterdir() if path.name.startswith(".")) == []


def test_errors_are_one_line(index: str) -> None:
    assert "no item has the field 'colour'" in str(
        _fails("search", index, "lamp", "--mode", "lexical", "--filter", '{"colour": 1}')
    )
    assert "at price" in str(_fails("search", index, "x", "--filter", '{"price": {"$x": 1}}'))
    assert isinstance(_fails("index", "info", "nowhere"), InputError)
    assert isinstance(_fails("similar", index, "99"), InputError)
    assert "needs an output file" in str(_fails("index", "export", index, "--to", "jsonl"))
    Path("a.jsonl").write_text('{"title": "x"}')
    build = ("index", "build", "other", "a.jsonl", "--encoder", "letters")
    assert "which field holds the id? There are title" in str(_fails(*build))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "id,title\n1,a\n2\n", r"1 of 2 lines .*1 malformed CSV \(a.csv line 3\)"),
        ("a.CSV", "", "no items in .*there are no records"),
        ("a.jsonl", '{"id": 1, "title": ["a"]}', "which field holds the text"),
        ("a.jsonl", '{"id": 1, "title": "a"}\n{"id"', r"1 malformed JSON \(a.jsonl line 2\)"),
        ("a.tsv", "\n", "no items in .*there are no records"),
    ],
)
def test_files_that_cannot_be_read_leave_nothing(
    here: Path, name: str, text: str, words: str
) -> None:
    (here / name).write_text(text)
    error = _fails("index", "build", "idx", name, "--encoder", "letters")
    assert re.search(words, str(error))
    assert not (here / "idx").exists()


def test_no_row_is_lost_to_a_quote(here: Path) -> None:
    (here / "a.csv").write_text('id;title;zip\n1;24" lamp;02139\n2;"red; lamp";10001\n')
    result = _run("index", "build", "idx", "a.csv", "--encoder", "letters")
    assert "2 items written" in result.output
    assert _found("search", "idx", "lamp", "--filter", '{"zip": "10001"}') == ["2"]


def test_unreadable_rows_may_be_allowed(here: Path) -> None:
    (here / "a.csv").write_text("id,title\n1,lamp\n2\n")
    options = ("--encoder", "letters", "--max-unreadable", "0.5")
    result = _run("index", "build", "idx", "a.csv", *options)
    assert "1 items written" in result.output
    assert "skipped 1 records: malformed CSV (a.csv line 3)" in result.output


def test_truncated_texts_of_all_batches_are_told_once(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short:
        dimensions = 2
        fingerprint = "short"

        def encode(self, texts: list[str], *, counts: EncodingCounts, **_: Any) -> np.ndarray:
            counts.add(EncodingCounts(texts=len(texts), truncated=len(texts), lost=2 * len(texts)))
            return np.ones((len(texts), 2), np.float32)

    monkeypatch.setattr(Encoder, "load", lambda source: Short())
    records = [json.dumps({"id": str(n), "text": f"lamp {n}"}) for n in range(600)]  # two batches
    (here / "many.jsonl").write_text("\n".join(records))
    told = "600 of 600 encoded texts are longer"
    assert _run("index", "build", "idx", "many.jsonl", "--encoder", "short").output.count(told) == 1
    (here / "many.jsonl").write_text("\n".join(records).replace("lamp", "desk"))
    assert _run("index", "add", "idx", "many.jsonl", "--encoder", "short").output.count(told) == 1


def test_metadata_that_cannot_be_stored_stops_or_is_left_out(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = [
        {"id": "1", "title": "red lamp", "price": 10**400, "n": 10**400},
        {"id": "2", "title": "blue lamp", "price": 3},
    ]
    (here / "odd.jsonl").write_text("\n".join(map(json.dumps, records)))
    build = ("index", "build", "idx", "odd.jsonl", "--encoder", "letters")
    error = _fails(*build)
    assert isinstance(error, InputError)
    assert "item '1': its metadata is not JSON at price: a whole number of over 1,023 bits" in str(
        error
    )
    assert "skip_invalid_metadata" in str(error)
    result = _run(*build, "--skip-invalid-metadata")
    assert result.exit_code == 0, result.output
    assert "2 items written" in result.output
    assert "left out 2 metadata fields" in caplog.text
    assert "price: a whole number of over 1,023 bits (1)" in caplog.text
    assert (
        "2 unchanged" in _run("index", "add", "idx", "odd.jsonl", "--skip-invalid-metadata").output
    )


def test_records_with_one_id_are_counted(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    (here / "twice.jsonl").write_text(
        "\n".join(f'{{"id": "{id}", "title": "lamp {n}"}}' for n, id in enumerate("abab"))
    )
    result = _run("index", "build", "idx", "twice.jsonl", "--encoder", "letters")
    assert "2 items written" in result.output
    assert "2 items had the id of an earlier one and replaced it: 'a', 'b'" in caplog.text
    assert "lamp 3" in _run("search", "idx", "lamp", "--json", "--mode", "lexical").output


def test_an_index_on_disk(index: str, here: Path) -> None:
    arguments = ("index", "build", "disk", "products.jsonl", "--encoder", "letters", "--on-disk")
    assert _run(*arguments, "--memory", "2GB").exit_code == 0
    with Store.open(here / "disk") as store:
        assert store.settings["memory"] == "disk"
        assert store.settings["memory_limit"] == 2 * 10**9
    assert _found("search", "disk", "lamp") == _found("search", index, "lamp")
    assert "for example 2GB" in str(_fails(*arguments, "--memory", "plenty").hint)


def test_a_label_field(here: Path) -> None:
    rows = [{"id": str(n), "text": f"lamp {n}", "kind": "ab"[n % 2]} for n in range(6)]
    (here / "kinds.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    arguments = ("kinds.jsonl", "--encoder", "letters", "--label-field", "kind")
    assert "--on-disk" in str(_fails("index", "build", "kinds", *arguments).hint)
    assert _run("index", "build", "kinds", *arguments, "--on-disk").exit_code == 0
    assert "label field kind" in _run("index", "info", "kinds").output
    found = _found("search", "kinds", "lamp", "--filter", '{"kind": "a"}')
    assert sorted(found) == ["0", "2", "4"]
