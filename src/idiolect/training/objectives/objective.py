"""Training objectives: the loss of a run, and how its gradients are accumulated.

An objective makes a batch from the source's rows, computes its loss, and decides how a step is
divided among processes. There are two ways:

    RowwiseObjective       the loss is a sum over rows: each process computes its share of the rows,
                           in micro-batches, and the results are summed
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
    """The rows that a source returns for one step."""

    @property
    def sources(self) -> Sequence[int]:
        """Numbers of the documents that the rows come from; reported when a step fails."""


class BatchSource(Protocol):
    """An endless source of the rows of each step."""

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
        """Number of targets over which the loss is summed."""

    @property
    def tokens(self) -> int:
        """Number of tokens read, excluding padding."""

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
    """The arguments an objective needs from the loop to accumulate the gradients of a step."""

    compute_loss: Callable[[Any], Tensor]
    """`Objective.loss` of a batch, in the run's number format."""
    backward: Callable[[Tensor], None]
    """Add the gradients of a summed loss, scaled so that the step's total is a mean."""
    workers: Workers
    """The processes."""
    device: torch.device
    """The device of the network."""
    micro_batch: int | None
    """Micro-batch size in rows; `None` for all rows."""


class Objective(ABC):
    """The loss that a run minimises."""

    predicts_text: ClassVar[bool] = False
    """Whether every token is predicted once, so that bits per byte can be reported."""

    has_steady_loss: ClassVar[bool] = True
    """Whether a loss far above its running mean means that the run diverges. The loss of a policy
    follows the rewards of each step, and does not."""

    @abstractmethod
    def prepare(self, rows: Any) -> StepBatch:
        """Make a batch from the source's rows, deterministically."""

    @abstractmethod
    def loss(self, network: Network, batch: Any) -> Tensor:
        """Return the loss summed over the batch's targets, a scalar."""

    def rate_factor(self, batch: Any) -> float:
        """Return the factor on the learning rate for a batch's step."""
        return 1.0

    def metrics(self) -> dict[str, float]:
        """Return additional metrics of the last step, by name, for `metrics.jsonl`."""
        return {}

    def carried(self) -> dict[str, Tensor]:
        """Return the tensors carried from step to step, by name. Later steps do not modify them."""
        return {}

    def restore_carried(self, carried: Mapping[str, Tensor]) -> None:
        """Restore the tensors that `carried` returned."""
        del carried  # nothing, unless a subclass carries something

    @abstractmethod
    def accumulate(self, batch: Any, step: StepContext) -> float:
        """Add the gradients of a step's batch.

        Returns:
            This process's share of the summed loss; the shares of all processes sum to it.
        """


class RowwiseObjective(Objective):
    """A loss that is a sum over rows, independent of processes and micro-batches."""

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
    """A loss over all rows at once, which every process computes in full."""

    def accumulate(self, batch: StepBatch, step: StepContext) -> float:
        """Add the gradients of the texts that this process has encoded."""
        loss = step.compute_loss(batch.to(step.device))
        step.backward(loss)
        return float(loss.detach()) / step.workers.count
