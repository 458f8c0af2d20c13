"""`BestWeights`: early stopping on the validation loss, restoring the best weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["BestWeights"]

_PREFIX = "best:"
"""Prefix of the names of these weights in a checkpoint."""


class BestWeights:
    """The weights of the evaluation with the lowest loss; of equal ones, the earliest.

    Args:
        patience: Number of consecutive evaluations without a new lowest loss after which a run
            ends.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self._weights: dict[str, Tensor] = {}

    def observe(self, losses: Sequence[float], weights: Mapping[str, Tensor]) -> None:
        """Keep a copy of the weights if the last of all losses so far is the lowest."""
        if losses[-1] < min(losses[:-1], default=math.inf):
            self._weights = {name: one.detach().clone() for name, one in weights.items()}

    def is_old(self, losses: Sequence[float]) -> bool:
        """Return whether the lowest loss was at least `patience` evaluations ago."""
        return bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= self.patience

    @torch.no_grad()
    def apply(self, weights: Mapping[str, Tensor]) -> None:
        """Copy the best weights into the network's, if there was an evaluation."""
        for name, best in self._weights.items():
            weights[name].copy_(best)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors to store in a checkpoint."""
        return {_PREFIX + name: best for name, best in self._weights.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Restore the best weights from a checkpoint's tensors; return the other tensors."""
        self._weights = {
            name.removeprefix(_PREFIX): one
            for name, one in tensors.items()
            if name.startswith(_PREFIX)
        }
        return {name: one for name, one in tensors.items() if not name.startswith(_PREFIX)}
