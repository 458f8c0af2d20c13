"""Advantages from rewards: how much better each token, or completion, is than expected.

Token-wise tensors are (completions, length), with a mask of the completions' tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "adapted_beta",
    "generalised_advantages",
    "group_advantages",
    "leave_one_out",
    "token_rewards",
    "whitened",
]

_LARGEST_ERROR = 0.2


def whitened(values: Tensor, mask: Tensor, *, keep_mean: bool = False) -> Tensor:
    """Return values with standard deviation 1, and mean 0 unless it is kept; 0 outside the mask.

    The variance is the biased one, as in the reference implementation of Ziegler et al.
    2019 (1909.08593).
    """
    chosen = values[mask]
    mean, variance = chosen.mean(), chosen.var(unbiased=False)
    result = (values - mean) * torch.rsqrt(variance + 1e-8)
    return (result + mean if keep_mean else result) * mask


def token_rewards(scores: Tensor, divergence: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Return −β·(log π − log π_ref) per token, plus the score at the last. Shape of the mask.

    Args:
        scores: Reward of each completion. (completions,).
        divergence: log π − log π_ref of each token.
        mask: The completions' tokens.
        beta: Weight of the KL penalty.
    """
    rewards = -beta * divergence * mask
    places = torch.arange(mask.shape[1], device=mask.device) * mask
    return rewards.scatter_add(1, places.argmax(1, keepdim=True), scores[:, None].to(rewards))


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Return advantages (GAE, 1506.02438), and the returns that the value function should predict.

    δ_t = r_t + γ·V_{t+1} − V_t and A_t = δ_t + γλ·A_{t+1}; after the last token V is 0.

    Args:
        rewards: Reward of each token.
        values: The value before each token.
        mask: The completions' tokens, which are contiguous.
        gamma: Discount.
        gae_lambda: Decay λ.
    """
    values, rewards = values * mask, rewards * mask
    running = values.new_zeros(len(values))
    following = torch.zeros_like(running)
    found = []
    for place in range(mask.shape[1] - 1, -1, -1):
        own = mask[:, place]
        delta = rewards[:, place] + gamma * following - values[:, place]
        running = torch.where(own, delta + gamma * gae_lambda * running, 0.0)
        following = values[:, place]
        found.append(running)
    advantages = torch.stack(found[::-1], 1)
    return advantages, (advantages + values) * mask


def leave_one_out(rewards: Tensor, group: int) -> Tensor:
    """Subtract from each reward the mean of its group's other rewards. Shape: (completions,).

    RLOO (Kool et al. 2019; Ahmadian et al. 2024, 2402.14740). Completions of a prompt are adjacent.
    """
    grouped = rewards.view(-1, group)
    others = (grouped.sum(1, keepdim=True) - grouped) / (group - 1)
    return (grouped - others).flatten()


def group_advantages(rewards: Tensor, group: int, *, scaled: bool = True) -> Tensor:
    """Subtract each group's mean, and divide by its standard deviation + 1e-4. (completions,).

    GRPO (Shao et al. 2024, 2402.03300); Dr. GRPO does not divide. A group with equal rewards has
    zero advantages and contributes nothing.
    """
    grouped = rewards.view(-1, group)
    centred = grouped - grouped.mean(1, keepdim=True)
    return (centred / (grouped.std(1, keepdim=True) + 1e-4) if scaled else centred).flatten()


def adapted_beta(
    beta: float, divergence: float, *, target: float, completions: int, horizon: float
) -> float:
    """Return the KL weight adapted after some completions (Ziegler et al. 2019).

    β·(1 + e·n/horizon), with e = divergence/target − 1 clipped to ±0.2.
    """
    error = max(-_LARGEST_ERROR, min(_LARGEST_ERROR, divergence / target - 1))
    return beta * (1 + error * completions / horizon)
