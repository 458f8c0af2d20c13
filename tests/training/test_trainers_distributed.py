"""Two processes distil and train rankers with the same result as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from idiolect.models.language_model import LanguageModel
from idiolect.nn.embedding import ExtendedRows
from idiolect.ranking.cross_encoder import CrossEncoder
from idiolect.ranking.two_tower import TwoTower
from training import trainer_workers

PAIRS = [("w8 w9", "w4 w10"), ("w8", "w7 w12"), ("w20", "w5 w6")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The runs of one process and of two."""
    folder = tmp_path_factory.mktemp("runs")
    trainer_workers.prepare(folder)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run = subprocess.run(
        [*command, str(Path(trainer_workers.__file__)), str(folder / "two")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    trainer_workers.train(folder / "one")
    return folder / "one", folder / "two"


def _losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize("kind", trainer_workers.KINDS)
def test_distillation(folders: tuple[Path, Path], kind: str) -> None:
    one, two = (folder / f"distill {kind}" for folder in folders)
    np.testing.assert_allclose(_losses(two), _losses(one), rtol=1e-4)
    rows = [LanguageModel.load(folder / "model").network.tokens.weight for folder in (one, two)]
    first, second = (part.added.detach() for part in rows if isinstance(part, ExtendedRows))
    np.testing.assert_allclose(second, first, rtol=1e-5, atol=1e-6)


def test_a_cross_encoder(folders: tuple[Path, Path]) -> None:
    one, two = (folder / "cross-encoder" for folder in folders)
    np.testing.assert_allclose(_losses(two), _losses(one), rtol=1e-4)
    scores = [CrossEncoder.load(folder / "model").score(PAIRS) for folder in (one, two)]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-4)


def test_two_towers(folders: tuple[Path, Path]) -> None:
    one, two = (folder / "two towers" for folder in folders)
    np.testing.assert_allclose(_losses(two), _losses(one), rtol=1e-4)
    scores = [TwoTower.load(folder / "model").score(PAIRS) for folder in (one, two)]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-3)
