"""Training objectives of sequence networks: next-item or masked-item prediction (BERT4Rec)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from idiolect.nn.network import Network, Output
from idiolect.recommend.model_kinds import ItemLoss
from idiolect.recommend.networks.item_table import match
from idiolect.recommend.networks.next_item_losses import bpr_max, gbce, sampled_softmax
from idiolect.training.data.batch import IGNORE_INDEX, Batch, pad_rows
from idiolect.training.data.shuffled_epochs import EpochSample
from idiolect.training.objectives.cross_entropy import cross_entropy
from idiolect.training.objectives.objective import RowwiseObjective

__all__ = ["NextItem", "windows"]

_GRIDS = 8
"""Number of parts into which a batch is split by length if most histories are short."""


def windows(rows: Sequence[NDArray[np.int64]], length: int) -> list[NDArray[np.int64]]:
    """Split long histories into windows of at most `length` + 1 items.

    Consecutive windows overlap in one item. A history of one item has no target and is skipped.
    """
    cut = []
    for row in rows:
        for end in range(len(row), 1, -length):
            cut.append(row[max(0, end - length - 1) : end])
    return cut


class NextItem(RowwiseObjective):
    """Predict the next item at every position, or masked items.

    Args:
        rows: Item numbers of each window.
        counts: Number of training events of each item, for sampling negatives. (items,).
        loss: Cross-entropy over all items, or a loss over sampled negatives.
        hidden_share: Share of items that are masked (BERT4Rec); `None` predicts the next item.
        samples: Number of negatives, which all targets of a micro-batch share.
        only_bought: Use only items with training events as negatives, so that the scores of
            other items, which come from their texts, are not pushed down.
        seed: Random seed of the masks.
    """

    def __init__(
        self,
        rows: Sequence[NDArray[np.int64]],
        counts: NDArray[np.int64],
        *,
        loss: ItemLoss,
        hidden_share: float | None = None,
        samples: int = 1024,
        only_bought: bool = False,
        seed: int = 0,
    ) -> None:
        self.rows, self.items, self.name = rows, len(counts), loss
        self.hidden_share, self.samples, self.seed = hidden_share, samples, seed
        # A power of popularity, between uniform and proportional sampling (as in Mikolov et al.
        # 2013 and GRU4Rec).
        share = torch.from_numpy(np.maximum(counts, 1e-3).astype(np.float64) ** 0.5)
        if only_bought:
            share[torch.from_numpy(counts == 0)] = 0
        self._probability = (share / share.sum()).float()
        """Sampling probability of each item as a negative. (items,)."""
        self._negatives = torch.from_numpy(np.flatnonzero(counts)) if only_bought else None

    def prepare(self, rows: EpochSample) -> Batch:
        """Pad the rows of a step; mask items if that is the task."""
        chosen = [self.rows[number] + 1 for number in rows.sources]
        if self.hidden_share is None:
            ids, mask = pad_rows([row[:-1] for row in chosen])
            labels, _ = pad_rows([row[1:] for row in chosen])
            return Batch(
                input_ids=ids,
                attention_mask=mask,
                labels=labels.masked_fill(mask == 0, IGNORE_INDEX),
            )
        ids, mask = pad_rows(chosen)
        rng = np.random.default_rng([self.seed, rows.epoch, *rows.sources[:1]])
        hidden = torch.from_numpy(rng.random(tuple(ids.shape)) < self.hidden_share)
        # In a tenth of the rows, only the last item is masked, as at inference; also in rows in
        # which no item would be masked.
        ends = mask.sum(1) - 1
        last = torch.arange(ids.shape[1]) == ends[:, None]
        only_last = torch.from_numpy(rng.random(len(ids)) < 0.1) | ~(hidden & (mask > 0)).any(1)
        hidden = torch.where(only_last[:, None], last, hidden) & (mask > 0)
        return Batch(
            input_ids=ids.masked_fill(hidden, self.items + 1),
            attention_mask=mask,
            labels=ids.masked_fill(~hidden, IGNORE_INDEX),
        )

    def loss(self, network: Network, batch: Batch) -> Tensor:
        """Return the loss summed over the targets."""
        hidden, targets = _predicting_states(network, batch)
        hidden, rows = match(network.tokens, hidden)
        if self.name == "cross-entropy" and self._negatives is not None:
            chosen = self._negatives.to(hidden.device)
            place = torch.searchsorted(chosen, targets - 1)
            return cross_entropy(hidden, place, [(rows[chosen + 1], None)])
        if self.name == "cross-entropy":
            return cross_entropy(hidden, targets, [(rows, None)])
        probability = self._probability.to(hidden.device)
        samples = torch.multinomial(probability, min(self.samples, self.items), replacement=True)
        positive = (hidden * rows[targets]).sum(1)
        negative = hidden @ rows[samples + 1].t()
        equal = targets[:, None] == samples + 1
        if self.name == "bpr-max":
            return bpr_max(positive, negative, equal)
        if self.name == "gbce":
            return gbce(positive, negative, equal, self.items)
        log = probability.clamp(min=1e-30).log()
        return sampled_softmax(positive, negative, equal, log[targets - 1], log[samples])


def _predicting_states(network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the hidden states at the positions with a target, and the targets.

    Shape: (targets, width) and (targets,).
    """
    assert batch.labels is not None
    if network.kind != "causal":
        output: Output = network(batch.input_ids, batch.attention_mask, return_logits=False)
        return output.hidden_states[batch.predicted], batch.labels[batch.predicted]
    # Padding is at the end, where a causal network cannot attend to it, so no mask is needed, and
    # the batch is computed as one padded tensor instead of one history after another. If most
    # histories are short, split the batch by length to reduce padding.
    lengths = batch.attention_mask.sum(1)
    alike = 2 * float(lengths.float().mean()) > batch.input_ids.shape[1]
    hidden, targets = [], []
    for rows in lengths.argsort(stable=True).tensor_split(1 if alike else _GRIDS):
        if not len(rows):
            continue
        ids, labels = (one[rows, : lengths[rows].max()] for one in (batch.input_ids, batch.labels))
        output = network(ids, None, return_logits=False)
        places = labels != IGNORE_INDEX
        hidden.append(output.hidden_states[places])
        targets.append(labels[places])
    return torch.cat(hidden), torch.cat(targets)
