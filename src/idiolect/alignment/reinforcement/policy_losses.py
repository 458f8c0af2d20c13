"""Policy and value losses, one value for each token or completion."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["clipped_policy_loss", "clipped_value_loss", "divergence_estimate"]


def clipped_policy_loss(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Return PPO's −min(ρ·A, clip(ρ, 1 ± ε)·A) (Schulman et al. 2017, 1707.06347).

    Args:
        ratio: ρ, the probability under the policy divided by that at the rollout.
        advantages: A.
        clip: ε.
    """
    return -torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def clipped_value_loss(values: Tensor, before: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Return PPO's clipped value loss: half the larger of the two squared errors.

    Args:
        values: The current values.
        before: The values at the rollout.
        returns: The targets of the values.
        clip: Maximum change of a value since the rollout.
    """
    bounded = before + (values - before).clamp(-clip, clip)
    return 0.5 * torch.max((values - returns).square(), (bounded - returns).square())


def divergence_estimate(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Return exp(d) − d − 1, d = log π_ref − log π: a non-negative unbiased KL estimate ("k3").

    Schulman 2020, "Approximating KL divergence". The plain log-ratio has the same mean, but single
    samples may be negative.
    """
    difference = reference - log_probs
    return torch.exp(difference) - difference - 1
