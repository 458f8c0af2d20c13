"""The next token: the objective of GPT and Llama, over packed rows of documents."""

from __future__ import annotations

import torch
from torch import Tensor

from idiolect.errors import InputError
from idiolect.nn.heads import LanguageHead
from idiolect.nn.transformer import Transformer
from idiolect.training.data.packed_documents import Batch, PackedRows
from idiolect.training.objectives.cross_entropy import cross_entropy, vocabulary_blocks

__all__ = ["Causal", "check_head", "language_loss"]


class Causal:
    """Predict each token from those before it in its document (Radford et al. 2018).

    Raises:
        InputError: The network does not read from left to right, or has no language-model head.
    """

    predicts_text = True
    """Every token is predicted once, so that bits per byte have a meaning."""

    def __init__(self, network: Transformer) -> None:
        if network.decoder is None or network.encoder is not None:
            raise InputError(
                "this network is no decoder, so it cannot predict the next token",
                hint='use objective="masked" for an encoder',
            )
        check_head(network)

    def prepare(self, rows: PackedRows) -> Batch:
        """Say what each token predicts: the next one, unless it stands in another document."""
        targets = torch.full_like(rows.ids, -1)
        together = (rows.documents[:, 1:] == rows.documents[:, :-1]) & (rows.documents[:, 1:] > 0)
        targets[:, :-1] = torch.where(together, rows.ids[:, 1:], -1)
        return Batch(rows.ids, rows.documents, targets)

    def loss(self, network: Transformer, batch: Batch) -> Tensor:
        """Return the loss summed over the batch's targets."""
        return language_loss(network, batch)


def language_loss(network: Transformer, batch: Batch) -> Tensor:
    """Return the cross-entropy summed over the tokens that have a target."""
    hidden = network(batch.ids, batch.documents, heads=False).hidden
    wanted = batch.targets >= 0
    head = network.heads["language"]
    assert isinstance(head, LanguageHead)
    return cross_entropy(
        head.transform(hidden[wanted]), batch.targets[wanted], vocabulary_blocks(network)
    )


def check_head(network: Transformer) -> None:
    """Refuse a network that cannot score its vocabulary.

    Raises:
        InputError: It has no language-model head.
    """
    if "language" not in network.heads:
        raise InputError(
            "this network has no language-model head",
            hint="load a class that has one, such as ...ForCausalLM or ...ForMaskedLM",
        )
