"""`idiolect index` and `search` with own vectors, with many queries, and with runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.program import idiolect_program
from idiolect.encoding.encoder import Encoder
from idiolect.search.index import Index
from search.words import Words

RECORDS = [
    {"id": 1, "text": "Red lamp\nIt folds. It gives warm light.", "own": [1, 0, 0], "price": 20},
    {"id": 2, "text": "Blue lamp", "own": [0.8, 0.6, 0], "price": 30},
    {"id": 3, "text": "Oak table\nIt has four legs.", "own": [0, 0, 1]},
]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("items.jsonl").write_text("\n".join(map(json.dumps, RECORDS)))
    np.save("items.npy", np.array([record["own"] for record in RECORDS], np.float32))
    np.save("queries.npy", np.eye(3))


def _run(*arguments: object) -> str:
    done = idiolect_program(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _fails(*arguments: object) -> str:
    done = idiolect_program(*arguments)
    assert done.returncode == 2, done.stdout
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def _json(*arguments: object) -> list[Any]:
    return [json.loads(line) for line in _run(*arguments).splitlines()]


def _without_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("an encoder was loaded")

    monkeypatch.setattr(Encoder, "load", load)


@pytest.mark.parametrize("vectors", ["own", "items.npy"])
def test_own_vectors_are_built_searched_changed_and_read(
    vectors: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_loading(monkeypatch)
    built = _run("index", "build", "shop", "items.jsonl", "--vectors", vectors)
    assert "3 items written" in built
    assert "3 dimensions" in built
    found = _json("search", "shop", "--vectors", "queries.npy", "-n", 1, "--json")
    assert [(hit["query"], hit["id"]) for hit in found] == [(0, "1"), (1, "2"), (2, "3")]
    assert found[1]["score"] == pytest.approx(0.6)
    assert {hit["id"] for hit in _json("search", "shop", "lamp", "--json")} == {"1", "2"}
    told = idiolect_program("search", "shop", "lamp").stderr
    assert "by words alone: the vectors of this index came with its items" in told
    assert _run("index", "add", "shop", "items.jsonl", "--vectors", vectors).startswith("0 items w")
    assert _run("index", "update", "shop", 2, "--vector", "[0, 0, 2]", "--metadata", '{"a": 1}')
    (item,) = _json("index", "get", "shop", 2)
    assert (item["text"], item["vector"], item["metadata"]["a"]) == ("Blue lamp", [0, 0, 2], 1)
    assert _json("similar", "shop", 3, "-n", 1, "--json")[0]["id"] == "2"
    assert _run("index", "delete", "shop", 2) == "deleted 1 items\n"
    info = json.loads(_run("index", "info", "shop", "--json"))
    assert (info["items"], info["dimensions"], info["encoder"]) == (2, 3, None)
    assert info["namespaces"][""]["items"] == 2
    assert "the vectors came with the items" in _run("index", "info", "shop")


def test_a_file_of_queries_is_searched() -> None:
    _run("index", "build", "shop", "items.jsonl", "--vectors", "own")
    Path("queries.txt").write_text("lamp\ntable\nzebra\n")
    rows = [{"id": n, "query": text} for n, text in enumerate(("lamp", "table", "zebra"))]
    Path("queries.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name in ("queries.txt", "queries.jsonl"):
        options = ("--queries", name, "-n", 1, "--mode", "lexical")
        found = _json("search", "shop", *options, "--json")
        assert [(hit["query"], hit["id"]) for hit in found] == [("lamp", "2"), ("table", "3")]
        shown = _run("search", "shop", *options)
        assert re.search(r"lamp\n1\. 2  .*zebra\nnothing found", shown, re.DOTALL)


def test_a_result_is_a_title_the_matching_passage_and_metadata() -> None:
    _run("index", "build", "shop", "items.jsonl", "--vectors", "own", "--metadata", "price")
    lines = _run("search", "shop", "warm", "--mode", "lexical").splitlines()
    assert re.fullmatch(r"1\. 1  \d\.\d{3} *", lines[0])
    assert [line.strip() for line in lines[1:]] == [
        "Red lamp",
        "It folds. It gives warm light.",
        "price=20",
    ]
    assert [line.strip() for line in _run("similar", "shop", 2, "-n", 1).splitlines()][1:] == [
        "Red lamp",
        "It folds. It gives warm light.",
        "price=20",
    ]


def test_a_run_stands_for_its_index_and_its_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Encoder, "load", lambda source, **_: Words(Path(source).read_text()))
    stages = Path("run/stages")
    for folder in (stages / "tune", stages / "index"):
        folder.mkdir(parents=True)
    assert "the run run has no index yet" in _fails("index", "info", "run")
    (stages / "tune" / "model").mkdir()
    assert "has no index yet" in _fails("search", "run", "lamp")
    (stages / "tune" / "model").rmdir()
    (stages / "tune" / "model").write_text("words")
    (stages / "index" / "chosen.json").write_text('{"system": "tuning"}')
    model = stages / "tune" / "model"
    Index.build(stages / "index" / "index", str(model), [("9", "green lamp")]).close()
    assert "1 items" in _run("index", "info", "run")
    assert "3 items written" in _run("index", "add", "run", "items.jsonl")
    assert _run("search", "run", "crimson light", "-n", 1, "--mode", "dense").startswith("1. ")
    assert "no damage" in _run("index", "verify", "run")
    assert _run("index", "build", "other", "items.jsonl", "--encoder", "run")
    location = json.loads(_run("index", "info", "other", "--json"))["encoder"]["location"]
    assert location == str(model.resolve())
    model.rename("elsewhere")
    error = _fails("search", "other", "lamp")
    assert f"is not at {model.resolve()} any more (pass --encoder PATH, where it is now)" in error
    assert _run("search", "other", "lamp", "--encoder", "elsewhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("index", "build", "new", "items.jsonl"), "add --encoder, .* or --vectors"),
        (("index", "build", "new", "items.jsonl", "--vectors", "price"), "not a list of numbers"),
        (("index", "build", "new", "items.jsonl", "--vectors", "item.npy"), "mean items.npy"),
        (("index", "build", "new", "item.jsonl", "--vectors", "own"), "mean items.jsonl"),
        (("index", "build", "new", "items.jsonl", "--vectors", "wide.npy"), "has 4 rows, but"),
        (("index", "add", "shop", "items.jsonl", "--vectors", "wide.npy"), "has 4 rows, but"),
        (("search", "shop", "--vectors", "wide.npy"), "query 0: its vector has 5 dimensions"),
        (("search", "shop", "--vectors", "items.jsonl"), "is not a file of NumPy"),
        (("search", "shop"), "a QUERY, --queries FILE or --vectors FILE"),
        (("search", "shop", "lamp", "--vectors", "queries.npy"), "search for one thing"),
        (("search", "shop", "lamp", "--mode", "dense"), "need an encoder .*--mode lexical"),
        (("search", "shpo", "lamp"), "shpo does not exist .did you mean shop"),
        (("search", "shop", "lamp", "--namespace", "x"), "no namespace 'x'"),
        (("search", "shop", "lamp", "--filter", '{"prise": 1}'), "did you mean price"),
        (("similar", "shop", "4"), "no item '4'"),
        (("index", "get", "shop", "1", "4"), "no item '4'"),
        (("index", "update", "shop", "1"), "nothing to change"),
        (("index", "update", "shop", "1", "--vector", "[1]"), "has 1 dimensions, the store has 3"),
        (("index", "update", "shop", "1", "--metadata", "[1]"), "metadata is not a JSON object"),
        (("index", "restore", "shop", "x"), "no snapshot 'x'"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    np.save("wide.npy", np.ones((4, 5)))
    _run("index", "build", "shop", "items.jsonl", "--vectors", "own")
    assert re.search(message, idiolect_program(*arguments).stderr.splitlines()[-1])
    assert not Path("new").exists()
