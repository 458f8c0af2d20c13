"""`SupervisedTuning`: the objective of supervised fine-tuning (SFT).

The loss is the cross-entropy of the assistant's tokens only, or of all tokens (Ouyang et al. 2022,
2203.02155). It is a mean over all tokens of a step, however the step is split.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from idiolect.alignment.chat.chat_encoding import EncodedText
from idiolect.alignment.chat.packed_conversations import conversation_batch
from idiolect.nn.network import Network
from idiolect.training.data.batch import Batch
from idiolect.training.data.shuffled_epochs import EpochSample
from idiolect.training.objectives.causal import language_loss
from idiolect.training.objectives.objective import RowwiseObjective
from idiolect.training.objectives.objective_registry import check_kind, find_objective

__all__ = ["SupervisedTuning"]

_EVALUATED = 16


class SupervisedTuning(RowwiseObjective):
    """Predict the tokens that the assistant writes.

    Args:
        network: A causal network with a language-model head.
        texts: The conversations.
        rows: The indices of the conversations in each row.
        pad_id: Padding token id.

    Raises:
        ConfigError: The network is not causal.
        InputError: The network has no language-model head.
    """

    def __init__(
        self,
        network: Network,
        texts: Sequence[EncodedText],
        rows: Sequence[Sequence[int]],
        *,
        pad_id: int = 0,
    ) -> None:
        check_kind(find_objective("align", "sft"), network.kind)
        _ = network.language_head
        self.texts, self.rows, self.pad_id = texts, rows, pad_id

    def prepare(self, rows: EpochSample) -> Batch:
        """Make a batch of rows."""
        return self._batch(rows.sources)

    def loss(self, network: Network, batch: Batch) -> Tensor:
        """Return the loss summed over the predicted tokens."""
        return language_loss(network, batch)

    def mean_loss(self, network: Network) -> float:
        """Return the mean loss of all rows, without training on them."""
        total, count = 0.0, 0
        with torch.no_grad():
            for start in range(0, len(self.rows), _EVALUATED):
                batch = self._batch(range(start, min(start + _EVALUATED, len(self.rows))))
                total += float(language_loss(network, batch.to(network.device)))
                count += batch.count
        return total / max(1, count)

    def _batch(self, numbers: Sequence[int]) -> Batch:
        rows = [[self.texts[i] for i in self.rows[number]] for number in numbers]
        return conversation_batch(rows, self.pad_id)
