"""`idiolect`, `idiolect models`, `idiolect doctor`, and how errors reach a person."""

from __future__ import annotations

import json
import re
import tomllib

import pytest
from typer.testing import CliRunner

from conftest import ROOT
from idiolect import __version__
from idiolect.cli import main as module
from idiolect.errors import InputError
from idiolect.models.registry import FAMILIES

runner = CliRunner()


def test_version() -> None:
    assert runner.invoke(module.app, ["--version"]).output.strip() == f"idiolect {__version__}"


def test_models_lists_every_family() -> None:
    result = runner.invoke(module.app, ["models"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert "arXiv 1810.04805" in result.output, "nothing is cut off in a narrow window"
    assert max(map(len, result.output.splitlines())) <= 80
    for family in FAMILIES.values():
        assert family.title in result.output
    rows = json.loads(runner.invoke(module.app, ["models", "--json"]).output)
    by_type = {row["model_type"]: row for row in rows}
    assert by_type["t5"]["attention"] == "encoder-decoder"
    assert by_type["t5"]["objectives"] == ["span_corruption", "denoising", "prefix"]
    assert by_type["bert"]["objectives"] == ["masked", "masked+next_sentence", "translation_masked"]
    assert by_type["gpt2"]["objectives"] == ["causal", "prefix"]
    assert by_type["bert"]["heads"] == ["language", "next sentence", "sequence", "token", "span"]
    assert by_type["llama"]["positions"] == "rotary"
    assert "pre-training" in " ".join(result.output.split())


def test_doctor_says_what_is_there() -> None:
    import torch

    result = runner.invoke(module.app, ["doctor"])
    assert result.exit_code == 0
    assert torch.__version__ in result.output
    assert "GFLOP/s" in result.output
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in ("demo", "milvus", "ranking", "tensorboard"):
        for requirement in extras["optional-dependencies"][extra]:
            assert re.split("[=<>]", requirement)[0] in result.output


def test_doctor_names_the_extra_of_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from idiolect.cli import models

    monkeypatch.setattr(models, "_OPTIONAL", {"no-such-package": ("mcp", "assistants")})
    monkeypatch.setattr(models, "_device_rows", list)
    monkeypatch.setenv("COLUMNS", "200")
    output = runner.invoke(module.app, ["doctor"]).output
    assert "not installed, needed for assistants: pip install 'idiolect[mcp]'" in output


def test_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise InputError("no such file: terms.txt", hint="check the path")

    monkeypatch.setattr(module, "app", fail)
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "idiolect: no such file: terms.txt (check the path)\n"


def test_torch_without_memory_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.setattr(module, "app", lambda: torch.empty(2**50))
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("idiolect: there is not enough memory (")


def test_help_is_wrapped_at_the_width_of_the_window() -> None:
    output = runner.invoke(module.app, ["pretrain", "--help"], env={"COLUMNS": "80"}).output
    lines = [line.strip() for line in output.splitlines()]
    assert "change unless they are unfrozen." in lines
    output = runner.invoke(module.app, ["demo", "--help"], env={"COLUMNS": "80"}).output
    assert "\n idiolect search demo/run" in output, "an example on a line of its own stays there"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["doctor"], "interrupted"),
        (["encode", "m", "t.txt", "-o", "v.npy"], "interrupted; run it again to resume"),
        (["index", "info", "i"], "interrupted"),
        (["index", "build", "i", "t", "--encoder", "e"], "interrupted; run it again to resume"),
        (["tune", "m", "p.jsonl", "-o", "r"], "interrupted; run it again to resume"),
        (["tune", "lambdamart", "-o", "r"], "interrupted"),
    ],
)
def test_an_interrupt_is_one_line(
    words: list[str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.core import TyperCommand

    def stop(self: object, context: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TyperCommand, "invoke", stop)
    result = runner.invoke(module.app, words)
    assert (result.exit_code, result.output) == (130, f"{line}\n")


def _commands() -> list[list[str]]:
    from typer.main import get_command

    def walk(command: object, words: list[str]) -> list[list[str]]:
        children = getattr(command, "commands", {})
        found = [words]
        for name, child in children.items():
            found += walk(child, [*words, name])
        return found

    return walk(get_command(module.app), [])


@pytest.mark.parametrize("words", _commands(), ids=lambda w: " ".join(w) or "idiolect")
def test_help_explains_itself(words: list[str]) -> None:
    result = runner.invoke(module.app, [*words, "--help"], env={"COLUMNS": "100"})
    assert result.exit_code == 0
    if words and "COMMAND" not in result.output:
        assert "Example" in result.output, "show a real example"
