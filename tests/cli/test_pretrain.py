"""`idiolect pretrain`: from a published model and from nothing, and its errors in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.program import MAIN, SOURCE
from idiolect.cli.main import app
from idiolect.errors import IdiolectError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.training.objectives.objective_registry import objectives
from training import models

runner = CliRunner()

_TOML = """
[model]
model_type = "llama"
hidden_size = 16
intermediate_size = 24
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 64
tie_word_embeddings = true

[training]
steps = 5
max_length = 32
batch_size = 2
learning_rate = 0.01
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    models.model().save(tmp_path / "model")
    models.tokenizer().save(tmp_path / "tokenizer")
    (tmp_path / "text.txt").write_text("\n".join(models.texts()))
    (tmp_path / "new.toml").write_text(_TOML)
    return tmp_path


def _run(folder: Path, *arguments: str) -> str:
    result = runner.invoke(app, ["pretrain", *arguments])
    if isinstance(result.exception, IdiolectError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_help_shows_an_example() -> None:
    assert "idiolect pretrain ./gpt2" in runner.invoke(app, ["pretrain", "--help"]).output


def test_rows_of_a_published_model(folder: Path) -> None:
    out = folder / "run"
    sources = [str(folder / "model"), str(folder / "text.txt")]
    options = ["--out", str(out), "--steps", "3", "--max-length", "32", "--batch-size", "2"]
    assert str(out / "model") in _run(folder, *sources, *options)
    record = json.loads((out / "run.json").read_text())
    chosen = (record["train"], record["objective"], record["config"]["batch_size"])
    assert chosen == ("rows", "causal", 2)
    assert len(LanguageModel.load(out / "model").tokenizer) == 45


def test_adapters_over_a_quantised_base_and_how_they_are_merged(folder: Path) -> None:
    out, model = folder / "run", str(folder / "model")
    options = ["-o", str(out), "--steps", "2", "--max-length", "32", "--batch-size", "2"]
    options += ["--train", "rows+lora", "--lora-r", "4", "--use-rslora", "--use-dora"]
    options += ["--quantization", "nf4", "--gradient-checkpointing"]
    printed = _run(folder, model, str(folder / "text.txt"), *options)
    assert f"the adapter alone is in {out / 'adapter'}" in printed
    command = f"idiolect merge {model} {out} -o DIRECTORY"
    assert command in printed
    record = json.loads((out / "run.json").read_text())
    assert (record["quantization"], record["config"]["gradient_checkpointing"]) == ("nf4", True)
    adapter = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["use_rslora"], adapter["use_dora"]) == (4, True, True)
    merged = folder / "merged"
    result = runner.invoke(app, ["merge", model, str(out), "-o", str(merged)])
    assert result.exit_code == 0, result.output
    assert f"4 adapted layers merged into the full-precision weights of {model}" in result.output
    assert "the adapter was trained over the base in nf4" in result.output
    as_trained = ["merge", model, str(out), "-o", str(merged), "--quantization", "nf4"]
    with pytest.raises(InputError, match="already contains a model"):
        runner.invoke(app, as_trained, catch_exceptions=False)
    merged = folder / "as-trained"
    as_trained[as_trained.index("-o") + 1] = str(merged)
    result = runner.invoke(app, as_trained)
    assert "merged into the nf4 values" in result.output
    assert "was trained over" not in result.output
    assert LanguageModel.load(merged).extension == LanguageModel.load(model).extension


def test_skipped_records_of_all_text_are_reported(folder: Path) -> None:
    for name in ("domain.txt", "general.txt", "held-out.txt"):
        (folder / name).write_text("\n \n".join(models.texts()))
    sources = [str(folder / "model"), str(folder / "domain.txt")]
    options = ["-o", str(folder / "run"), "--steps", "1", "--max-length", "32", "--batch-size", "2"]
    others = ["--replay", str(folder / "general.txt"), "--validation", str(folder / "held-out.txt")]
    printed = _run(folder, *sources, *options, *others)
    count = len(models.texts()) - 1
    assert (
        f"skipped {count} records of the text: empty (domain.txt line 2, domain.txt line 4, "
        in printed
    )
    assert " records of the replayed text: empty (general.txt line 2" in printed
    assert " records of the validation text: empty (held-out.txt line 2" in printed


def test_too_many_unreadable_rows_are_an_error(folder: Path) -> None:
    (folder / "domain.jsonl").write_text('{"text": "a"}\n{"text"\n')
    arguments = [str(folder / "model"), str(folder / "domain.jsonl"), "-o", str(folder / "run")]
    with pytest.raises(IdiolectError, match=r"1 of 2 lines .*\(domain.jsonl line 2\)"):
        _run(folder, *arguments, "--steps", "1", "--max-length", "32")
    assert not (folder / "run" / "model").exists()


def test_from_nothing(folder: Path) -> None:
    out = folder / "run"
    sources = [str(folder / "tokenizer"), str(folder / "text.txt")]
    _run(folder, *sources, "--config", str(folder / "new.toml"), "-o", str(out), "--seed", "3")
    record = json.loads((out / "run.json").read_text())
    assert record["unfreeze_original_rows"]
    assert (record["train"], record["config"]["seed"], record["steps"]) == ("all", 3, 5)
    trained = LanguageModel.load(out / "model")
    fresh = LanguageModel.new(trained.settings, trained.tokenizer, seed=3)
    assert not trained.network.tokens.weight.equal(fresh.network.tokens.weight)  # type: ignore[arg-type,operator]


def test_new_weights_are_not_quantized(folder: Path) -> None:
    sources = [str(folder / "tokenizer"), str(folder / "text.txt"), "-o", str(folder / "run")]
    with pytest.raises(IdiolectError, match="--quantization would have no effect: --config"):
        _run(folder, *sources, "--config", str(folder / "new.toml"), "--quantization", "int8")


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[model", "new.toml:"),
        ("[training]\nsteps = 3", "no table"),
        ('[model]\nmodel_type = "nothing"\n[training]\nsteps = 1', "unknown model type"),
        (_TOML + "colour = 1", "unknown training settings: colour"),
        (_TOML.replace("steps = 5", ""), "number of steps is missing"),
    ],
)
def test_bad_files_are_reported(folder: Path, toml: str, words: str) -> None:
    (folder / "new.toml").write_text(toml)
    sources = [str(folder / "tokenizer"), str(folder / "text.txt")]
    options = ["--config", str(folder / "new.toml"), "-o", str(folder / "run")]
    with pytest.raises(IdiolectError, match=words):
        _run(folder, *sources, *options)


def test_an_unknown_objective_is_refused_before_the_model_is_read(folder: Path) -> None:
    sources = [str(folder / "nothing"), str(folder / "text.txt"), "-o", str(folder / "run")]
    with pytest.raises(IdiolectError, match=r"unknown objective 'span' \(one of causal, masked, "):
        _run(folder, *sources, "--steps", "1", "--objective", "span")


def test_help_lists_the_objectives() -> None:
    result = runner.invoke(app, ["pretrain", "--help"], env={"COLUMNS": "400"})
    shown = " ".join(result.output.split())
    for entry in objectives("pretrain"):
        assert f"{entry.name}: {entry.summary}" in shown


def test_sigint_stops_a_run_that_can_be_resumed(folder: Path) -> None:
    out = folder / "run"
    command = [
        *(sys.executable, "-c", MAIN, "pretrain"),
        *(str(folder / "model"), str(folder / "text.txt"), "-o", str(out)),
        *("--steps", "3000", "--max-length", "32", "--batch-size", "2"),
    ]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(SOURCE)}
    )
    metrics = out / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted; run it again to resume"
    assert errors.count("to resume") == 1
    assert "Traceback" not in errors
    assert list(out.glob("checkpoint-*"))
