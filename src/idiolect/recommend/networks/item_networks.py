"""The networks over items: Transformers, a recurrent network, and a user tower.

Ids: 0 is padding, item i has the id i + 1, and the last id is BERT4Rec's mask token. The output
layer is tied to the item embedding.

    sasrec     2 causal layers of width 64, one head (Kang & McAuley 2018, 1808.09781)
    bert4rec   2 bidirectional layers of width 64, two heads (Sun et al. 2019, 1904.06690)
    gru4rec    1 GRU layer of width 100 (Hidasi et al. 2016, 1511.06939)
    unisrec    SASRec over texts only, 8 whitening experts, cosine (Hou et al. 2022, 2206.05941)
    two-tower  means of the history through two layers (Covington et al. 2016)

Each can use text embeddings of the items instead of the item embedding, or in addition to it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from idiolect.nn.config import TransformerConfig
from idiolect.nn.network import Network
from idiolect.nn.recurrent import RecurrentConfig, RecurrentNetwork
from idiolect.nn.transformer import Transformer
from idiolect.recommend.model_kinds import ItemText
from idiolect.recommend.networks.item_table import TextItems
from idiolect.recommend.networks.two_tower_items import UserTower, UserTowerConfig

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


def _sasrec(items: int, max_length: int) -> Network:
    return _transformer(items, max_length, causal=True)


MAKERS: dict[str, Callable[[int, int], Network]] = {
    "sasrec": _sasrec,
    "bert4rec": lambda items, length: _transformer(items, length, causal=False),
    "gru4rec": lambda items, length: _gru(items),
    "unisrec": _sasrec,
    "two-tower": lambda items, length: UserTower(UserTowerConfig(items + 2)),
}
"""By name, a function of the number of items and the maximum history length."""
_EXPERTS = {"unisrec": 8}
_TEMPERATURES = {"unisrec": 0.07}


def make_network(
    name: str,
    items: int,
    max_length: int,
    *,
    seed: int = 0,
    vectors: Tensor | None = None,
    item_text: ItemText | None = None,
) -> Network:
    """Make an untrained network.

    Args:
        name: One of `MAKERS`.
        items: Number of items.
        max_length: Maximum history length.
        seed: Random seed of the weights.
        vectors: Text embeddings of the items, if they are used. Shape: (items, text width).
        item_text: How they are used.
    """
    network = MAKERS[name](items, max_length)
    network.init_weights(seed)
    if isinstance(network, RecurrentNetwork):
        _init_as_published(network, seed)
    if item_text is not None:
        assert vectors is not None, "texts are read as vectors"
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            rows = network.tokens.weight
            assert isinstance(rows, Tensor)
            network.tokens = TextItems(  # type: ignore[assignment]
                vectors,
                rows.shape[1],
                own=item_text == "added",
                trained=item_text == "trained",
                experts=_EXPERTS.get(name, 0),
                temperature=_TEMPERATURES.get(name),
            )
    return network.eval()


@torch.no_grad()
def _init_as_published(network: RecurrentNetwork, seed: int) -> None:
    """Initialize matrices uniformly in ±√(6 / (rows + columns)), as GRU4Rec's code does."""
    random = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if parameter.dim() < 2:
            parameter.zero_()
            continue
        # A layer's matrices contain those of its three gates.
        for gate in parameter.chunk(3 if name.startswith("layers.") else 1):
            bound = (6 / sum(gate.shape)) ** 0.5
            gate.uniform_(-bound, bound, generator=random)
    network.clear_padding_row()
