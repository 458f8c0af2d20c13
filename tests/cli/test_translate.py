"""`idiolect translate train` and `run` as commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cli.program import idiolect_program
from training.test_translation import PAIRS, small


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    for side in ("source", "target"):
        lines = [getattr(pair, side) for pair in PAIRS]
        (tmp_path / f"a.{side}").write_text("\n".join([*lines, ""]) + "\n")
    return tmp_path


def test_train_and_run(pairs: Path) -> None:
    given = (pairs / "a.source", pairs / "a.target", "-o", pairs / "run", "--vocab-size", 270)
    shape = pairs / "config.json"
    shape.write_text('{"model_type": "seq2seq", "hidden_size": 16, "attention": "general"}')
    short = ("--steps", 2, "--batch-tokens", 128, "--architecture", shape, "--precision", "fp32")
    done = idiolect_program("translate", "train", *given, *short)
    assert done.returncode == 2, "one of 43 lines is empty, which is more than a hundredth"
    done = idiolect_program("translate", "train", *given, *short, "--max-unreadable", 0.1)
    assert done.returncode == 0, done.stderr
    assert "skipped 1 records: with an empty side (a.source line 43)" in done.stderr

    more = (*given[:2], "-o", pairs / "more", "--model", pairs / "run" / "model", *short[:4])
    assert idiolect_program("translate", "train", *more, "--max-unreadable", 0.1).returncode == 0
    before, after = (load_file(pairs / d / "model" / "model.safetensors") for d in ("run", "more"))
    assert torch.equal(before["tokens.weight"], after["tokens.weight"]), "a model's rows stay"
    assert not torch.equal(before["readout.weight"], after["readout.weight"])

    run = ("translate", "run", pairs / "run" / "model", pairs / "a.source", "--num-beams", 2)
    out, plot = pairs / "out.txt", pairs / "plot.png"
    reference = ("--reference", pairs / "a.target", "--max-new-tokens", 4)
    done = idiolect_program(*run, "-o", out, *reference, "--plot", plot)
    assert done.returncode == 0, done.stderr
    assert out.read_text().count("\n") == 43
    assert "1 empty lines stay empty (the first: 43)" in done.stderr
    assert done.stdout.count("BLEU") == 2
    assert "case:mixed" in done.stdout
    assert "case:lc" in done.stdout
    assert plot.stat().st_size > 1000

    sides = []
    for side in ("source", "target"):
        sides.append(pairs / f"b.{side}")
        sides[-1].write_text("\n".join((pairs / f"a.{side}").read_text().split("\n")[:8]) + "\n")
    task = ("tasks", "translate")
    done = idiolect_program(
        *(
            *task,
            "evaluate",
            pairs / "run" / "model",
            *sides,
            "--errors",
            pairs / "e.html",
            "--json",
        )
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["translator"]["signature"].startswith("nrefs:1|case:mixed")
    assert "Worst translations" in (pairs / "e.html").read_text()
    predicted = pairs / "b.jsonl"
    assert (
        idiolect_program(
            *(*task, "predict", pairs / "run" / "model", sides[0], "-o", predicted)
        ).returncode
        == 0
    )
    assert len(predicted.read_text().splitlines()) == 8
    files = (pairs / "a.source", pairs / "a.target")
    done = idiolect_program(*task, "evaluate", pairs / "run" / "model", *files)
    assert "line 43: the reference is empty" in done.stderr

    aligned = pairs / "aligned.svg"
    one = ("--text", "a h ja", "--translation", "a Q", "--plot", aligned)
    assert idiolect_program("translate", "run", pairs / "run" / "model", *one).returncode == 0
    # matplotlib names the text of each label in a comment.
    assert "<!-- Q -->" in aligned.read_text(), "the target that was given, not the model's own"


def test_bad_input_is_one_line(pairs: Path) -> None:
    (pairs / "short").write_text("x\n")
    small("luong").save(pairs / "model")
    small("transformer").save(pairs / "transformer")
    source, model = pairs / "a.source", pairs / "model"
    for words, problem in (
        (("train", source, pairs / "short", "-o", pairs / "r"), "short has 1 lines and"),
        (("train", source, source, "-o", pairs / "r", "--architecture", "lstm"), "lstm"),
        (
            ("train", source, source, "-o", pairs / "r", "--model", model, "--tokenizer", model),
            "--tokenizer is for a new model",
        ),
        (("run", model, source, "--reference", pairs / "short"), "1 lines for 43 texts"),
        (("run", model, "--text", " "), "no text to translate"),
        (("run", model, "--text", "a", "--plot", pairs / "x.txt"), "no picture"),
        (("run", model, "--text", "a", "--translation", "b"), "add --plot"),
        (("run", pairs / "transformer", "--text", "a", "--plot", pairs / "x.png"), "no alignment"),
    ):
        done = idiolect_program("translate", *words)
        assert done.returncode == 2, words
        assert problem in done.stderr
        assert done.stderr.count("\n") <= 2, done.stderr
