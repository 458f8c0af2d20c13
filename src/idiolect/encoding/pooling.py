"""How the hidden states of a text become one vector.

mean       the average over the tokens (Reimers & Gurevych 2019, 1908.10084)
first      the first token's: BERT's [CLS]
last       the last token's, the only one in a causal model that attends to the whole text
weighted   the average weighted by position 1, 2, 3, … (SGPT, Muennighoff 2022, 2202.08904)
echo       the text is repeated and its second copy averaged, so that in a causal model each
           averaged token attends to the whole text (Springer et al. 2024, 2402.15449)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from idiolect.errors import ConfigError

__all__ = ["Pooling", "check_pooling", "pool"]

Pooling = Literal["mean", "first", "last", "weighted", "echo"]
"""The supported kinds."""


def check_pooling(name: str) -> None:
    """Check a kind of pooling.

    Raises:
        ConfigError: It is unknown.
    """
    if name not in get_args(Pooling):
        raise ConfigError(
            f"unknown pooling {name!r}", hint="one of " + ", ".join(get_args(Pooling))
        )


def pool(kind: Pooling, hidden: Tensor, mask: Tensor) -> Tensor:
    """Pool the hidden states of each text; the result is zero for an empty mask.

    Shape: hidden (batch, length, width), mask (batch, length), result (batch, width).

    Args:
        kind: Kind of pooling. `echo` is a mean; its mask selects the second copy of the text.
        hidden: Hidden states.
        mask: True for the tokens to pool, which must be contiguous.
    """
    return _KINDS[kind](hidden, mask)


def _average(hidden: Tensor, weights: Tensor) -> Tensor:
    total = weights.sum(1, keepdim=True).clamp(min=1)
    # A small product per text instead of a weighted copy of all hidden states.
    return torch.bmm((weights / total).unsqueeze(1), hidden).squeeze(1)


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    return _average(hidden, mask.to(hidden.dtype))


def _weighted(hidden: Tensor, mask: Tensor) -> Tensor:
    return _average(hidden, (mask.cumsum(1) * mask).to(hidden.dtype))


def _first(hidden: Tensor, mask: Tensor) -> Tensor:
    return _take(hidden, mask, mask.int().argmax(1))


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    return _take(hidden, mask, (mask.cumsum(1) * mask).argmax(1))


def _take(hidden: Tensor, mask: Tensor, position: Tensor) -> Tensor:
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows, position] * mask.any(1, keepdim=True)


_KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": _mean,
    "first": _first,
    "last": _last,
    "weighted": _weighted,
    "echo": _mean,
}
