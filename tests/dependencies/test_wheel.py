"""The wheel, used alone: it has every file of the package, and works in an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from conftest import ROOT

SOURCE = ROOT / "src" / "idiolect"
USE = """
import idiolect, idiolect.serve
from idiolect.models.language_model import LanguageModel
print(idiolect.__file__)
print(len(LanguageModel.load("idiolect-base").tokenizer))
"""


@pytest.mark.slow
def test_the_wheel_alone_has_everything(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for name in ("src", "assets"):
        shutil.copytree(ROOT / name, checkout / name, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(checkout)], check=True)
    shutil.rmtree(checkout)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "installed")
    files = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assets = {f"assets/{p.relative_to(ROOT / 'assets')}" for p in (ROOT / "assets").glob("*/*")}
    installed = tmp_path / "installed" / "idiolect"
    missing = {name for name in files | assets if not (installed / name).is_file()}
    assert not missing
    empty = tmp_path / "empty"
    empty.mkdir()
    used = subprocess.run(
        [sys.executable, "-c", USE],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=True,
    )
    place, tokens = used.stdout.split()
    assert Path(place).is_relative_to(installed)
    assert int(tokens) > 1000
