"""Two processes train what one does, with whole and with sharded weights: models and rankers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from idiolect.models.language_model import LanguageModel
from idiolect.nn.embedding import ExtendedRows
from idiolect.ranking.cross_encoder import CrossEncoder
from idiolect.ranking.two_tower import TwoTower
from training import models, trainer_workers, workers

PAIRS = [("w8 w9", "w4 w10"), ("w8", "w7 w12"), ("w20", "w5 w6")]
ROWS = "model.embed_tokens.weight", "lm_head.weight"


def _start(folder: Path, steps: int) -> None:
    trainer_workers.prepare(folder)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run = subprocess.run(
        [*command, str(Path(workers.__file__)), str(folder), str(steps)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert run.returncode == 0, run.stderr[-4000:]


def _weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def _assert_rows_kept(weights: dict[str, Tensor], *, tied: bool) -> None:
    original = models.model("llama", tie_word_embeddings=tied)
    for name, rows in zip(ROWS, original.network.vocabulary_rows().values(), strict=False):
        assert not isinstance(rows, Tensor)
        assert torch.equal(weights[name][: len(models.OLD)], rows.original)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of everything that two processes train, started once."""
    folder = tmp_path_factory.mktemp("two")
    _start(folder, 6)
    return folder


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("mode", workers.MODES)
def test_two_processes_equal_one(folder: Path, tmp_path: Path, mode: str, tied: bool) -> None:
    workers.train(tmp_path / "one", 6, mode, tied=tied)
    one, sharded = _weights(tmp_path / "one"), _weights(folder / f"sharded {mode} {tied}")
    for other in [sharded, _weights(folder / f"plain {mode}")] if tied else [sharded]:
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)
    _assert_rows_kept(sharded, tied=tied)


def test_a_signal_to_one_process_stops_both_and_they_resume(folder: Path) -> None:
    for rank in (0, 1):
        assert (folder / f"stopped by {rank}").exists(), "a process did not receive the signal"
    resumed, whole = _weights(folder / "stopped"), _weights(folder / "sharded all True")
    for name in whole:
        assert torch.equal(resumed[name], whole[name])


@pytest.mark.slow
def test_500_sharded_steps_leave_the_original_rows(tmp_path: Path) -> None:
    _start(tmp_path, 500)
    for mode in workers.MODES:
        for tied in (True, False):
            _assert_rows_kept(_weights(tmp_path / f"sharded {mode} {tied}"), tied=tied)


@pytest.fixture(scope="module")
def trained(folder: Path) -> tuple[Path, Path]:
    """Distilled models and rankers of one process and of two."""
    trainer_workers.train(folder / "one")
    return folder / "one", folder / "two"


def _losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize("kind", trainer_workers.KINDS)
def test_distillation(trained: tuple[Path, Path], kind: str) -> None:
    one, two = (folder / f"distill {kind}" for folder in trained)
    np.testing.assert_allclose(_losses(two), _losses(one), rtol=1e-4)
    rows = [LanguageModel.load(folder / "model").network.tokens.weight for folder in (one, two)]
    first, second = (part.added.detach() for part in rows if isinstance(part, ExtendedRows))
    np.testing.assert_allclose(second, first, rtol=1e-5, atol=1e-6)


def test_a_cross_encoder(trained: tuple[Path, Path]) -> None:
    one, two = (folder / "cross-encoder" for folder in trained)
    np.testing.assert_allclose(_losses(two), _losses(one), rtol=1e-4)
    scores = [CrossEncoder.load(folder / "model").score(PAIRS) for folder in (one, two)]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-4)


def test_two_towers(trained: tuple[Path, Path]) -> None:
    one, two = (folder / "two towers" for folder in trained)
    np.testing.assert_allclose(_losses(two), _losses(one), rtol=1e-4)
    scores = [TwoTower.load(folder / "model").score(PAIRS) for folder in (one, two)]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-3)
