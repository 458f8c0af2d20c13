"""The head of TwinBERT: weighted pooling and a crossing layer (Lu, Jiao & Zhang 2020, 2002.06275).

Pooling weights start equal, so pooling starts as the mean.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Crossing", "TowerHead"]

Crossing = Literal["cosine", "residual"]
"""How to score two vectors: by a scaled and shifted cosine, or by a residual layer and a logistic
regression over their element-wise maximum."""

_SCALE = 20.0
"""Initial scale of the cosine: 1/0.05, as in contrastive training."""


class TowerHead(nn.Module):
    """Weighted pooling for both towers, and the crossing layer."""

    def __init__(self, width: int, crossing: Crossing) -> None:
        super().__init__()
        self.kind: Crossing = crossing
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.weigh = nn.ModuleDict({kind: nn.Linear(width, 1) for kind in _KINDS})
            self.cross: nn.Module = _CROSSINGS[crossing](width)
        for parameter in self.weigh.parameters():
            nn.init.zeros_(parameter)

    def pool(self, hidden: Tensor, mask: Tensor, kind: str) -> Tensor:
        """Average hidden states with learned weights. The result is zero for fully masked texts.

        Shape: (texts, length, width) and (texts, length) to (texts, width).
        """
        # Towers may be in bfloat16; the head stays in float32.
        hidden = hidden.to(next(self.weigh.parameters()).dtype)
        weights = self.weigh[kind](hidden).squeeze(-1)
        weights = weights.masked_fill(~mask, torch.finfo(weights.dtype).min)
        shares = weights.softmax(1) * mask
        vectors = torch.bmm(shares.unsqueeze(1), hidden).squeeze(1)
        return F.normalize(vectors, dim=-1) if self.kind == "cosine" else vectors

    def forward(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Score pairs of vectors. Shape: two of (pairs, width) to (pairs,); logits."""
        scores: Tensor = self.cross(queries, documents)
        return scores


class _Cosine(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(_SCALE).log())
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, queries: Tensor, documents: Tensor) -> Tensor:
        return (queries * documents).sum(-1) * self.scale.exp() + self.shift


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.output = nn.Linear(width, 1)

    def forward(self, queries: Tensor, documents: Tensor) -> Tensor:
        both = torch.maximum(queries, documents)
        scores: Tensor = self.output(both + F.relu(self.inner(both))).squeeze(-1)
        return scores


_KINDS = ("query", "document")
_CROSSINGS: dict[Crossing, type[_Cosine] | type[_Residual]] = {
    "cosine": _Cosine,
    "residual": _Residual,
}
