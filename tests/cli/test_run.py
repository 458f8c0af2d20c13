"""`idiolect init` and `run` on the command line, and search in the index of a run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.program import MAIN, SOURCE, idiolect_program
from idiolect.cli.main import app
from pipeline.shop import change, open_shop

runner = CliRunner()

_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE)}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run in `run`."""
    folder = tmp_path_factory.mktemp("shop")
    result = runner.invoke(app, ["run", str(open_shop(folder))], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (folder / "printed.txt").write_text(result.output)
    return folder


def _idiolect(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", MAIN, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=_ENVIRONMENT)


def test_what_a_run_prints(shop: Path) -> None:
    printed = (shop / "printed.txt").read_text()
    for words in ("BM25", "+ vocabulary", "hybrid", "nDCG@10", "bits/byte", "95% interval"):
        assert words in printed
    unwrapped = " ".join(printed.split())
    verdict = unwrapped.index("The index uses the encoder")
    assert verdict < unwrapped.index("Evaluation of each stage"), "the verdict comes first"
    assert "original rows: identical" in printed
    assert "transductive" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_search_and_similar_accept_a_run(shop: Path) -> None:
    asked = ["search", str(shop / "run"), "quendrifolate", "--json", "-n", "3"]
    result = runner.invoke(app, [*asked, "--mode", "lexical"], catch_exceptions=False)
    hits = [json.loads(line) for line in result.output.splitlines()]
    assert len(hits) == 3
    assert hits[0]["id"].startswith("quendrifolate")
    assert hits[0]["metadata"]["title"].startswith("quendrifolate")
    assert runner.invoke(app, asked, catch_exceptions=False).exit_code == 0
    again = ["similar", str(shop / "run"), "mivotrexol-1", "--json", "-n", "2"]
    result = runner.invoke(app, again, catch_exceptions=False)
    assert len(result.output.splitlines()) == 2
    assert 'mivotrexol-1"' not in result.output


def test_search_in_a_run_without_an_index(tmp_path: Path) -> None:
    (tmp_path / "run" / "stages").mkdir(parents=True)
    done = _idiolect("search", tmp_path / "run", "x")
    assert done.returncode == 2
    assert "has no index yet (`idiolect run` resumes it)" in done.stderr


def test_init_then_run(shop: Path, tmp_path: Path) -> None:
    shutil.copytree(shop, tmp_path / "shop", ignore=shutil.ignore_patterns("run"))
    folder = tmp_path / "shop"
    refused = _idiolect("init", folder)
    assert refused.returncode == 2
    assert "exists already (--force replaces it)" in refused.stderr
    result = runner.invoke(app, ["init", str(folder), "--base", "model", "--force"])
    assert result.exit_code == 0
    assert "taken as pairs" in result.output
    assert f"idiolect run {folder / 'idiolect.toml'}" in result.output.replace("\n", "")
    assert 'base = "model"' in (folder / "idiolect.toml").read_text()


@pytest.mark.parametrize("command", ["init", "run"])
def test_help_shows_an_example(command: str) -> None:
    assert "Example: idiolect" in runner.invoke(app, [command, "--help"]).output


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    config = open_shop(tmp_path)
    change(config, "[tune]", "[tnue]")
    done = idiolect_program("run", config)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"idiolect: {config}, line ")
    assert line.endswith("unknown key tnue (did you mean tune?)")


def test_stages_are_reported_without_a_terminal(shop: Path) -> None:
    done = _idiolect("run", shop / "idiolect.toml")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        f"{step}: unchanged"
        for step in (
            "audit",
            "extend",
            "distill",
            "pretrain",
            "tune",
            "index",
            "evaluate",
            "report",
        )
    ]


def test_an_interrupt_can_be_resumed(tmp_path: Path) -> None:
    config = open_shop(tmp_path)
    change(config, "[pretrain]\nsteps = 4", "[pretrain]\nsteps = 100000")
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "run", str(config)],
        stderr=subprocess.PIPE,
        text=True,
        env=_ENVIRONMENT,
    )
    metrics = tmp_path / "run" / "stages" / ".pretrain.partial" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    _, done = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "interrupted; run it again to resume" in done
    assert list(metrics.parent.glob("checkpoint-*")), "what was done is kept"
