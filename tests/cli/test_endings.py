"""How commands end early: signals, closed outputs, and errors that name options as typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from cli.program import MAIN, SOURCE
from idiolect.cli.endings import name_options
from idiolect.cli.main import app
from idiolect.errors import InputError
from idiolect.models.language_model import LanguageModel
from idiolect.text.records import read_records
from idiolect.text.skipped import Skipped
from idiolect.text.tokenizers.bpe import train

_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, and text."""
    folder = tmp_path_factory.mktemp("endings")
    texts = [f"the water and the garden {number}" for number in range(50)]
    (folder / "text.txt").write_text("\n".join(texts))
    settings = {
        "model_type": "llama",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    }
    LanguageModel.new(settings, train(texts, 300)).save(folder / "model")
    return folder


def start(*words: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAIN, *map(str, words)]
    options = {"stderr": subprocess.PIPE, "env": _ENVIRONMENT, **options}
    return subprocess.Popen(command, text=True, **options)


def training(folder: Path, out: Path, **options: Any) -> subprocess.Popen[str]:
    """Start a long training, and wait until it trains."""
    words = ("pretrain", folder / "model", folder / "text.txt", "--train", "all", "-o", out)
    process = start(*words, "--steps", 9**9, "--max-length", 16, "--batch-size", 1, **options)
    deadline = time.monotonic() + 120
    metrics = out / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(
    ("number", "status", "line"),
    [
        (signal.SIGINT, 130, "interrupted; run it again to resume"),
        (signal.SIGHUP, 129, "terminated; run it again to resume"),
    ],
)
def test_a_signal_saves_the_state_and_is_one_line(
    folder: Path, tmp_path: Path, number: signal.Signals, status: int, line: str
) -> None:
    process = training(folder, tmp_path / "run")
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == status
    assert errors == f"{line}\n"
    assert list((tmp_path / "run").glob("checkpoint-*"))
    assert not list((tmp_path / "run").glob(".checkpoint*"))


def test_a_signal_that_is_ignored_stays_ignored(folder: Path, tmp_path: Path) -> None:
    """As under nohup, while one that is not ignored ends the run."""
    process = training(
        folder, tmp_path / "run", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    assert errors == "terminated; run it again to resume\n"


@pytest.mark.parametrize("words", [["models"], ["--help"]])
def test_a_reader_may_leave(words: list[str]) -> None:
    """As `head` does."""
    ours, theirs = os.pipe()
    os.close(ours)
    process = start(*words, stdout=theirs)
    os.close(theirs)
    _, errors = process.communicate(timeout=120)
    assert errors == ""


@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&-"])
def test_closed_streams(redirection: str) -> None:
    command = f'exec "$0" -c "{MAIN}" models {redirection}'
    done = subprocess.run(["sh", "-c", command, sys.executable], env=_ENVIRONMENT, check=False)
    assert done.returncode == 0


def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        process = start("models", stdout=full)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    (line,) = errors.splitlines()
    assert "No space left on device (free some space" in line


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "20", "HOME": ""},
    ],
)
def test_unusual_environments(tmp_path: Path, variables: dict[str, str]) -> None:
    (tmp_path / "ünï cöde.jsonl").write_text(json.dumps({"id": "1", "text": "a lamp"}) + "\n")
    environment = {**_ENVIRONMENT, **variables}
    plain = "LC_ALL" in variables  # such a locale cannot spell the name of the file
    for words, refused in ((["models"], False), (["init", tmp_path, "--force"], plain)):
        process = start(*words, stdout=subprocess.PIPE, env=environment)
        printed, errors = process.communicate(timeout=120)
        assert process.returncode == (2 if refused else 0)
        assert len(errors.splitlines()) == refused, errors
        assert "PYTHONUTF8=1" in errors or not refused
        assert printed


@pytest.mark.parametrize(
    ("words", "message", "expected"),
    [
        ("search", "an encoder, or use mode='lexical'", "an encoder, or use --mode lexical"),
        ("pretrain", "max_length is 0 (it must be positive)", "--max-length is 0 (it must be"),
        ("pretrain", "set max_length to at most 64", "set --max-length to at most 64"),
        ("pretrain", "or use train='all'", "or use --train all"),
        ("pretrain", "output_dir is empty", "--out is empty"),
        ("pretrain", "cannot read a/max_length.txt", "cannot read a/max_length.txt"),
        ("pretrain", "set sharded=True", "set --sharded"),
        ("tune encoder", "target_modules is empty", "--lora-target-modules is empty"),
        ("run", "tune: max_length is 4", "tune: max_length is 4"),
        ("run", "no field document_id", "no field document_id"),
    ],
)
def test_errors_name_options_as_they_are_typed(words: str, message: str, expected: str) -> None:
    found = name_options(message, get_command(app), [*words.split(), "file", "--steps", "3"])
    assert found.startswith(expected)


@pytest.mark.parametrize(
    ("command", "name"), [("audit", "--max-unreadable"), ("run", "max_unreadable")]
)
def test_unreadable_rows_name_the_option_once(tmp_path: Path, command: str, name: str) -> None:
    (tmp_path / "rows.jsonl").write_text("no JSON\n")
    with pytest.raises(InputError) as refused:
        list(read_records(tmp_path / "rows.jsonl", Skipped()))
    message = name_options(str(refused.value), get_command(app), [command, "rows.jsonl"])
    assert message.endswith(f"or allow a larger share: {name})")


def test_an_error_names_the_option(folder: Path, tmp_path: Path) -> None:
    words = ("pretrain", folder / "model", folder / "text.txt", "-o", tmp_path / "run")
    process = start(*words, "--steps", 1, "--train", "all")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors == (
        "idiolect: rows of 512 tokens, and the model has 64 positions "
        "(set --max-length to at most 64)\n"
    )


_CHECKED_BY_THE_LIBRARY = {
    "audit --max-rows",
    "tokenizer train --vocab-size",
    "tokenizer train --held-out",
}


def _numeric_options() -> list[Any]:
    def walk(command: Any, words: str) -> list[Any]:
        found = [
            pytest.param(option, id=f"{words} {option.opts[0]}")
            for option in command.params
            if getattr(option.type_descriptor, "annotation", None) in (int, float)
            and f"{words} {option.opts[0]}" not in _CHECKED_BY_THE_LIBRARY
        ]
        for name, child in getattr(command, "commands", {}).items():
            found += walk(child, f"{words} {name}".strip())
        return found

    return walk(get_command(app), "")


@pytest.mark.parametrize("option", _numeric_options())
def test_every_numeric_option_has_a_range(option: Any) -> None:
    assert option.min is not None


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["searhc", "x"], "Did you mean 'search'?"),
        (["index", "biuld", "x"], "Did you mean 'build'?"),
        (["tune", "corss-encoder", "x", "y"], "Did you mean 'cross-encoder'"),
        (["tune", "two_tower", "x"], "Did you mean 'two-tower'?"),
        (["tune", "nothing-like-it", "x"], "--out"),
        (["models", "--jsno"], "--json"),
        (["search", "i", "q", "--mode", "dens"], "'--mode': 'dens' is not one of 'hybrid'"),
        (["search", "i", "q", "-n", "1.5"], "it must be a whole number"),
        (["search", "i", "q", "-n", "0"], "--top-k"),
        (["search", "i", "q", "-n", "many"], "--top-k"),
    ],
)
def test_mistyped_words(words: list[str], advice: str) -> None:
    process = start(*words, env={**_ENVIRONMENT, "COLUMNS": "200"})
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert advice in errors
