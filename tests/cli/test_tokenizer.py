"""`idiolect tokenizer train` as a command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cli.program import idiolect_program
from idiolect.text.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess


def run(*arguments: object) -> CompletedProcess[str]:
    return idiolect_program("tokenizer", "train", *arguments)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "notes.jsonl"
    texts = [f"patient {i}: HbA1c was {i % 9}.{i % 7} percent, again" for i in range(400)]
    lines = [json.dumps({"title": "note", "note": text}) for text in texts]
    path.write_text("\n".join([*lines, "{broken"]))
    return path


def test_from_scratch_and_on(corpus: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    done = run(corpus, "--field", "note", "--vocab-size", 300, "--out", first, "--held-out", 0.1)
    assert done.returncode == 0, done.stderr
    assert "after (byte-bpe)" in done.stdout
    assert "skipped 1 records: malformed JSON" in done.stderr
    base = Tokenizer.load(first)
    assert len(base) == 300

    more = ("--vocab-size", 340, "--out", second, "--continue-from", first, "--held-out", 0.1)
    done = run(corpus, "--field", "note", *more)
    assert done.returncode == 0, done.stderr
    longer = Tokenizer.load(second)
    assert len(longer) == 340
    assert longer.engine.get_vocab().items() >= base.engine.get_vocab().items()
    before, after = (line for line in done.stdout.split("\n") if "(byte-bpe)" in line)
    assert float(before.split("│")[-2]) < float(after.split("│")[-2])


@pytest.mark.parametrize("algorithm", ["wordpiece", "unigram"])
def test_other_algorithms(algorithm: str, corpus: Path, tmp_path: Path) -> None:
    done = run(
        corpus,
        "--field",
        "note",
        "--vocab-size",
        90,
        "--out",
        tmp_path / "o",
        "--algorithm",
        algorithm,
    )
    assert done.returncode == 0, done.stderr
    assert Tokenizer.load(tmp_path / "o").kind == algorithm


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--vocab-size", 300), "which field holds the text"),
        (("--field", "note", "--vocab-size", 3), "too few"),
        (("--field", "body", "--vocab-size", 300), "no documents"),
        (("--field", "note", "--vocab-size", 300, "--held-out", 2), "leaves one side empty"),
        (("--field", "note", "--vocab-size", 300, "--continue-from", "./none"), "no such file"),
    ],
)
def test_one_line_says_what_is_wrong(
    arguments: tuple[object, ...], message: str, corpus: Path, tmp_path: Path
) -> None:
    done = run(corpus, "--out", tmp_path / "o", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("idiolect: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_an_existing_tokenizer_is_not_overwritten(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("mine")
    done = run(corpus, "--field", "note", "--vocab-size", 300, "--out", tmp_path)
    assert "already contains a model or tokenizer" in done.stderr
    assert (tmp_path / "tokenizer.json").read_text() == "mine"


def test_help_has_an_example() -> None:
    assert "Example: idiolect tokenizer train notes.jsonl" in run("--help").stdout
