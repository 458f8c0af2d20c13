"""The networks: configurations of the one Transformer and of the one recurrent network, over items.

Ids: 0 is padding, item i is i + 1, and the last row is BERT4Rec's mask. The output shares the
item embedding.

    sasrec     2 causal layers of width 64, one head (Kang & McAuley 2018, 1808.09781)
    bert4rec   2 bidirectional layers of width 64, two heads (Sun et al. 2019, 1904.06690)
    gru4rec    1 GRU layer of width 100 (Hidasi et al. 2016, 1511.06939)
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from idiolect.nn.config import TransformerConfig
from idiolect.nn.network import Network
from idiolect.nn.recurrent import RecurrentConfig, RecurrentNetwork
from idiolect.nn.transformer import Transformer

__all__ = ["MAKERS", "make_network"]


def _transformer(items: int, max_length: int, *, causal: bool) -> Network:
    return Transformer(
        TransformerConfig(
            vocab_size=items + 2,
            hidden_size=64,
            num_attention_heads=1 if causal else 2,
            intermediate_size=64 if causal else 256,
            num_decoder_layers=2 if causal else 0,
            num_encoder_layers=0 if causal else 2,
            activation="relu" if causal else "gelu",
            max_position_embeddings=max_length + 1,
            embedding_scale=8.0 if causal else 1.0,
            dropout=0.2 if causal else 0.1,
            attention_dropout=0.2 if causal else 0.1,
            norm_eps=1e-8 if causal else 1e-12,
            tasks=(),
            pad_token_id=0,
        )
    )


def _gru(items: int) -> Network:
    return RecurrentNetwork(
        RecurrentConfig(
            vocab_size=items + 2,
            embedding_size=100,
            inner_size=100,
            hidden_size=100,
            num_layers=1,
            cell="gru",
            input_dropout=0.2,
            tasks=(),
            pad_token_id=0,
        )
    )


MAKERS: dict[str, Callable[[int, int], Network]] = {
    "sasrec": lambda items, length: _transformer(items, length, causal=True),
    "bert4rec": lambda items, length: _transformer(items, length, causal=False),
    "gru4rec": lambda items, length: _gru(items),
}
"""A function of the number of items and the longest history for each name."""


def make_network(name: str, items: int, max_length: int, *, seed: int = 0) -> Network:
    """Make an untrained network.

    Args:
        name: One of `MAKERS`.
        items: How many items there are.
        max_length: The longest history that it reads.
        seed: Random seed of the weights.
    """
    network = MAKERS[name](items, max_length)
    network.init_weights(seed)
    if isinstance(network, RecurrentNetwork):
        _init_as_published(network, seed)
    return network.eval()


@torch.no_grad()
def _init_as_published(network: RecurrentNetwork, seed: int) -> None:
    """Initialize matrices uniformly in ±√(6 / (rows + columns)), as GRU4Rec's code does."""
    random = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if parameter.dim() < 2:
            parameter.zero_()
            continue
        # A layer's matrices hold those of its three gates.
        for gate in parameter.chunk(3 if name.startswith("layers.") else 1):
            bound = (6 / sum(gate.shape)) ** 0.5
            gate.uniform_(-bound, bound, generator=random)
    network.clear_padding_row()
