"""The loop of `make kills` itself, and a kill of each kind of command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from idiolect.search.index import Index
from idiolect.search.items import Item
from kills import run
from kills.outcome import differences


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders in which the same was written, at other times."""
    folders = tmp_path / "whole", tmp_path / "killed"
    for number, folder in enumerate(folders):
        (folder / "out").mkdir(parents=True)
        (folder / "out" / "weights").write_bytes(b"1234")
        lines = [{"step": step, "loss": 0.5, "seconds": step + number} for step in range(3)]
        text = "\n".join(map(json.dumps, lines))
        (folder / "out" / "metrics.jsonl").write_text(text)
    return folders


def test_times_may_differ_and_nothing_else(two: tuple[Path, Path]) -> None:
    assert differences(*two) == []
    path = two[1] / "out" / "metrics.jsonl"
    path.write_text(path.read_text().replace("0.5", "0.25", 1))
    (two[1] / "out" / "weights").unlink()
    (two[1] / "out" / ".weights.1234").touch()
    assert differences(*two) == [
        "out/weights is missing",
        "out/.weights.1234 is left over",
        "out/metrics.jsonl differs",
    ]


def test_indexes_are_compared_by_what_they_hold(two: tuple[Path, Path]) -> None:
    vectors = np.eye(4, dtype=np.float32)
    items = [Item(id=f"i{n}", text=f"lamp {n}", vector=vector) for n, vector in enumerate(vectors)]
    for folder, order in zip(two, (items, items[::-1]), strict=True):
        Index.build(folder / "out" / "index", None, order).close()
    assert differences(*two) == []
    with Index.open(two[1] / "out" / "index") as index:
        index.delete(["i2"])
    assert "the index has other items" in differences(*two)


@pytest.mark.slow
def test_a_kill_of_each_kind_of_command() -> None:
    """In a process of its own, as `make kills` runs it."""
    command = [sys.executable, run.__file__, "--kills", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
