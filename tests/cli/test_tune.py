"""`idiolect tune` as a person runs it: files in, an encoder out, and errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from encoding import tuning
from idiolect.cli.main import app
from idiolect.encoding.encoder import Encoder
from idiolect.errors import IdiolectError
from training import models

runner = CliRunner()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tuning.encoder().save(tmp_path / "model")
    pairs = tuning.pairs(12)
    records = [{"query": pair.query, "document": pair.document} for pair in pairs]
    _write(tmp_path / "pairs.jsonl", records)
    _write(
        tmp_path / "ids.jsonl",
        [{"query": f"q{i}", "document": f"d{i}", "negative": f"d{i - 1}"} for i in range(1, 12)],
    )
    for kind, texts in (("q", [p.query for p in pairs]), ("d", [p.document for p in pairs])):
        numbered = [{"_id": f"{kind}{i}", "text": text} for i, text in enumerate(texts)]
        _write(tmp_path / f"{kind}.jsonl", numbered)
    (tmp_path / "text.txt").write_text("\n".join(models.texts(20)))
    return tmp_path


def _write(path: Path, records: list[dict[str, str]]) -> None:
    path.write_text("\n".join(map(json.dumps, records)))


def _run(folder: Path, source: str, *options: str) -> str:
    arguments = [str(folder / "model"), str(folder / source), "-o", str(folder / "run")]
    result = runner.invoke(app, ["tune", *arguments, "--batch-size", "4", "--steps", "2", *options])
    if isinstance(result.exception, IdiolectError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_help_shows_an_example() -> None:
    assert "idiolect tune ./minilm" in runner.invoke(app, ["tune", "--help"]).output


def test_pairs_with_mined_negatives(folder: Path) -> None:
    options = ["--negatives", "1", "--corpus", str(folder / "text.txt"), "--dimensions", "8,4"]
    assert str(folder / "run" / "model") in _run(folder, "pairs.jsonl", *options)
    record = json.loads((folder / "run" / "run.json").read_text())
    assert record["mining"] == {"count": 1, "pool": 30, "margin": 0.95}
    assert "dimensions=(16, 8, 4)" in record["loss"]
    assert Encoder.load(folder / "run" / "model").trained_dimensions == (8, 4)


def test_pairs_of_ids(folder: Path) -> None:
    options = ["--queries", str(folder / "q.jsonl"), "--documents", str(folder / "d.jsonl")]
    _run(folder, "ids.jsonl", *options, "--loss", "triplet", "--margin", "0.5")
    record = json.loads((folder / "run" / "run.json").read_text())
    assert record["loss"] == "Triplet(margin=0.5)"


@pytest.mark.parametrize("objective", ["simcse", "crops", "tsdae"])
def test_text_alone(folder: Path, objective: str) -> None:
    _run(folder, "text.txt", "--objective", objective)
    assert json.loads((folder / "run" / "run.json").read_text())["objective"] == objective


@pytest.mark.parametrize(("layers", "modules"), [("0", "StaticEmbedding"), ("1", "Transformer")])
def test_an_encoder_of_the_first_layers(folder: Path, layers: str, modules: str) -> None:
    _run(folder, "pairs.jsonl", "--layers", layers)
    steps = json.loads((folder / "run" / "model" / "modules.json").read_text())
    assert steps[0]["type"].endswith(modules)
    tuned = Encoder.load(folder / "run" / "model")
    assert len(tuned.model.network.blocks) == int(layers)


def test_a_static_encoder_keeps_its_rows(folder: Path) -> None:
    _run(folder, "pairs.jsonl", "--layers", "0", "--train", "rows")
    start, tuned = Encoder.load(folder / "model"), Encoder.load(folder / "run" / "model")
    rows = start.with_changes(layers=0, max_length=None).model.network.tokens.weight
    assert torch.equal(tuned.model.network.tokens.weight, rows)
    assert tuned.projection is not None


def test_a_teacher_is_imitated(folder: Path) -> None:
    _run(folder, "text.txt", "--objective", "imitate", "--teacher", str(folder / "model"))
    (line, *_) = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["loss"] == pytest.approx(0, abs=1e-5), "it is its own teacher"
    with pytest.raises(IdiolectError, match="'pairs' has no teacher"):
        _run(folder, "pairs.jsonl", "--teacher", str(folder / "model"))


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("pairs.jsonl", ["--query", "claim"], r"line 1 has no field claim \(there are query, d"),
        ("nothing.jsonl", [], "no such file"),
        ("pairs.jsonl", ["--dimensions", "8;4"], "--dimensions 8;4"),
        (
            "pairs.jsonl",
            ["--objective", "mlm"],
            r"'mlm' \(one of pairs, simcse, titles, headings, crops, parts, tsdae, imitate\)",
        ),
        ("pairs.jsonl", ["--margin", "1"], "the loss infonce has no margin"),
        ("pairs.jsonl", ["--loss", "kl"], "scores, and the pairs have none"),
    ],
)
def test_bad_input_is_reported(folder: Path, source: str, options: list[str], words: str) -> None:
    with pytest.raises(IdiolectError, match=words):
        _run(folder, source, *options)


def test_skipped_records_are_reported(folder: Path) -> None:
    with (folder / "pairs.jsonl").open("a") as file:
        file.write('\n{"query": "", "document": "x"}')
    (folder / "more.txt").write_text("one\n\ntwo")
    printed = _run(folder, "pairs.jsonl", "--negatives", "1", "--corpus", str(folder / "more.txt"))
    assert "skipped 1 records: empty (pairs.jsonl line 13)" in printed
    assert "skipped 1 records of the corpus: empty (more.txt line 2)" in printed


def test_a_stray_quote_loses_no_pair(folder: Path) -> None:
    rows = [f'query {n};a 24" thing {n}' for n in range(12)]
    (folder / "pairs.csv").write_text("\n".join(["query;document", *rows]))
    _run(folder, "pairs.csv")
    (folder / "pairs.csv").write_text("\n".join(["query;document", *rows, "one"]))
    with pytest.raises(IdiolectError, match=r"1 of 13 lines .*pairs.csv line 14"):
        _run(folder, "pairs.csv")
    assert "skipped 1 records: malformed CSV" in _run(
        folder, "pairs.csv", "--max-unreadable", "0.1"
    )


def test_layers_chosen_by_pairs_kept_out(folder: Path) -> None:
    pairs = tuning.pairs(52)
    _write(folder / "many.jsonl", [{"query": p.query, "document": p.document} for p in pairs])
    _run(folder, "many.jsonl", "--layers", "auto")
    record = json.loads((folder / "run" / "depths.json").read_text())
    tuned = Encoder.load(folder / "run" / "model")
    assert len(tuned.model.network.blocks) == record["layers"]
    assert {trial["layers"] for trial in record["trials"]} >= {0, 2}


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("pairs.jsonl", ["--layers", "two"], "--layers is 'two'"),
        ("pairs.jsonl", ["--layers", "-1"], "--layers is '-1'"),
        ("pairs.jsonl", ["--layers", "9"], "9 layers; the network has"),
        ("pairs.jsonl", ["--layers", "auto"], "12 different queries are too few"),
        ("text.txt", ["--layers", "auto", "--objective", "crops"], "layers cannot be chosen"),
    ],
)
def test_layers_that_are_refused(
    folder: Path, source: str, options: list[str], message: str
) -> None:
    with pytest.raises(IdiolectError, match=message):
        _run(folder, source, *options)
