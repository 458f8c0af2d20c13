"""Next-token prediction: the objective of GPT and Llama, over packed rows of documents."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from idiolect.nn.network import Network
from idiolect.text.text_template import TextTemplate
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.data.batch import IGNORE_INDEX, Batch
from idiolect.training.data.packed_documents import PackedRows
from idiolect.training.objectives.cross_entropy import cross_entropy, vocabulary_blocks
from idiolect.training.objectives.objective import RowwiseObjective
from idiolect.training.objectives.objective_registry import check_kind, find_objective

__all__ = ["Causal", "language_loss"]


class Causal(RowwiseObjective):
    """Predict each token from those before it in its document (Radford et al. 2018).

    Args:
        network: A causal network with a language-model head.

    Raises:
        ConfigError: The network does not read from left to right.
        InputError: It has no language-model head.
    """

    predicts_text = True

    def __init__(self, network: Network) -> None:
        check_kind(find_objective("pretrain", "causal"), network.kind)
        _ = network.language_head

    @classmethod
    def create(cls, network: Network, tokenizer: Tokenizer, *, seed: int) -> Self:
        """Make the objective for a run; nothing of it is random."""
        return cls(network)

    @staticmethod
    def template(tokenizer: Tokenizer) -> TextTemplate:
        """Return the special tokens around each text."""
        return TextTemplate.of(tokenizer, causal=True)

    def prepare(self, rows: PackedRows) -> Batch:
        """Label each token with the next one, unless that is in another document."""
        labels = torch.full_like(rows.input_ids, IGNORE_INDEX)
        together = (rows.document_ids[:, 1:] == rows.document_ids[:, :-1]) & (
            rows.document_ids[:, 1:] > 0
        )
        labels[:, :-1] = torch.where(together, rows.input_ids[:, 1:], IGNORE_INDEX)
        return Batch(input_ids=rows.input_ids, attention_mask=rows.document_ids, labels=labels)

    def loss(self, network: Network, batch: Batch) -> Tensor:
        """Return the loss summed over the labels."""
        return language_loss(network, batch)


def language_loss(network: Network, batch: Batch) -> Tensor:
    """Return the cross-entropy summed over the tokens that have a label."""
    hidden = network(**batch.inputs, return_logits=False).hidden_states
    predicted = batch.predicted
    assert batch.labels is not None
    return cross_entropy(
        network.language_head.transform(hidden[predicted]),
        batch.labels[predicted],
        vocabulary_blocks(network),
        softcap=network.language_head.softcap,
    )
