"""Servers that several files of tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from serve import served


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index, its encoder and a language model; tests must not change it."""
    folder = tmp_path_factory.mktemp("served")
    served.write_index(folder)
    served.write_language_model(folder / "writer")
    return folder


@pytest.fixture(scope="session")
def reader(folder: Path) -> Iterator[TestClient]:
    """A server whose index no test changes."""
    with served.serving(
        folder / "index", generator=str(folder / "writer"), max_new_tokens=64
    ) as client:
        yield client
