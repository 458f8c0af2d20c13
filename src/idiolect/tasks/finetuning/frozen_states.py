"""Train a head on a frozen network that reads each example once instead of every epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from idiolect.encoding.text_reader import by_length
from idiolect.nn.matrix_precision import TrainingPrecision, autocast, choose_precision
from idiolect.nn.network import Network
from idiolect.training.data.shuffled_epochs import EpochSample
from idiolect.training.objectives.objective import RowwiseObjective
from idiolect.training.progress import show_progress

__all__ = ["FrozenObjective", "StatesBatch", "frozen_states"]

_TOKENS_PER_BATCH = 4096
_MOST_BYTES = 2 << 30
"""If the states need more memory, the network reads the examples again in every epoch."""


def frozen_states(
    network: Network,
    ids: Sequence[Sequence[int]],
    compute: Callable[[list[int]], Sequence[Tensor]],
    *,
    numbers: int,
    precision: TrainingPrecision,
) -> list[Tensor] | None:
    """Return the input of a head for each example, or None if that exceeds 2 GiB.

    The network is in evaluation mode, without dropout, since the states are used in all epochs.

    Args:
        network: The network.
        ids: The ids of each example; batches hold examples of similar length.
        compute: Returns the states of the examples with the given indices.
        numbers: Number of scalars in the states of all examples.
        precision: Format of matrix products.
    """
    if 4 * numbers > _MOST_BYTES:
        return None
    found: list[Tensor] = [torch.empty(0)] * len(ids)
    network.eval()
    chosen = autocast(choose_precision(network, precision), network.device)
    with torch.no_grad(), chosen, show_progress("reading", len(ids)) as activity:
        for batch in by_length(ids, _TOKENS_PER_BATCH):
            for number, states in zip(batch, compute(batch), strict=True):
                found[number] = states.float().clone()
            activity.advance(len(batch))
    return found


@dataclass(frozen=True)
class StatesBatch:
    """Indices of examples, and their states."""

    examples: list[int]
    states: list[Tensor]
    """Shape: (width,) each, or (words, width) each."""

    def __len__(self) -> int:
        return len(self.states)

    @property
    def count(self) -> int:
        """Number of vectors: one for each example, or one for each word."""
        return sum(1 if one.dim() == 1 else len(one) for one in self.states)

    @property
    def tokens(self) -> int:
        """The same as `count`, since the tokens were read before."""
        return self.count

    def part(self, rows: slice) -> StatesBatch:
        """Return some of the examples."""
        return StatesBatch(self.examples[rows], self.states[rows])

    def to(self, device: torch.device) -> StatesBatch:
        """Return the batch on a device."""
        return replace(self, states=[one.to(device) for one in self.states])


class FrozenObjective(RowwiseObjective):
    """The loss of a head on precomputed states.

    Args:
        states: As `frozen_states` returns them.
        loss: Returns the loss of a batch, summed over its `count`.
    """

    has_steady_loss = False
    """Only a small head trains: after a spike of one batch, its loss falls again."""

    def __init__(self, states: Sequence[Tensor], loss: Callable[[StatesBatch], Tensor]) -> None:
        self.states, self._loss = states, loss

    def prepare(self, rows: EpochSample) -> StatesBatch:
        """Return the states of some examples."""
        return StatesBatch(rows.sources, [self.states[number] for number in rows.sources])

    def loss(self, network: Network, batch: StatesBatch) -> Tensor:
        """Return the loss of the head; the network is not used."""
        return self._loss(batch)
