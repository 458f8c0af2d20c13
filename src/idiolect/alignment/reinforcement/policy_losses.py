"""Losses of policies and values, one value for each token or completion."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["clipped_policy_loss", "clipped_value_loss", "divergence_estimate"]


def clipped_policy_loss(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Return −min(ρ·A, clip(ρ, 1 ± ε)·A) (Schulman et al. 2017, 1707.06347).

    Args:
        ratio: ρ, the probability by the policy over that by the policy that wrote the text.
        advantages: A.
        clip: ε.
    """
    return -torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def clipped_value_loss(values: Tensor, before: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Return half the larger of the squared errors with and without a bounded step.

    Args:
        values: The values now.
        before: The values at the rollout.
        returns: What they should predict.
        clip: How far a value may move.
    """
    bounded = before + (values - before).clamp(-clip, clip)
    return 0.5 * torch.max((values - returns).square(), (bounded - returns).square())


def divergence_estimate(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Return exp(d) − d − 1 with d = log π_ref − log π: never negative, without bias ("k3").

    Schulman 2020, "Approximating KL divergence". The plain log-ratio has the same mean, but single
    samples of it are negative.
    """
    difference = reference - log_probs
    return torch.exp(difference) - difference - 1
