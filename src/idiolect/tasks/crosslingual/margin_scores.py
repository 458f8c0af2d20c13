"""Scores of translation candidates: cosine, or its margin over that of nearest neighbours.

Some sentences are near to everything (hubness). The margin compares a pair's cosine with the mean
cosine of both sentences to their k nearest neighbours in the other language (Artetxe & Schwenk
2019, 1811.01136):

    ratio      cos(x, y) / ((mean cos(x, neighbours) + mean cos(y, neighbours)) / 2)
    distance   cos(x, y) − ((mean cos(x, neighbours) + mean cos(y, neighbours)) / 2)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from idiolect.errors import ConfigError, InputError

__all__ = ["BitextErrors", "MarginKind", "MinedPair", "mine_pairs", "retrieval_errors"]

MarginKind = Literal["cosine", "ratio", "distance"]
"""How pairs are scored; `cosine` for no margin."""

_BLOCK = 1024
"""Sentences of one side that are scored at a time against all of the other side."""


@dataclass(frozen=True)
class BitextErrors:
    """How often the nearest sentence of the other side is not the translation."""

    forward: float
    """From source to target."""
    backward: float
    """From target to source."""

    @property
    def mean(self) -> float:
        """Mean of both directions."""
        return (self.forward + self.backward) / 2


@dataclass(frozen=True)
class MinedPair:
    """Two sentences that may be translations."""

    score: float
    """Its margin, or cosine."""
    source: int
    """Number of the source sentence."""
    target: int
    """Number of the target sentence."""


def retrieval_errors(
    source: NDArray[np.float32],
    target: NDArray[np.float32],
    *,
    margin: MarginKind = "ratio",
    k: int = 4,
) -> BitextErrors:
    """Return the error rates of retrieval between aligned sentences.

    Args:
        source: Vectors. (sentences, dimensions).
        target: Vectors of their translations, in the same order.
        margin: How pairs are scored.
        k: Neighbours of the margin.

    Raises:
        InputError: The sides are not aligned, or empty.
        ConfigError: An unknown margin, or a `k` below 1.
    """
    if len(source) != len(target):
        raise InputError(
            f"{len(source)} source and {len(target)} target sentences",
            hint="aligned files have as many lines",
        )
    forward, backward = _best(source, target, margin, k)
    order = torch.arange(len(source))
    return BitextErrors(
        float((forward[1] != order).float().mean()), float((backward[1] != order).float().mean())
    )


def mine_pairs(
    source: NDArray[np.float32],
    target: NDArray[np.float32],
    *,
    margin: MarginKind = "ratio",
    k: int = 4,
    threshold: float | None = None,
) -> list[MinedPair]:
    """Return likely translations, best first; no sentence is in two pairs.

    The candidates are the best partner of each sentence of both sides (`max` in the paper).

    Args:
        source: Vectors. (sentences, dimensions).
        target: Vectors of other sentences, in any order.
        margin: How pairs are scored.
        k: Neighbours of the margin.
        threshold: Minimum score of a pair.

    Raises:
        InputError: A side is empty.
        ConfigError: An unknown margin, or a `k` below 1.
    """
    (forward_scores, forward), (backward_scores, backward) = _best(source, target, margin, k)
    candidates = [
        *zip(forward_scores.tolist(), range(len(source)), forward.tolist(), strict=True),
        *zip(backward_scores.tolist(), backward.tolist(), range(len(target)), strict=True),
    ]
    used_sources: set[int] = set()
    used_targets: set[int] = set()
    found = []
    for score, one, other in sorted(candidates, key=lambda c: (-c[0], c[1], c[2])):
        if threshold is not None and score < threshold:
            break
        if one not in used_sources and other not in used_targets:
            used_sources.add(one)
            used_targets.add(other)
            found.append(MinedPair(score, one, other))
    return found


_Best = tuple[Tensor, Tensor]
"""The score and the index of each sentence's best partner."""


def _best(
    source: NDArray[np.float32], target: NDArray[np.float32], margin: MarginKind, k: int
) -> tuple[_Best, _Best]:
    """Return the best partners of both sides."""
    if margin not in get_args(MarginKind):
        raise ConfigError(
            f"unknown margin {margin!r}", hint="one of " + ", ".join(get_args(MarginKind))
        )
    if k < 1:
        raise ConfigError(f"k is {k}", hint="at least 1 neighbour")
    if not len(source) or not len(target):
        raise InputError("there are no sentences on one side", hint="check the files")
    x, y = (
        F.normalize(torch.from_numpy(np.asarray(side)).float(), dim=1) for side in (source, target)
    )
    x_mean, y_mean = (
        (torch.zeros(len(x)), torch.zeros(len(y)))
        if margin == "cosine"
        else (_neighbours(x, y, k), _neighbours(y, x, k))
    )
    return (
        _search(x, y, x_mean, y_mean, margin),
        _search(y, x, y_mean, x_mean, margin),
    )


def _neighbours(queries: Tensor, others: Tensor, k: int) -> Tensor:
    """Return the mean cosine of each query to its k nearest neighbours."""
    k = min(k, len(others))
    return torch.cat(
        [(part @ others.T).topk(k).values.mean(1) for part in torch.split(queries, _BLOCK)]
    )


def _search(
    queries: Tensor, others: Tensor, own_mean: Tensor, other_mean: Tensor, margin: MarginKind
) -> _Best:
    scores, numbers = [], []
    for part, mean in zip(torch.split(queries, _BLOCK), torch.split(own_mean, _BLOCK), strict=True):
        found = part @ others.T
        between = (mean[:, None] + other_mean[None]) / 2
        if margin == "ratio":
            found = found / between
        elif margin == "distance":
            found = found - between
        best = found.max(1)
        scores.append(best.values)
        numbers.append(best.indices)
    return torch.cat(scores), torch.cat(numbers)
