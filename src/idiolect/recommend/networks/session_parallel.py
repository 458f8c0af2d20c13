"""GRU4Rec as published: session-parallel mini-batches with in-batch negatives.

Each row of a batch reads one session, one item per step. When a session ends, the next one starts
in its row with a zero state. Gradients are truncated after one step. The negatives of a row are the
targets of the other rows, and samples by popularity (Hidasi et al. 2016, 1511.06939; Hidasi &
Karatzoglou 2018, 1706.03847).

    step     1   2   3   4   5
    row 0    a₁  a₂  a₃  d₁  d₂
    row 1    b₁  b₂  c₁  c₂  c₃
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from idiolect.errors import ConfigError, InputError
from idiolect.nn.network import Network
from idiolect.nn.recurrent.recurrent_state import RecurrentCache
from idiolect.recommend.model_kinds import ItemLoss
from idiolect.recommend.networks.item_table import match
from idiolect.recommend.networks.next_item_losses import bpr_max, sampled_softmax
from idiolect.training.data.batch import Batch
from idiolect.training.objectives.objective import StepBatch, StepContext, WholeBatchObjective

__all__ = ["SessionBatch", "SessionParallel", "SessionStep", "SessionSteps"]

_ALPHA = 0.5
"""Negatives are sampled in proportion to popularity raised to this power."""
_ELU = 0.5
"""Lower bound of negative scores in BPR-max is −ELU."""


@dataclass(frozen=True)
class SessionStep:
    """One step of all rows."""

    items: NDArray[np.int64]
    targets: NDArray[np.int64]
    starts: NDArray[np.bool_]
    """True for rows in which a session starts. Shape of all three: (rows,)."""
    sources: list[int]
    """Numbers of the sessions."""


@dataclass(frozen=True, kw_only=True)
class SessionBatch(Batch):
    """One item of each row, and whether a session starts with it."""

    starts: Tensor
    """(rows,), bool."""


class SessionSteps:
    """An endless stream of steps; seed and epoch determine the order of sessions.

    An epoch ends when a row has no next session; sessions that are then open are not finished.

    Args:
        sessions: Item numbers of each session; sessions of one item are skipped.
        rows: Number of parallel sessions.
        seed: Random seed of the order.

    Raises:
        InputError: There are fewer sessions than rows.
    """

    def __init__(self, sessions: Sequence[NDArray[np.int64]], *, rows: int, seed: int = 0) -> None:
        self.sessions = [one for one in sessions if len(one) > 1]
        if len(self.sessions) < rows:
            raise InputError(
                f"{len(self.sessions)} sessions for {rows} rows", hint="use a smaller batch_size"
            )
        self.rows, self.seed = rows, seed
        self.epoch, self.place = 0, 0
        self._grid = self._arrange(0)
        self.steps = self._grid.shape[1]
        """Number of steps in the first epoch; others have about as many."""

    def take(self) -> SessionStep:
        """Return the next step."""
        if self.place == self._grid.shape[1]:
            self.epoch, self.place = self.epoch + 1, 0
            self._grid = self._arrange(self.epoch)
        session, position = self._grid[:, self.place].T
        self.place += 1
        pairs = [self.sessions[s][p : p + 2] for s, p in zip(session, position, strict=True)]
        items, targets = np.stack(pairs).T
        return SessionStep(items, targets, position == 0, session.tolist())

    def state(self) -> dict[str, Any]:
        """Return the position, for `restore`."""
        return {"epoch": self.epoch, "place": self.place}

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a saved position."""
        self.epoch, self.place = state["epoch"], state["place"]
        self._grid = self._arrange(self.epoch)

    def _arrange(self, epoch: int) -> NDArray[np.int64]:
        """Return the session and the position of each row and step. Shape: (rows, steps, 2)."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.sessions))
        free = [(0, row) for row in range(self.rows)]
        begun: list[list[int]] = [[] for _ in range(self.rows)]
        for session in order.tolist():
            step, row = heapq.heappop(free)
            begun[row].append(session)
            heapq.heappush(free, (step + len(self.sessions[session]) - 1, row))
        steps = free[0][0]  # when the first row has no next session
        grid = np.empty((self.rows, steps, 2), np.int64)
        for row, own in enumerate(begun):
            lengths = [len(self.sessions[session]) - 1 for session in own]
            grid[row, :, 0] = np.repeat(own, lengths)[:steps]
            grid[row, :, 1] = np.concatenate([np.arange(n) for n in lengths])[:steps]
        return grid


class SessionParallel(WholeBatchObjective):
    """Predict the next item of each row, against the other rows' targets and samples.

    Args:
        counts: Number of training events of each item. (items,).
        loss: `cross-entropy` (with logQ correction) or `bpr-max`.
        samples: Number of negatives in addition to those in the batch.
        penalty: λ of BPR-max.
    """

    def __init__(
        self,
        counts: NDArray[np.int64],
        *,
        loss: ItemLoss,
        samples: int = 2048,
        penalty: float = 1.0,
    ) -> None:
        if loss not in ("cross-entropy", "bpr-max"):
            raise ConfigError(
                f"sessions side by side do not train with {loss}",
                hint="use cross-entropy or bpr-max",
            )
        self.name, self.samples, self.penalty = loss, samples, penalty
        share = torch.from_numpy(np.maximum(counts, 1e-3).astype(np.float64))
        self.share = (share / share.sum()).float()
        """Share of each item in the training events. (items,)."""
        self._carried: dict[str, Tensor] = {}

    def prepare(self, rows: SessionStep) -> SessionBatch:
        """Make a batch of one item per row."""
        ids = torch.from_numpy(rows.items + 1)[:, None]
        return SessionBatch(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            labels=torch.from_numpy(rows.targets + 1)[:, None],
            starts=torch.from_numpy(rows.starts),
        )

    def loss(self, network: Network, batch: Batch) -> Tensor:
        """Return the loss summed over the rows, and keep the states for the next step."""
        assert isinstance(batch, SessionBatch)
        assert batch.labels is not None
        cache = network.new_cache()
        assert isinstance(cache, RecurrentCache)
        if self._carried:
            kept = ~batch.starts[:, None]
            carried = {name: state * kept for name, state in self._carried.items()}
            cache = RecurrentCache.from_tensors(carried)
        output = network(batch.input_ids, cache=cache, return_logits=False)
        self._carried = cache.detached().tensors()
        share = self.share.to(batch.input_ids.device)
        sampled = torch.multinomial(share**_ALPHA, self.samples, replacement=True)
        return self.compare(network, output.hidden_states[:, 0], batch.labels[:, 0] - 1, sampled)

    def compare(self, network: Network, hidden: Tensor, targets: Tensor, sampled: Tensor) -> Tensor:
        """Return the loss of hidden states, given sampled negatives.

        Shape: hidden (rows, width), targets (rows,), sampled (samples,), items by their numbers.
        """
        states, rows = match(network.tokens, hidden)
        scores = states @ rows[torch.cat([targets, sampled]) + 1].t()
        # As published, only a row's own target is excluded, even if another row has the same one.
        own = torch.zeros_like(scores, dtype=torch.bool)
        own.fill_diagonal_(True)
        if self.name == "bpr-max":
            scores = F.elu(scores, _ELU)
            return bpr_max(scores.diagonal(), scores, own, self.penalty)
        log = self.share.to(hidden.device).log()
        logs = torch.cat([log[targets], _ALPHA * log[sampled]])
        return sampled_softmax(scores.diagonal(), scores, own, log[targets], logs)

    def carried(self) -> dict[str, Tensor]:
        """Return the recurrent states of the rows."""
        return self._carried

    def restore_carried(self, carried: Mapping[str, Tensor]) -> None:
        """Restore saved recurrent states."""
        self._carried = dict(carried)

    def accumulate(self, batch: StepBatch, step: StepContext) -> float:
        """Add the gradients of the rows.

        Raises:
            ConfigError: There are several processes.
        """
        if step.workers.count > 1:
            raise ConfigError(
                "sessions whose state is carried cannot be divided among processes",
                hint="train in one process",
            )
        return super().accumulate(batch, step)
