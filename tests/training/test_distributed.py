"""Two processes train what one does, with whole and with sharded weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from training import models, workers

ROWS = "model.embed_tokens.weight", "lm_head.weight"


def _start(folder: Path, steps: int) -> None:
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


def test_two_processes_equal_one(tmp_path: Path) -> None:
    _start(tmp_path, 6)
    for mode in workers.MODES:
        for tied in (True, False):
            workers.train(tmp_path / f"one {mode} {tied}", 6, mode, tied=tied)
            one = _weights(tmp_path / f"one {mode} {tied}")
            sharded = _weights(tmp_path / f"sharded {mode} {tied}")
            others = [sharded, _weights(tmp_path / f"plain {mode}")] if tied else [sharded]
            for other in others:
                assert one.keys() == other.keys()
                for name in one:
                    torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)
            _assert_rows_kept(sharded, tied=tied)
    for rank in (0, 1):
        assert (tmp_path / f"stopped by {rank}").exists(), "a process did not receive the signal"
    resumed, whole = _weights(tmp_path / "stopped"), _weights(tmp_path / "sharded all True")
    for name in whole:
        assert torch.equal(resumed[name], whole[name])


@pytest.mark.slow
def test_500_sharded_steps_leave_the_original_rows(tmp_path: Path) -> None:
    _start(tmp_path, 500)
    for mode in workers.MODES:
        for tied in (True, False):
            _assert_rows_kept(_weights(tmp_path / f"sharded {mode} {tied}"), tied=tied)
