"""Attention of a recurrent decoder over its source: global or local, soft or hard."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idiolect.nn.basic import Linear
from idiolect.nn.seq2seq.attention_scores import make_score
from idiolect.nn.seq2seq.seq2seq_config import Seq2SeqConfig

__all__ = ["Alignment", "SourceAttention"]


@dataclass(frozen=True)
class Alignment:
    """The result of attention for some decoder steps."""

    context: Tensor
    """The weighted mean of the source's states. (batch, steps, width)."""
    weights: Tensor
    """(batch, steps, source)."""
    choice_log_probs: Tensor | None = None
    """Log-probability of each sampled position. (batch, steps)."""


class SourceAttention(nn.Module):
    """One attention head with a choice of score and range (Luong et al. 2015, 1508.04025)."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        assert config.attention != "none"
        width = config.hidden_size
        self.score = make_score(
            config.attention,
            width,
            positions=config.max_position_embeddings,
            coverage=config.coverage_loss > 0,
        )
        self.range, self.window, self.hard = (
            config.attention_range,
            config.attention_window,
            config.hard_attention,
        )
        self.centre = self.centre_value = None
        if self.range == "local-p":
            self.centre = Linear(width, width, bias=False)
            self.centre_value = Linear(width, 1, bias=False)

    def forward(
        self,
        query: Tensor,
        keys: Tensor,
        memory: Tensor,
        mask: Tensor,
        *,
        first_step: int = 0,
        coverage: Tensor | None = None,
    ) -> Alignment:
        """Attend to the source.

        Shape: query (batch, steps, width), keys and memory (batch, source, width), mask (batch,
        source) bool, coverage (batch, steps, source).

        Args:
            query: The decoder's states.
            keys: `score.keys(memory)`.
            memory: The encoder's states.
            mask: Mask of the positions with a token. Each text has at least one; padding is on the
                right.
            first_step: Number of the first step, for `local-m`.
            coverage: The sum of earlier attention weights.
        """
        scores = self.score(query, keys, coverage)
        visible, closeness = mask[:, None], None
        if self.range != "global":
            distance = self._distance(query, mask, first_step)
            visible = visible & (distance.abs() <= self.window)
            if self.range == "local-p":
                # A Gaussian whose standard deviation is half the window.
                closeness = torch.exp(-2 * (distance / self.window).square())
        weights = scores.masked_fill(~visible, float("-inf")).softmax(-1)
        if closeness is not None:
            weights = weights * closeness
        log_probs = None
        if self.hard:
            weights, log_probs = self._choose(weights)
        return Alignment(weights @ memory, weights, log_probs)

    def _distance(self, query: Tensor, mask: Tensor, first_step: int) -> Tensor:
        """Return each position's distance from the window's centre. (batch, steps, source)."""
        lengths = mask.sum(-1)
        if self.centre is not None and self.centre_value is not None:
            share = torch.sigmoid(self.centre_value(torch.tanh(self.centre(query)))[..., 0])
            centre = share * lengths[:, None]
        else:
            steps = torch.arange(first_step, first_step + query.shape[1], device=query.device)
            centre = torch.minimum(steps[None], lengths[:, None] - 1).to(query.dtype)
        return torch.arange(mask.shape[1], device=query.device) - centre[..., None]

    def _choose(self, weights: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return one-hot weights, and in training the log-probabilities of the sampled ones."""
        if not self.training:
            return F.one_hot(weights.argmax(-1), weights.shape[-1]).to(weights.dtype), None
        chosen = weights.detach().flatten(0, 1).multinomial(1).view(weights.shape[:2])
        log_probs = weights.gather(-1, chosen[..., None])[..., 0].log()
        return F.one_hot(chosen, weights.shape[-1]).to(weights.dtype), log_probs
