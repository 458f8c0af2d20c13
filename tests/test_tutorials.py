"""The tutorials and the notebooks run from their first to their last block, in empty folders."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from test_readme import shell

PAGES = sorted((ROOT / "docs" / "tutorials").glob("[!i]*.md"))
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def _blocks(page: Path) -> list[tuple[str, str]]:
    """The code blocks of a page, with their language, in order."""
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def _cells(notebook: Path) -> list[str]:
    value: dict[str, Any] = json.loads(notebook.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in value["cells"] if cell["cell_type"] == "code"]


@contextmanager
def _served(command: str, port: int, folder: Path) -> Iterator[None]:
    """Run a server in the background until the end of the page."""
    words = [sys.executable, "-m", *command.split()]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log)
    try:
        for _ in range(600):
            assert server.poll() is None, (folder / "server.log").read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def test_there_are_tutorials_and_notebooks_that_parse() -> None:
    assert {page.stem for page in PAGES} == {"own-catalogue", "recommend", "answer", "serve"}
    assert len(NOTEBOOKS) == 2
    for page in PAGES:
        assert {language for language, _ in _blocks(page)} == {"python", "sh"}
        for language, code in _blocks(page):
            if language == "python":
                ast.parse(code, str(page))
    for notebook in NOTEBOOKS:
        for cell in _cells(notebook):
            ast.parse(cell, str(notebook))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names: dict[str, Any] = {}
    servers = []
    try:
        for language, code in _blocks(page):
            code = code.replace("8000", str(port))
            if language == "python":
                exec(compile(code, str(page), "exec"), names)
            elif code.startswith("idiolect serve"):
                servers.append(_served(code, port, tmp_path))
                servers[-1].__enter__()
            else:
                shell(code, tmp_path)
    finally:
        for server in servers:
            server.__exit__(None, None, None)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in _cells(notebook):
        exec(compile(cell, str(notebook), "exec"), names)
