"""`idiolect extend` and `idiolect distill` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cli.program import idiolect_program as run
from idiolect.cli.extension import _read_terms
from idiolect.errors import CheckpointError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.terms import Terms
from vocabulary.conftest import DOMAIN, GENERAL
from vocabulary.rows.test_grow import TERMS, build


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its terms, and text."""
    path = tmp_path_factory.mktemp("work")
    build("gpt2").save(path / "base")
    (path / "terms.txt").write_text("\n".join([*TERMS, ""]))
    (path / "domain.jsonl").write_text("\n".join(json.dumps({"note": text}) for text in DOMAIN))
    (path / "general.txt").write_text("\n".join(text.replace("\n", " ") for text in GENERAL[:50]))
    return path


def test_extend_then_distill(folder: Path) -> None:
    domain = ("--domain", folder / "domain.jsonl", "--general", folder / "general.txt")
    fields = ("--field", "note", "--field", "text")
    done = run(
        "extend", folder / "base", folder / "terms.txt", *domain, *fields, "-o", folder / "larger"
    )
    assert done.returncode == 0, done.stderr
    assert "tokens added by 'exact'" in done.stdout
    assert "domain" in done.stdout
    assert "general" in done.stdout
    larger = LanguageModel.load(folder / "larger")
    assert larger.extension is not None
    assert {token.text.strip() for token in larger.extension.added} == set(TERMS)

    train = ("distill", folder / "larger", folder / "domain.jsonl", "--field", "note")
    run_folder = folder / "run"
    options = ("--contexts", 20, "--save-steps", 7, "--tensorboard", "-o", run_folder)
    done = run(*train, "--teacher", folder / "base", *options)
    assert done.returncode == 0, done.stderr
    assert "squared error" in done.stdout
    assert list((run_folder / "events").iterdir())
    assert json.loads((run_folder / "run.json").read_text())["config"]["save_steps"] == 7
    taught = LanguageModel.load(run_folder / "model")
    assert taught.extension == larger.extension
    assert "no context for 'metformin'" in done.stderr

    done = run(*train, "--teacher", folder / "larger", "-o", folder / "other")
    assert done.returncode == 2
    assert "teacher" in done.stderr
    assert done.stderr.count("\n") == 1


def test_weights_keep_their_number_format(folder: Path, tmp_path: Path) -> None:
    build("gpt2").save(tmp_path / "narrow", dtype=torch.bfloat16)
    done = run("extend", tmp_path / "narrow", folder / "terms.txt", "-o", tmp_path / "larger")
    assert done.returncode == 0, done.stderr
    old, new = (load_file(tmp_path / n / "model.safetensors") for n in ("narrow", "larger"))
    assert {tensor.dtype for tensor in new.values()} == {torch.bfloat16}
    rows = old["transformer.wte.weight"]
    assert torch.equal(new["transformer.wte.weight"][: len(rows)], rows)


def test_a_bare_tokenizer_can_be_extended(folder: Path, tmp_path: Path) -> None:
    Tokenizer.load(folder / "base").save(tmp_path / "tokenizer")
    done = run("extend", tmp_path / "tokenizer", folder / "terms.txt", "-o", tmp_path / "larger")
    assert done.returncode == 0, done.stderr
    assert "not verified" in done.stderr or "none was given" in done.stderr
    assert not (tmp_path / "larger" / "config.json").exists()
    assert Tokenizer.load(tmp_path / "larger").extension is not None
    words = (tmp_path / "tokenizer", folder / "terms.txt", "-o", tmp_path / "other")
    done = run("extend", *words, "--init", "mean")
    assert done.returncode == 2
    assert "--init would have no effect" in done.stderr
    assert not (tmp_path / "other").exists()


def test_nothing_is_overwritten_or_half_written(folder: Path, tmp_path: Path) -> None:
    done = run("extend", folder / "base", folder / "terms.txt", "-o", folder / "base")
    assert done.returncode == 2
    assert "already" in done.stderr
    (tmp_path / "empty.txt").write_text("\n")
    done = run("extend", folder / "base", tmp_path / "empty.txt", "-o", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    (tmp_path / "known.txt").write_text("the\na\n")
    done = run("extend", folder / "base", tmp_path / "known.txt", "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "none of the terms can be added" in done.stderr
    assert "already one token" in done.stderr
    prose = tmp_path / "prose.txt"
    prose.write_text("a long record " * 100 + "\n")
    done = run("extend", folder / "base", prose, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "a long record" in done.stderr
    assert len(done.stderr) < 300
    done = run("extend", folder / "base", tmp_path / "none.json", "-o", tmp_path / "out")
    assert done.returncode == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["extend", "distill"])
def test_help_shows_an_example(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"idiolect {command} ./gpt2" in done.stdout


def test_terms_are_recognised_by_what_the_file_holds(tmp_path: Path) -> None:
    terms = Terms.of(TERMS)
    for name in ("terms.json", "terms.txt", "terms"):
        terms.save(tmp_path / name)
        assert _read_terms(tmp_path / name) == terms
    newer = (tmp_path / "terms.txt").read_text().replace('"format": 1', '"format": 99')
    (tmp_path / "newer.txt").write_text(newer)
    with pytest.raises(CheckpointError, match="format 99, written by a newer idiolect"):
        _read_terms(tmp_path / "newer.txt")
    (tmp_path / "list.txt").write_text("\n".join(["# ours", "", "{ndarray}", *TERMS]))
    assert [term.text for term in _read_terms(tmp_path / "list.txt")] == ["{ndarray}", *TERMS]
    record = '{"id": "a", "text": "red lamp"}\n'
    for name, lines in {"two.jsonl": record * 2, "two.txt": record * 2, "one": record}.items():
        (tmp_path / name).write_text(lines)
        with pytest.raises(InputError, match="holds records, not terms"):
            _read_terms(tmp_path / name)
