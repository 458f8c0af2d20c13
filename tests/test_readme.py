"""Runs the commands and the Python code of the README."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cli.program import idiolect_program
from idiolect.pipeline.demo.demo import write_demo

README = Path(__file__).parents[1] / "README.md"
SHORT_RUN = {
    "audit": "max_rows = 20",
    "distill": "contexts = 1",
    "pretrain": "steps = 2\nmax_length = 64",
    "encoder": "max_length = 16",
    "tune": "steps = 2",
    "evaluate": "windows = 4",
}
COLOURS, PRODUCTS = ("red", "blue", "green", "wooden"), ("desk lamp", "chair", "shelf", "table")


def blocks(language: str, page: Path = README) -> list[str]:
    """Return the code blocks of a page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def products(path: Path) -> None:
    """Write a small catalogue."""
    texts = [f"{c} {t}, model XR-{n}00B" for c in COLOURS for t in PRODUCTS for n in range(1, 41)]
    lines = [json.dumps({"id": f"p{n}", "text": text}) for n, text in enumerate(texts)]
    path.write_text("\n".join(lines))


def shorten(path: Path, lines: int) -> None:
    """Keep evenly spaced lines of a file."""
    all_lines = path.read_text().splitlines()
    path.write_text("\n".join(all_lines[:: max(1, len(all_lines) // lines)]) + "\n")


def shell(script: str, folder: Path) -> str:
    """Run commands, stop at the first failure, and return the output."""
    here = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"}
    completed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout[-2000:] + completed.stderr[-2000:]
    return completed.stdout


def test_the_python_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = blocks("python")
    products(tmp_path / "products.jsonl")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(README), "exec"), {})
    first = capsys.readouterr().out.split("Hit(")[1]
    assert "red desk lamp" in first


def test_the_page_about_the_index_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = README.parent / "docs" / "searching.md"
    monkeypatch.chdir(tmp_path)
    (code,), (script,) = blocks("python", page), blocks("sh", page)
    exec(compile(code, str(page), "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[:3]] == ["p1", "7", "p3"]
    (line,) = re.findall(r'`(\{"id": .*?\})`', page.read_text(encoding="utf-8"))
    records = [json.loads(line), {"id": "p2", "text": "oak", "price": 90, "embedding": [0, 0, 1]}]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "queries.txt").write_text("lamp\noak\n")
    np.save(tmp_path / "queries.npy", np.eye(3))
    for command in script.splitlines():
        done = idiolect_program(*shlex.split(command, comments=True)[1:])
        assert done.returncode == 0, done.stderr
    assert done.stdout == "deleted 1 items\n"


@pytest.mark.slow
def test_the_steps_run_one_by_one(tmp_path: Path) -> None:
    data = tmp_path / "demo" / "data"
    write_demo(data.parent, base="idiolect-base")
    for name, lines in (("corpus", 200), ("general", 40), ("items", 200)):
        shorten(data / f"{name}.jsonl", lines)
    (script,) = (block for block in blocks("sh") if "idiolect audit" in block)
    keep = {json.loads(line)["id"] for line in (data / "items.jsonl").read_text().splitlines()}
    pairs = (data / "pairs.jsonl").read_text().splitlines()
    kept = [line for line in pairs if json.loads(line)["document_id"] in keep]
    (data / "pairs.jsonl").write_text("\n".join(kept))
    output = shell(script, tmp_path)
    assert "scipy." in output
    assert "bits per byte" in output


@pytest.mark.slow
def test_a_catalogue_is_run_and_searched(tmp_path: Path) -> None:
    """Edits the configuration as a user would, to few steps in every stage."""
    (tmp_path / "shop").mkdir()
    products(tmp_path / "shop" / "products.jsonl")
    (script,) = (block for block in blocks("sh") if "idiolect init" in block)
    first, rest = script.split("\n", 1)
    shell(first, tmp_path)
    config = tmp_path / "shop" / "idiolect.toml"
    text = config.read_text(encoding="utf-8")
    for table, settings in SHORT_RUN.items():
        assert f"[{table}]\n" in text
        text = text.replace(f"[{table}]\n", f"[{table}]\n{settings}\n")
    config.write_text(text, encoding="utf-8")
    assert "red desk lamp" in shell(rest, tmp_path)
    assert (tmp_path / "shop" / "run" / "report.html").exists()


@pytest.mark.slow
def test_the_demo_runs(tmp_path: Path) -> None:
    script = "\n".join(blocks("sh")[0].splitlines()[1:])
    output = shell(script, tmp_path)
    assert "pre-training" in output
    assert "scipy." in output.split("the run is in")[1]
    assert (tmp_path / "demo" / "run" / "report.html").exists()
