"""Translation: predict each token of a target from its source and the tokens before it.

Sutskever et al. 2014 (1409.3215); label smoothing as in Vaswani et al. 2017 (1706.03762).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from idiolect.errors import ConfigError
from idiolect.nn.network import Network, Output
from idiolect.training.data.batch import IGNORE_INDEX, Batch, pad_rows
from idiolect.training.data.sentence_pairs import PairRows
from idiolect.training.objectives.cross_entropy import cross_entropy, vocabulary_blocks
from idiolect.training.objectives.objective import RowwiseObjective
from idiolect.training.objectives.objective_registry import check_kind, find_objective

__all__ = ["Translation", "target_loss"]


class Translation(RowwiseObjective):
    """Predict each token of a target from its source and the tokens before it.

    Args:
        network: An encoder-decoder with a language-model head.
        pad_id: Id that fills short rows; any id, since padding is masked.
        label_smoothing: The share of each target's probability that is spread over the vocabulary.

    Raises:
        ConfigError: The network is not an encoder-decoder, or the share is not below 1.
        InputError: It has no language-model head.
    """

    def __init__(self, network: Network, *, pad_id: int = 0, label_smoothing: float = 0.0) -> None:
        check_kind(find_objective("translate", "translation"), network.kind)
        _ = network.language_head
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"label_smoothing is {label_smoothing}", hint="at least 0, below 1")
        self.network, self.pad_id, self.label_smoothing = network, pad_id, label_smoothing

    def prepare(self, rows: PairRows) -> Batch:
        """Pad both sides, and shift the target to obtain the decoder's input."""
        input_ids, attention_mask = pad_rows(rows.source_ids, self.pad_id)
        target_ids, target_mask = pad_rows(rows.target_ids, self.pad_id)
        return Batch(
            input_ids=input_ids,
            attention_mask=attention_mask,
            labels=target_ids.masked_fill(target_mask == 0, IGNORE_INDEX),
            decoder_input_ids=self.network.shift_right(target_ids, target_mask),
            decoder_attention_mask=target_mask,
        )

    def loss(self, network: Network, batch: Batch) -> Tensor:
        """Return the loss summed over the target tokens, plus the network's extra loss."""
        return target_loss(network, batch, label_smoothing=self.label_smoothing)


def target_loss(network: Network, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
    """Return an encoder-decoder's loss summed over the target tokens, plus its extra loss.

    Args:
        network: The network.
        batch: Sources and targets.
        label_smoothing: As for `Translation`.
    """
    assert batch.labels is not None
    predicted = batch.predicted
    output: Output = network(**batch.inputs, return_logits=network.has_own_logits)
    if output.logits is not None:
        loss = F.cross_entropy(
            output.logits[predicted].float(),
            batch.labels[predicted],
            label_smoothing=label_smoothing,
            reduction="sum",
        )
    else:
        loss = cross_entropy(
            network.language_head.transform(output.hidden_states[predicted]),
            batch.labels[predicted],
            vocabulary_blocks(network),
            softcap=network.language_head.softcap,
            label_smoothing=label_smoothing,
        )
    return loss + network.extra_loss(output, batch.labels.masked_fill(~predicted, 0), predicted)
