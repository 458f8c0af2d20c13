"""Fixtures every room's tests share."""

from __future__ import annotations

import os
from pathlib import Path

# The models of tests are so small that a second thread only waits for the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and published checkpoints beside the repository."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the README commands first: they take longest, and would otherwise end alone."""
    items.sort(key=lambda item: "test_readme.py" not in item.nodeid)
