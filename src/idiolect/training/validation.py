"""Compute the loss on held-out text."""

from __future__ import annotations

from typing import Any

import torch

from idiolect.nn.network import Network
from idiolect.training.objectives.objective import BatchSource, Objective

__all__ = ["validation_loss"]


@torch.no_grad()
def validation_loss(network: Network, objective: Objective, *sources: BatchSource) -> float:
    """Return the mean loss per target over one epoch of each source, then reset the sources.

    The last step of a source of packed documents may extend into the next epoch.

    Args:
        network: The network, in evaluation mode.
        objective: The loss; a separate instance from that of training, which may carry states.
        sources: The validation text, at its start.
    """
    total, count = 0.0, 0
    for source in sources:
        start = source.state()
        while source.state()["epochs"] == start["epochs"]:
            batch: Any = objective.prepare(source.take())
            total += float(objective.loss(network, batch.to(network.device)))
            count += batch.count
        source.restore(start)
    return total / max(1, count)
