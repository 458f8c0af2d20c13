"""Attention score functions: how well a decoder state matches each source position.

    dot          q·k                          Luong et al. 2015 (1508.04025)
    scaled_dot   q·k / √width                 Vaswani et al. 2017 (1706.03762)
    general      qᵀ W k                       Luong et al. 2015
    additive     vᵀ tanh(W q + U k)           Bahdanau et al. 2015 (1409.0473)
    concat       vᵀ tanh(W [q; k])            Luong et al. 2015: the same function, W beside U
    cosine       β · cos(q, k), β learned     Graves et al. 2014 (1410.5401), content-based
    location     W q: one score per position  Luong et al. 2015

All are modules with two methods: `keys` computes the part that depends only on the source, once for
all steps, and `forward` scores queries against it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idiolect.errors import InputError
from idiolect.nn.basic import Linear

__all__ = [
    "AdditiveScore",
    "AttentionScore",
    "CosineScore",
    "DotScore",
    "GeneralScore",
    "LocationScore",
    "ScoreName",
    "make_score",
]

ScoreName = Literal["dot", "scaled_dot", "general", "additive", "concat", "cosine", "location"]
"""The score functions by name."""


class AttentionScore(nn.Module, ABC):
    """Scores how well each query matches each key."""

    def keys(self, memory: Tensor) -> Tensor:
        """Return the keys: the source's states, or a linear map of them.

        Shape: (batch, source, width), both.
        """
        return memory

    @abstractmethod
    def forward(self, query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        """Return the scores before the softmax.

        Shape: query (batch, steps, width), keys (batch, source, width), coverage and result (batch,
        steps, source).

        Args:
            query: States of the decoder.
            keys: The result of `keys`.
            coverage: The sum of earlier weights of each position; only for `AdditiveScore`.
        """


class DotScore(AttentionScore):
    """q·k, times a constant."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        """Return the products."""
        return query @ keys.mT * self.scale


class GeneralScore(AttentionScore):
    """qᵀ W k."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.key = Linear(width, width, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        """Return W k."""
        keys: Tensor = self.key(memory)
        return keys

    def forward(self, query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        """Return the products."""
        return query @ keys.mT


class AdditiveScore(AttentionScore):
    """vᵀ tanh(W q + U k), with coverage vᵀ tanh(W q + U k + w·coverage) (See et al. 2017)."""

    def __init__(self, width: int, *, coverage: bool = False) -> None:
        super().__init__()
        self.query = Linear(width, width, bias=False)
        self.key = Linear(width, width, bias=False)
        self.value = Linear(width, 1, bias=False)
        self.coverage = Linear(1, width, bias=False) if coverage else None

    def keys(self, memory: Tensor) -> Tensor:
        """Return U k."""
        keys: Tensor = self.key(memory)
        return keys

    def forward(self, query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        """Return the scores; all sums are held in memory, steps × source × width."""
        total = self.query(query)[:, :, None] + keys[:, None]
        if self.coverage is not None and coverage is not None:
            total = total + self.coverage(coverage[..., None])
        scores: Tensor = self.value(torch.tanh(total))[..., 0]
        return scores


class CosineScore(AttentionScore):
    """β · cos(q, k) with a learned sharpness β above zero."""

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.full((1,), 5.0))

    def keys(self, memory: Tensor) -> Tensor:
        """Return keys of length one."""
        return F.normalize(memory, dim=-1)

    def forward(self, query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        """Return the scaled cosines."""
        return F.softplus(self.sharpness) * (F.normalize(query, dim=-1) @ keys.mT)


class LocationScore(AttentionScore):
    """W q: the score of a position does not depend on the source's content."""

    def __init__(self, width: int, positions: int) -> None:
        super().__init__()
        self.place = Linear(width, positions, bias=False)

    def forward(self, query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        """Return the scores of the first positions.

        Raises:
            InputError: The source has more positions than there are rows.
        """
        positions: Tensor = self.place(query)
        if keys.shape[1] > positions.shape[-1]:
            raise InputError(
                f"a source has {keys.shape[1]} tokens, but attention by location has "
                f"{positions.shape[-1]} positions",
                hint="divide the text, or choose another score",
            )
        return positions[..., : keys.shape[1]]


def make_score(
    name: ScoreName, width: int, *, positions: int = 0, coverage: bool = False
) -> AttentionScore:
    """Build a score function.

    Args:
        name: Its name.
        width: Size of queries and keys.
        positions: The longest source, for `location`.
        coverage: Whether an additive score reads the coverage.
    """
    makers: dict[ScoreName, Callable[[], AttentionScore]] = {
        "dot": DotScore,
        "scaled_dot": lambda: DotScore(width**-0.5),
        "general": lambda: GeneralScore(width),
        "additive": lambda: AdditiveScore(width, coverage=coverage),
        "concat": lambda: AdditiveScore(width, coverage=coverage),
        "cosine": CosineScore,
        "location": lambda: LocationScore(width, positions),
    }
    return makers[name]()
