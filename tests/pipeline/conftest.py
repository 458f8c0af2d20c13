"""A run of the whole pipeline, shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from idiolect.pipeline.run import run
from pipeline.shop import open_shop


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a shop whose run, with its controls, is in `run`. Copy it to change it."""
    folder = tmp_path_factory.mktemp("shop")
    run(open_shop(folder, controls=True))
    return folder
