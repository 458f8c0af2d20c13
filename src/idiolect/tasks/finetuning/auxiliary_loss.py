"""Language-model loss as an auxiliary loss, weighted by λ (GPT-1: Radford et al. 2018)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from idiolect.encoding.encoder import Encoder
from idiolect.errors import ConfigError
from idiolect.nn.network import Network

__all__ = ["check_language_loss", "next_token_loss"]


def check_language_loss(encoder: Encoder) -> None:
    """Check that an encoder's network can predict the next token of the texts it reads.

    Raises:
        ConfigError: The network sees later tokens, or reads each text twice.
        InputError: The network has no language-model head.
    """
    network = encoder.model.network
    if network.kind != "causal" or encoder.bidirectional or encoder.pooling == "echo":
        raise ConfigError(
            "the language-model loss needs a network that reads a text once, from left to right",
            hint="omit lm_loss_weight, or adapt the network to the domain first",
        )
    _ = network.language_head


def next_token_loss(network: Network, hidden: Tensor, input_ids: Tensor, mask: Tensor) -> Tensor:
    """Return the mean next-token loss of each text, summed over the texts.

    The hidden states are shared with the task, so no second forward pass is needed.

    Shape: hidden (batch, length, width), input_ids and mask (batch, length), result a scalar.

    Args:
        network: The network, with a language-model head.
        hidden: Its hidden states.
        input_ids: The ids it has read.
        mask: True for the tokens of the text.
    """
    predicted = mask[:, 1:].bool() & mask[:, :-1].bool()
    scores = network.score_vocabulary(hidden[:, :-1][predicted]).float()
    losses = F.cross_entropy(scores, input_ids[:, 1:][predicted], reduction="none")
    shares = 1.0 / predicted.sum(1, keepdim=True).clamp(min=1)
    weights = shares.expand_as(predicted)[predicted]
    return torch.dot(losses, weights.to(losses))
