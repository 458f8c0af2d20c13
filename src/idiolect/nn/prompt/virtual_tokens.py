"""Virtual tokens before every text: embeddings of a prompt, or keys and values of a prefix.

In a causal network the keys and values of a prompt do not depend on the text. They are computed
once per batch, and the prompt is then treated as a prefix. A bidirectional network has to compute
the prompt again with every text.

Positions of a text are counted after the virtual tokens. A prefix of zeros is not the absence of a
prefix: softmax gives its keys a share of the attention.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

__all__ = ["LayerPrefix", "PrefixTokens", "PromptTokens", "VirtualTokens"]

LayerPrefix = tuple[Tensor, Tensor]
"""Keys and values of the virtual tokens in one layer. Both (key heads, tokens, head width)."""


class VirtualTokens(nn.Module, ABC):
    """Learnt tokens that a frozen network reads before every text."""

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of virtual tokens."""

    @abstractmethod
    def table(self) -> Tensor:
        """Return one row for each virtual token, in `peft`'s layout. (tokens, width)."""


class PromptTokens(VirtualTokens):
    """Embeddings before the first layer.

    Args:
        rows: Their initial values. (tokens, hidden size).
    """

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Parameter(rows.clone())

    @property
    def count(self) -> int:
        """Number of virtual tokens."""
        return len(self.embedding)

    def table(self) -> Tensor:
        """Return the rows. (tokens, hidden size)."""
        return self.embedding


class PrefixTokens(VirtualTokens):
    """Keys and values of every layer, as parameters or as the output of a small network.

    Args:
        rows: The initial values: for each token, keys and values of the first layer, then of the
            second, … (tokens, layers · 2 · key width); with `hidden_size`, the small network's
            input (tokens, key width).
        key_heads: Number of key/value heads.
        layers: Number of layers of the network.
        hidden_size: Width of the small network's hidden layer; None to learn the prefix directly.
    """

    def __init__(
        self, rows: Tensor, *, key_heads: int, layers: int, hidden_size: int | None = None
    ) -> None:
        super().__init__()
        self.key_heads, self.depth = key_heads, layers
        self.embedding = nn.Parameter(rows.clone())
        self.transform = None
        if hidden_size is not None:
            width = rows.shape[1]
            self.transform = nn.Sequential(
                nn.Linear(width, hidden_size),
                nn.Tanh(),
                nn.Linear(hidden_size, layers * 2 * width),
            ).to(rows)

    @property
    def count(self) -> int:
        """Number of virtual tokens."""
        return len(self.embedding)

    def table(self) -> Tensor:
        """Return keys and values of all layers. (tokens, layers · 2 · key width)."""
        table: Tensor = self.embedding if self.transform is None else self.transform(self.embedding)
        return table

    def layers(self, dtype: torch.dtype) -> list[LayerPrefix]:
        """Return the keys and values of each layer.

        Args:
            dtype: The network's dtype; the prefix itself may train in float32.
        """
        table = self.table().to(dtype)
        parts = table.view(len(table), self.depth, 2, self.key_heads, -1).permute(1, 2, 3, 0, 4)
        return [(keys, values) for keys, values in parts]
