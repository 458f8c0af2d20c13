"""Numbered examples in shuffled epochs: the source of every objective that trains on a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["EpochSample", "ShuffledEpochs"]


@dataclass(frozen=True)
class EpochSample:
    """The examples of one step, by number."""

    sources: list[int]
    """Numbers of the examples."""
    epoch: int
    """The epoch they belong to, counted from 0."""


class ShuffledEpochs:
    """An endless stream of example numbers; seed and epoch determine the order of an epoch.

    A step never spans two epochs. Examples that do not fill an epoch's last step are dropped;
    different ones in each epoch.

    Args:
        count: Number of examples.
        rows: Examples per step, at most `count`.
        seed: Random seed of the order.
    """

    def __init__(self, count: int, *, rows: int, seed: int = 0) -> None:
        self.count, self.rows, self.seed = count, min(rows, count), seed
        self.steps = count // self.rows
        """Number of steps in an epoch."""
        self.done = 0
        """Completed steps."""
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    def take(self) -> EpochSample:
        """Return the examples of the next step."""
        epoch, step = divmod(self.done, self.steps)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        self.done += 1
        return EpochSample(self._order[step * self.rows : (step + 1) * self.rows].tolist(), epoch)

    def state(self) -> dict[str, Any]:
        """Return the position, for `restore`."""
        return {"steps": self.done}

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a saved position."""
        self.done = state["steps"]
