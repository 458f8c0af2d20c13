"""Sampling: temperature, and all rules that truncate the distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from idiolect.errors import ConfigError

__all__ = ["Mirostat", "Sampling"]

_OUT = float("-inf")
_COLDEST = 1e-30
"""Temperatures below it are the same: the most likely token is certain."""


@dataclass(frozen=True)
class Sampling:
    """Sampling settings. The rules are applied in the order of the fields.

    Raises:
        ConfigError: A value is out of range.
    """

    temperature: float = 1.0
    """Scores are divided by this number; values below 1 make likely tokens more likely."""
    top_k: int = 0
    """Sample from this many most likely tokens; 0 for all."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens whose probabilities sum to this (nucleus sampling,
    Holtzman et al. 2020, 1904.09751)."""
    min_p: float = 0.0
    """Sample from tokens with at least this fraction of the probability of the most likely one
    (Nguyen et al. 2024, 2407.01082)."""
    typical_p: float = 1.0
    """Sample from the tokens whose information is closest to the entropy, until their probabilities
    sum to this (locally typical sampling, Meister et al. 2023, 2202.00666)."""
    epsilon_cutoff: float = 0.0
    """Sample from tokens with at least this probability (Hewitt et al. 2022, 2210.15191)."""
    eta_cutoff: float = 0.0
    """Like `epsilon_cutoff`, but lower if the entropy H is high: min(eta, √eta · e^-H)."""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ConfigError(
                f"a temperature of {self.temperature}", hint="it is positive; usual is 0.7 to 1"
            )
        if self.top_k < 0:
            raise ConfigError(f"top_k is {self.top_k}", hint="0 stands for all tokens")
        for name in ("top_p", "typical_p"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}", hint="it is above 0 and at most 1"
                )
        for name in ("min_p", "epsilon_cutoff", "eta_cutoff"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}", hint="it is at least 0 and below 1"
                )

    def filter(self, scores: Tensor) -> Tensor:
        """Divide logits by the temperature, and set those of excluded tokens to -inf.

        The most likely token of a row is always kept. Shape: scores and result (rows, vocabulary).
        """
        scores = scores.float()
        if self.temperature != 1:
            # Quotients beyond float32 would not be finite, and no token could be drawn.
            scores = scores / max(self.temperature, _COLDEST)
        if 0 < self.top_k < scores.shape[-1]:
            scores = scores.masked_fill(scores < scores.topk(self.top_k)[0][:, -1:], _OUT)
        if self.top_p < 1:
            scores = _keep_nucleus(scores, self.top_p)
        if self.min_p:
            shares = scores.softmax(-1)
            scores = scores.masked_fill(shares < self.min_p * shares.amax(-1, keepdim=True), _OUT)
        if self.typical_p < 1:
            scores = _keep_typical(scores, self.typical_p)
        if self.epsilon_cutoff:
            scores = _keep_likely(scores, scores.new_tensor(self.epsilon_cutoff))
        if self.eta_cutoff:
            limit = self.eta_cutoff**0.5 * torch.exp(-_entropy(scores))
            scores = _keep_likely(scores, limit.clamp(max=self.eta_cutoff)[:, None])
        return scores

    def draw(self, scores: Tensor, uniform: Tensor) -> Tensor:
        """Sample one token for each row.

        Shape: scores (rows, vocabulary), uniform (rows,), result (rows,).

        Args:
            scores: The logits.
            uniform: A random number from 0 to 1 for each row.
        """
        kept = self.filter(scores)
        if not 0 < self.top_k < scores.shape[-1]:
            return _place(kept.softmax(-1), uniform)
        kept, tokens = kept.topk(self.top_k)
        return tokens.gather(1, _place(kept.softmax(-1), uniform)[:, None])[:, 0]


class Mirostat:
    """Keep the surprise of sampled tokens near a target (mirostat 2, Basu et al. 2021, 2007.14966).

    Tokens with a surprise of more than μ bits are excluded. μ starts at 2τ and changes by -η times
    the error.

    Args:
        tau: The target τ, in bits per token.
        eta: The learning rate η.
    """

    def __init__(self, tau: float, eta: float) -> None:
        self.tau, self.eta, self._limit = tau, eta, 2 * tau

    def draw(self, scores: Tensor, uniform: float) -> int:
        """Sample one token, and update μ. Shape: scores (vocabulary,)."""
        shares, tokens = scores.float().softmax(-1).sort(descending=True)
        kept = int((-shares.log2() <= self._limit).sum().clamp(min=1))
        shares = shares[:kept] / shares[:kept].sum()
        place = int(_place(shares[None], torch.tensor([uniform], device=shares.device)))
        self._limit -= self.eta * (-math.log2(float(shares[place])) - self.tau)
        return int(tokens[place])


def _place(shares: Tensor, uniform: Tensor) -> Tensor:
    """Return the index where each row's cumulative sum exceeds `uniform`. (rows, n) to (rows,)."""
    reached = shares.cumsum(-1, dtype=torch.float64)
    total = reached[:, -1:]
    place = (reached <= uniform[:, None] * total).sum(-1)
    # A number that is rounded to 1 selects the last token whose share is not zero.
    return torch.minimum(place, (reached < total).sum(-1))


def _keep_nucleus(scores: Tensor, top_p: float) -> Tensor:
    ascending, order = scores.sort(dim=-1)
    cut = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
    cut[:, -1] = False
    return scores.masked_fill(torch.zeros_like(cut).scatter(1, order, cut), _OUT)


def _keep_typical(scores: Tensor, mass: float) -> Tensor:
    logs = scores.log_softmax(-1)
    distance = (-logs - _entropy(scores)[:, None]).abs()
    order = distance.argsort()
    reached = logs.gather(1, order).exp().cumsum(-1)
    cut = reached.roll(1, -1) >= mass
    cut[:, 0] = False
    return scores.masked_fill(torch.zeros_like(cut).scatter(1, order, cut), _OUT)


def _keep_likely(scores: Tensor, limit: Tensor) -> Tensor:
    cut = scores.softmax(-1) < limit
    cut = cut & (scores < scores.amax(-1, keepdim=True))
    return scores.masked_fill(cut, _OUT)


def _entropy(scores: Tensor) -> Tensor:
    logs = scores.log_softmax(-1)
    return -(logs * logs.exp()).nansum(-1)
