"""`TextItems`: an item embedding that is computed from text embeddings.

The text embeddings are those of an encoder; an adaptor maps them to the network's width. So items
without interactions (cold-start items) can be recommended, too. There are two adaptors:

    linear     one matrix
    experts    a mixture of parametric whitenings Σ gₖ(x)·(x − bₖ)Wₖ (UniSRec, Hou et al. 2022,
               2206.05941)

`own` adds a learned vector to each item. It is initialized to zero, and stays zero for items
without training events. `trained` fine-tunes the text embeddings themselves (as LLM2BERT4Rec, Harte
et al. 2023, 2309.11379); those of items without training events do not change.
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
        """Return the gated sum of the experts; noise on the gates in training lets all learn."""
        logits = texts @ self.gate
        if self.training:
            logits = logits + torch.randn_like(logits) / logits.shape[1]
        # (x − b)W = xW − bW: compute the product with the texts for all experts at once.
        mapped = torch.einsum("nt,etw->new", texts, self.maps)
        shifted = mapped - torch.einsum("et,etw->ew", self.means, self.maps)
        return torch.einsum("ne,new->nw", logits.softmax(1), shifted)


class TextItems(nn.Module):
    """A replacement for the item embedding, with rows for padding, the items, and a mask.

    Args:
        vectors: The text embedding of each item. Shape: (items, text width).
        width: The network's width.
        own: Add a learned vector to each item.
        trained: Train the text embeddings.
        experts: Number of whitening experts; 0 for one matrix.
        temperature: Score by cosine divided by this; `None` scores by inner product.
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
        states: The network's hidden states of histories.
    """
    rows = items.weight
    assert isinstance(rows, Tensor)
    if isinstance(items, TextItems) and items.temperature is not None:
        return F.normalize(states, dim=-1) / items.temperature, F.normalize(rows, dim=-1)
    return states, rows
