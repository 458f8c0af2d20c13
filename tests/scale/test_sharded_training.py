"""Two processes that shard the weights (FSDP2, gloo) follow the losses of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scale import sharded_run
from training import models, workers


def _losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
def test_losses_of_20_sharded_steps_equal_one_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run = subprocess.run(
        [*command, sharded_run.__file__, str(tmp_path / "two")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    workers.train(tmp_path / "one", sharded_run.STEPS, "all")
    one, two = _losses(tmp_path / "one"), _losses(tmp_path / "two")
    assert len(one) == len(two) == sharded_run.STEPS
    assert one[-1] < one[0]
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) < 1e-5
    # The rows that were published are the same, gathered from both processes.
    weights = load_file(tmp_path / "two" / "model" / "model.safetensors")
    rows = models.model("llama", tie_word_embeddings=True).network.tokens.weight
    original = rows.original  # type: ignore[union-attr]
    assert torch.equal(weights["model.embed_tokens.weight"][: len(models.OLD)], original)
