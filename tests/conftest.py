"""Fixtures every room's tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# The models of tests are so small that a second thread only waits for the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests report to nobody, and the warnings of a thread that tries would be found in other tests.
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "false"

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A shell that starts the tests in the background lets them ignore SIGINT, and so their children.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and published checkpoints beside the repository."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _no_user_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the small encoders of tests out of the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the README commands first: they take longest, and would otherwise end alone."""
    items.sort(key=lambda item: "test_readme.py" not in item.nodeid)
