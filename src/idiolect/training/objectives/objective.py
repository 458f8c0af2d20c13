"""What a training run minimises, and how its gradients are accumulated.

An objective makes a batch of what the source returns, computes its loss, and decides how one step
is divided. There are two ways:

    RowwiseObjective       the loss is a sum over rows: each process reads its share of the rows, in
                           micro-batches, and the parts add up
    WholeBatchObjective    every row is compared with every other, so the loss needs all of them:
                           each process computes the whole loss, and only the encoding is divided
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from idiolect.nn.network import Network
from idiolect.training.distributed import Workers

__all__ = [
    "BatchSource",
    "DivisibleBatch",
    "Objective",
    "RowwiseObjective",
    "SourceRows",
    "StepBatch",
    "StepContext",
    "WholeBatchObjective",
]


class SourceRows(Protocol):
    """What a source returns for one step."""

    @property
    def sources(self) -> Sequence[int]:
        """The documents it comes from, by number; named when a step fails."""


class BatchSource(Protocol):
    """Where the rows of each step come from, endlessly."""

    def take(self) -> SourceRows:
        """Return the rows of the next step, for all processes."""

    def state(self) -> dict[str, Any]:
        """Return the position as a few numbers."""

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a saved position."""


class StepBatch(Protocol):
    """The batch of one step."""

    @property
    def count(self) -> int:
        """How many targets the loss is a sum over."""

    @property
    def tokens(self) -> int:
        """How many tokens are read, padding not counted."""

    def to(self, device: torch.device) -> Self:
        """Move the batch to a device."""


class DivisibleBatch(StepBatch, Protocol):
    """A batch whose loss is a sum over its rows."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def part(self, rows: slice) -> Self:
        """Return some of the rows."""


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What an objective needs from the loop to accumulate the gradients of a step."""

    compute_loss: Callable[[Any], Tensor]
    """`Objective.loss` of a batch, in the run's number format."""
    backward: Callable[[Tensor], None]
    """Add the gradients of a summed loss, scaled so that the step's total is a mean."""
    workers: Workers
    """The processes."""
    device: torch.device
    """Where the network is."""
    micro_batch: int | None
    """Rows read at once; `None` for all."""


class Objective(ABC):
    """What a run minimises."""

    predicts_text: ClassVar[bool] = False
    """Whether every token is predicted once, so that bits per byte can be reported."""

    has_steady_loss: ClassVar[bool] = True
    """Whether a loss far above its running mean means that the run diverges. The loss of a policy
    follows the rewards of each step, and does not."""

    @abstractmethod
    def prepare(self, rows: Any) -> StepBatch:
        """Make a batch of the source's rows. The same rows always make the same batch."""

    @abstractmethod
    def loss(self, network: Network, batch: Any) -> Tensor:
        """Return the loss summed over the batch's targets, a scalar."""

    def rate_factor(self, batch: Any) -> float:
        """Return what the learning rate of a batch's step is multiplied by."""
        return 1.0

    def metrics(self) -> dict[str, float]:
        """Return what else the last step measured, by name, for `metrics.jsonl`."""
        return {}

    def carried(self) -> dict[str, Tensor]:
        """Return what is carried from step to step, by name. Later steps do not change it."""
        return {}

    def restore_carried(self, carried: Mapping[str, Tensor]) -> None:
        """Return to what `carried` returned."""
        del carried  # nothing, unless a subclass carries something

    @abstractmethod
    def accumulate(self, batch: Any, step: StepContext) -> float:
        """Add the gradients of a step's batch.

        Returns:
            This process's share of the summed loss: the shares of all processes add up to it.
        """


class RowwiseObjective(Objective):
    """A loss that is a sum over rows, whichever process and micro-batch they are in."""

    def accumulate(self, batch: DivisibleBatch, step: StepContext) -> float:
        """Add the gradients of this process's rows, one micro-batch after another."""
        own = batch.part(step.workers.share(len(batch)))
        size = step.micro_batch or max(1, len(own))
        summed = torch.zeros((), device=step.device)
        for start in range(0, len(own), size):
            loss = step.compute_loss(own.part(slice(start, start + size)).to(step.device))
            step.backward(loss)
            summed += loss.detach()
        return float(summed)


class WholeBatchObjective(Objective):
    """A loss over all rows at once, which every process computes whole."""

    def accumulate(self, batch: StepBatch, step: StepContext) -> float:
        """Add the gradients of the texts that this process has encoded."""
        loss = step.compute_loss(batch.to(step.device))
        step.backward(loss)
        return float(loss.detach()) / step.workers.count
