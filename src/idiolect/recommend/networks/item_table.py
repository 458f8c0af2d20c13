"""`TextItems`: an item embedding made of the vectors of the items' texts.

The vectors are those of an encoder; an adaptor maps them to the network's width. So an item that
nobody has had has a place among the others. Two adaptors:

    linear     one matrix
    experts    a mixture of parametric whitenings Σ gₖ(x)·(x − bₖ)Wₖ (UniSRec, Hou et al. 2022,
               2206.05941)

`own` adds a vector that is learned for each item, zero at first: it stays zero for an item without
training events. `trained` lets the vectors themselves learn, from where the encoder put them (as
LLM2BERT4Rec, Harte et al. 2023, 2309.11379); that of an item without training events stays there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["TextItems", "WhiteningExperts", "match"]

_STD = 0.02


class WhiteningExperts(nn.Module):
    """A mixture of whitenings. Shape: (items, text width) to (items, width)."""

    def __init__(self, text_width: int, width: int, experts: int) -> None:
        super().__init__()
        self.means = nn.Parameter(torch.zeros(experts, text_width))
        self.maps = nn.Parameter(torch.empty(experts, text_width, width).normal_(std=_STD))
        self.gate = nn.Parameter(torch.zeros(text_width, experts))

    def forward(self, texts: Tensor) -> Tensor:
        """Sum up the experts by their gates; in training, noise lets all of them learn."""
        logits = texts @ self.gate
        if self.training:
            logits = logits + torch.randn_like(logits) / logits.shape[1]
        # (x − b)W = xW − bW: the product with the texts is one for all experts.
        mapped = torch.einsum("nt,etw->new", texts, self.maps)
        shifted = mapped - torch.einsum("et,etw->ew", self.means, self.maps)
        return torch.einsum("ne,new->nw", logits.softmax(1), shifted)


class TextItems(nn.Module):
    """Rows of items, in the place of an embedding: padding, the items, a mask.

    Args:
        vectors: The vector of each item's text. Shape: (items, text width).
        width: The network's width.
        own: Add a learned vector to each.
        trained: Train the vectors.
        experts: Whitening experts; 0 for one matrix.
        temperature: What scores are divided by, if they are cosines; `None` for inner products.
    """

    def __init__(
        self,
        vectors: Tensor,
        width: int,
        *,
        own: bool = False,
        trained: bool = False,
        experts: int = 0,
        temperature: float | None = None,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.vectors: Tensor
        if trained:
            self.vectors = nn.Parameter(vectors.clone())
        else:
            self.register_buffer("vectors", vectors)
        text_width = vectors.shape[1]
        self.adaptor: nn.Module
        if experts:
            self.adaptor = WhiteningExperts(text_width, width, experts)
        else:
            self.adaptor = nn.Linear(text_width, width, bias=False)
            nn.init.normal_(self.adaptor.weight, std=_STD)
        self.mask = nn.Parameter(torch.zeros(1, width).normal_(std=_STD))
        self.own = nn.Parameter(torch.zeros(len(vectors), width)) if own else None

    @property
    def weight(self) -> Tensor:
        """All rows. Shape: (items + 2, width)."""
        rows = self.adaptor(self.vectors)
        if self.own is not None:
            rows = rows + self.own
        return torch.cat([torch.zeros_like(self.mask), rows, self.mask])

    def forward(self, ids: Tensor) -> Tensor:
        """Look ids up. Shape: (…) to (…, width)."""
        return F.embedding(ids, self.weight)


def match(items: nn.Module, states: Tensor) -> tuple[Tensor, Tensor]:
    """Return states and rows whose inner products are scores.

    Shape: states (…, width), rows (items + 2, width).

    Args:
        items: The network's item embedding.
        states: What the network made of histories.
    """
    rows = items.weight
    assert isinstance(rows, Tensor)
    if isinstance(items, TextItems) and items.temperature is not None:
        return F.normalize(states, dim=-1) / items.temperature, F.normalize(rows, dim=-1)
    return states, rows
