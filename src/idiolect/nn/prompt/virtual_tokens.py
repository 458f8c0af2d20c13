"""Virtual tokens before every text: rows of a prompt, or keys and values of a prefix.

A causal network reads a prompt before it has seen the text, so the prompt's keys and values are the
same for all texts: they are computed once for a batch, and from then on a prompt is a prefix. Only
a bidirectional network reads the prompt anew with every text.

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
    """What a network reads before every text, while its own weights stay as they are."""

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of virtual tokens."""

    @abstractmethod
    def table(self) -> Tensor:
        """Return one row for each virtual token, in `peft`'s layout. (tokens, width)."""


class PromptTokens(VirtualTokens):
    """Rows before the first layer.

    Args:
        rows: Their first values. (tokens, hidden size).
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
        rows: The first values: of each token, keys and values of the first layer, those of the
            second, … (tokens, layers · 2 · key width); with `hidden_size`, the small network's
            input (tokens, key width).
        key_heads: Heads that keys and values have.
        layers: Layers of the network.
        hidden_size: Width of the small network's hidden layer; None for none.
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
            dtype: The network's; the prefix itself may train in float32.
        """
        table = self.table().to(dtype)
        parts = table.view(len(table), self.depth, 2, self.key_heads, -1).permute(1, 2, 3, 0, 4)
        return [(keys, values) for keys, values in parts]
