"""A run of the whole pipeline, shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from idiolect.pipeline.report import charts
from idiolect.pipeline.report.charts import Chart
from idiolect.pipeline.run import run
from pipeline.shop import open_shop


@pytest.fixture
def drawn_charts() -> None:
    """Ask for reports with their charts."""


@pytest.fixture(autouse=True)
def _empty_charts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave Matplotlib out, unless a test asks for charts: it takes longer than all stages."""
    if "drawn_charts" not in request.fixturenames:
        monkeypatch.setattr(charts, "_chart", lambda *_: Chart("<svg></svg>", "<svg></svg>"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a shop whose run, with its controls, is in `run`. Copy it to change it."""
    folder = tmp_path_factory.mktemp("shop")
    run(open_shop(folder, controls=True, histories=True, task=True))
    return folder
