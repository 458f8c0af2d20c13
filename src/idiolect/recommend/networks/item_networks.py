"""The networks: configurations of the one Transformer, and a GRU, over item numbers.

Ids: 0 is padding, item i is i + 1, and the last row is BERT4Rec's mask. The output shares the
item embedding.

    sasrec     2 causal layers of width 64, one head (Kang & McAuley 2018, 1808.09781)
    bert4rec   2 bidirectional layers of width 64, two heads (Sun et al. 2019, 1904.06690)
    gru4rec    1 GRU layer of width 100 (Hidasi et al. 2016, 1511.06939)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from idiolect.nn.basic import Dropout
from idiolect.nn.config import TransformerConfig
from idiolect.nn.network import Network, NetworkKind, Output
from idiolect.nn.transformer import Transformer

__all__ = ["MAKERS", "GruNetwork", "ItemGruConfig", "make_network"]


@dataclass(frozen=True, kw_only=True)
class ItemGruConfig:
    """The sizes of a GRU over items."""

    vocab_size: int
    """Rows of the embedding."""
    hidden_size: int
    """Width of embedding and states."""
    num_layers: int = 1
    """GRU layers."""
    dropout: float = 0.0
    """On the embeddings."""
    pad_token_id: int = 0
    """Padding."""
    tasks: tuple[str, ...] = ()
    """It has no heads: the output shares the embedding."""


class GruNetwork(Network):
    """A GRU over the items of a history."""

    def __init__(self, config: ItemGruConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.drop = Dropout(config.dropout)
        width = config.hidden_size
        self.gru = nn.GRU(width, width, config.num_layers, batch_first=True)
        self.heads = nn.ModuleDict()

    @property
    def kind(self) -> NetworkKind:
        """It reads from left to right."""
        return "causal"

    @property
    def blocks(self) -> list[nn.Module]:
        """The GRU."""
        return [self.gru]

    @property
    def head_modules(self) -> list[nn.Module]:
        """There are none."""
        return []

    @property
    def has_dropout(self) -> bool:
        """Whether embeddings are dropped."""
        return self.drop.rate > 0

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Initialize matrices uniformly in ±√(6 / (rows + columns)), as the official code does."""
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            for parameter in self.parameters():
                if parameter.dim() < 2:
                    parameter.zero_()
                else:
                    # The GRU's matrices hold those of its three gates.
                    whole = parameter is self.tokens.weight
                    for gate in parameter.chunk(1 if whole else 3):
                        bound = (6 / sum(gate.shape)) ** 0.5
                        gate.uniform_(-bound, bound)
            self.get_parameter("tokens.weight")[0].zero_()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, return_logits: bool = True
    ) -> Output:
        """Run histories, padded at the end, through the GRU. Shape: (batch, length)."""
        hidden, _ = self.gru(self.drop(self.tokens(input_ids)))
        return Output(hidden_states=hidden)

    def text_states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        bidirectional: bool = False,
    ) -> Tensor:
        """Return the states. Shape: (batch, length, width)."""
        output: Output = self(input_ids, attention_mask)
        return output.hidden_states


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


def _gru(items: int, max_length: int) -> Network:
    return GruNetwork(ItemGruConfig(vocab_size=items + 2, hidden_size=100, dropout=0.2))


MAKERS: dict[str, Callable[[int, int], Network]] = {
    "sasrec": lambda items, length: _transformer(items, length, causal=True),
    "bert4rec": lambda items, length: _transformer(items, length, causal=False),
    "gru4rec": _gru,
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
    return network.eval()
