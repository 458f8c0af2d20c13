"""The README's commands and code, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from idiolect.pipeline.demo.demo import write_demo

README = Path(__file__).parents[1] / "README.md"
FEW = {
    "audit": "max_rows = 20",
    "distill": "contexts = 1",
    "pretrain": "steps = 2\nmax_length = 64",
    "encoder": "max_length = 16",
    "tune": "steps = 2",
    "evaluate": "windows = 4",
}
COLOURS, THINGS = ("red", "blue", "green", "wooden"), ("desk lamp", "chair", "shelf", "table")


def blocks(language: str) -> list[str]:
    """The README's blocks of code."""
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def products(path: Path) -> None:
    """Write a small catalogue."""
    texts = [f"{c} {t}, model XR-{n}00B" for c in COLOURS for t in THINGS for n in range(1, 41)]
    lines = [json.dumps({"id": f"p{n}", "text": text}) for n, text in enumerate(texts)]
    path.write_text("\n".join(lines))


def shorten(path: Path, lines: int) -> None:
    """Keep some lines of a file, from all over it."""
    known = path.read_text().splitlines()
    path.write_text("\n".join(known[:: max(1, len(known) // lines)]) + "\n")


def shell(script: str, folder: Path) -> str:
    """Run commands one after the other, until one fails."""
    here = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"}
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    return ended.stdout


def test_the_python_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = blocks("python")
    products(tmp_path / "products.jsonl")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(README), "exec"), {})
    first = capsys.readouterr().out.split("Hit(")[1]
    assert "red desk lamp" in first


def test_the_road_runs_step_by_step(tmp_path: Path) -> None:
    data = tmp_path / "demo" / "data"
    write_demo(data.parent, base="idiolect-base")
    for name, lines in (("corpus", 200), ("general", 40), ("items", 200)):
        shorten(data / f"{name}.jsonl", lines)
    (script,) = (block for block in blocks("sh") if "idiolect audit" in block)
    keep = {json.loads(line)["id"] for line in (data / "items.jsonl").read_text().splitlines()}
    pairs = (data / "pairs.jsonl").read_text().splitlines()
    kept = [line for line in pairs if json.loads(line)["document_id"] in keep]
    (data / "pairs.jsonl").write_text("\n".join(kept))
    told = shell(script, tmp_path)
    assert "scipy." in told
    assert "bits per byte" in told


def test_a_catalogue_is_run_and_searched(tmp_path: Path) -> None:
    """With few steps of everything: how many there are is the owner's to say in the file."""
    (tmp_path / "shop").mkdir()
    products(tmp_path / "shop" / "products.jsonl")
    (script,) = (block for block in blocks("sh") if "idiolect init" in block)
    first, rest = script.split("\n", 1)
    shell(first, tmp_path)
    config = tmp_path / "shop" / "idiolect.toml"
    text = config.read_text(encoding="utf-8")
    for table, few in FEW.items():
        assert f"[{table}]\n" in text
        text = text.replace(f"[{table}]\n", f"[{table}]\n{few}\n")
    config.write_text(text, encoding="utf-8")
    assert "red desk lamp" in shell(rest, tmp_path)
    assert (tmp_path / "shop" / "run" / "report.html").exists()


@pytest.mark.slow
def test_the_demo_runs(tmp_path: Path) -> None:
    script = blocks("sh")[0].splitlines()[1]
    assert "pre-training" in shell(script, tmp_path)
    assert (tmp_path / "demo" / "run" / "report.html").exists()
