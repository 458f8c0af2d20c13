"""`UserTower`: the user tower of a two-tower model over items, for large catalogues.

Two means of the item embeddings in the history, one with equal weights and one with decaying
weights for older events, go through two layers (Covington et al. 2016, "Deep neural networks for
YouTube recommendations"). The item tower is the item embedding, with or without texts. Both means
can be updated incrementally with each event.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from idiolect.nn.basic import Dropout
from idiolect.nn.network import Network, NetworkKind, Output

__all__ = ["UserTower", "UserTowerConfig"]

_DECAY = 0.6
"""Weight of an event relative to the one after it."""


@dataclass(frozen=True)
class UserTowerConfig:
    """Sizes of a user tower."""

    vocab_size: int
    """Number of ids: padding, items, and a mask."""
    hidden_size: int = 64
    dropout: float = 0.1
    pad_token_id: int | None = 0


class UserTower(Network):
    """Two layers over means of the items up to each position."""

    config: UserTowerConfig

    def __init__(self, config: UserTowerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.tokens = nn.Embedding(config.vocab_size, width, padding_idx=self.padding_row)
        self.layers = nn.Sequential(
            Dropout(config.dropout),
            nn.Linear(2 * width, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, width),
        )
        self.heads = nn.ModuleDict()

    @property
    def kind(self) -> NetworkKind:
        """Causal: a position depends only on itself and earlier ones."""
        return "causal"

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers."""
        return [self.layers]

    @property
    def head_modules(self) -> list[nn.Module]:
        """None."""
        return []

    @property
    def has_dropout(self) -> bool:
        """Whether two passes in training mode may differ."""
        return self.config.dropout > 0

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Initialize item embeddings as in SASRec, and layers with PyTorch's default."""
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    module.reset_parameters()
            assert isinstance(self.tokens.weight, Tensor)
            self.tokens.weight.normal_(std=0.02)
        self.clear_padding_row()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, return_logits: bool = True
    ) -> Output:
        """Return the user vector after each position; see `Network.forward`."""
        self.check_ids(input_ids)
        x: Tensor = self.tokens(input_ids)
        places = torch.arange(x.shape[1], device=x.device)
        ages = places[:, None] - places
        visible = (ages >= 0).to(x.dtype)
        means = []
        for decay in (1.0, _DECAY):
            weights = visible * decay ** ages.clamp(min=0).to(x.dtype)
            means.append((weights / weights.sum(1, keepdim=True)) @ x)
        last = means[1]
        return Output(hidden_states=last + self.layers(torch.cat(means, -1)))

    def text_states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        bidirectional: bool = False,
    ) -> Tensor:
        """Return the user vectors; see `Network.text_states`."""
        return self.forward(input_ids, attention_mask).hidden_states
