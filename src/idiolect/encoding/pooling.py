"""How the hidden states of a text become one vector.

mean       the average over the tokens (Reimers & Gurevych 2019, 1908.10084)
first      the first token's: BERT's [CLS]
last       the last token's, the only one of a causal model that has seen the whole text
weighted   the average weighted by position 1, 2, 3, … (SGPT, Muennighoff 2022, 2202.08904)
echo       the text is read twice and the second reading averaged, so that every token averaged
           has seen the whole text though the model is causal (Springer et al. 2024, 2402.15449)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from idiolect.errors import ConfigError

__all__ = ["Pooling", "check_pooling", "pool"]

Pooling = Literal["mean", "first", "last", "weighted", "echo"]
"""The kinds there are."""


def check_pooling(name: str) -> None:
    """Refuse an unknown kind.

    Raises:
        ConfigError: It is none of `Pooling`.
    """
    if name not in get_args(Pooling):
        raise ConfigError(
            f"unknown pooling {name!r}", hint="one of " + ", ".join(get_args(Pooling))
        )


def pool(kind: Pooling, hidden: Tensor, mask: Tensor) -> Tensor:
    """Make one vector of the hidden states of each text; zeros where the mask shows nothing.

    Shape: hidden (batch, length, width), mask (batch, length), result (batch, width).

    Args:
        kind: How; `echo` is a mean, over the second reading if the mask shows that alone.
        hidden: Hidden states.
        mask: True for the tokens that count. They must stand in one run.
    """
    return _KINDS[kind](hidden, mask)


def _average(hidden: Tensor, weights: Tensor) -> Tensor:
    total = weights.sum(1, keepdim=True).clamp(min=1)
    # One small product a text instead of a weighted copy of all hidden states.
    return torch.bmm((weights / total).unsqueeze(1), hidden).squeeze(1)


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    return _average(hidden, mask.to(hidden.dtype))


def _weighted(hidden: Tensor, mask: Tensor) -> Tensor:
    return _average(hidden, (mask.cumsum(1) * mask).to(hidden.dtype))


def _first(hidden: Tensor, mask: Tensor) -> Tensor:
    return _take(hidden, mask, mask.int().argmax(1))


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    return _take(hidden, mask, (mask.cumsum(1) * mask).argmax(1))


def _take(hidden: Tensor, mask: Tensor, place: Tensor) -> Tensor:
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows, place] * mask.any(1, keepdim=True)


_KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": _mean,
    "first": _first,
    "last": _last,
    "weighted": _weighted,
    "echo": _mean,
}
