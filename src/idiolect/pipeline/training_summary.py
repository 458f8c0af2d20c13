"""Summarize the training of a stage from its `metrics.jsonl`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any, TypedDict

__all__ = ["SAVE_STEPS", "TrainingSummary", "summarize_training", "tokens_read"]

SAVE_STEPS = 100
"""Training steps between checkpoints."""


class TrainingSummary(TypedDict):
    """Summary of a training run; metrics.jsonl has a line for each step."""

    steps: int
    tokens: int
    """Tokens read in training."""
    loss_first: float
    """Mean loss over the first tenth of the steps; 0 without steps."""
    loss_last: float
    """Mean loss over the last tenth."""


def summarize_training(folder: Path) -> TrainingSummary:
    """Summarize a finished training run, and remove files that are only needed for resuming."""
    losses = [line["loss"] for line in _curve(folder)]
    tenth = max(1, len(losses) // 10)
    for path in (*folder.glob("checkpoint-*"), folder / "tokens"):
        shutil.rmtree(path, ignore_errors=True)
    return {
        "steps": len(losses),
        "tokens": tokens_read(folder),
        "loss_first": fmean(losses[:tenth] or [0.0]),
        "loss_last": fmean(losses[-tenth:] or [0.0]),
    }


def tokens_read(folder: Path) -> int:
    """Return the number of tokens that a training run read."""
    return sum(line["tokens"] for line in _curve(folder))


def _curve(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
