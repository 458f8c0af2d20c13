"""Preference losses on the log-probabilities of completions, one value for each example.

DPO     −log σ(β·Δ), Δ the difference of the log-ratios to the reference model, each a sum over the
completion (Rafailov et al. 2023, 2305.18290)
IPO     (Δ − 1/(2β))², with log-ratios averaged over tokens, as its authors ran it (Azar et al.
2023, 2310.12036)
KTO     1 − σ(β(r − z)) of a desirable completion and 1 − σ(β(z − r)) of an undesirable one, z the
KL divergence of the policy from the reference (Ethayarajh et al. 2024, 2402.01306)
ORPO    −β·log σ(log odds ratio), added to the NLL of the chosen text (Hong et al. 2024,
2403.07691)
SimPO   −log σ(β·Δ − γ) of averaged log-probabilities, without a reference (Meng et al. 2024,
2405.14734)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["dpo_loss", "ipo_loss", "kto_loss", "orpo_loss", "reward_loss", "simpo_loss"]


def dpo_loss(
    chosen_ratio: Tensor, rejected_ratio: Tensor, *, beta: float, label_smoothing: float = 0.0
) -> Tensor:
    """Return DPO's loss. Shape: all (pairs,).

    Args:
        chosen_ratio: log π/π_ref of the chosen completions, summed over their tokens.
        rejected_ratio: The same for the rejected completions.
        beta: Strength of the KL penalty; the larger, the closer the policy stays to the reference.
        label_smoothing: The assumed share of wrong labels (Mitchell 2023, "cDPO").
    """
    difference = beta * (chosen_ratio - rejected_ratio)
    loss = -F.logsigmoid(difference) * (1 - label_smoothing)
    return loss - F.logsigmoid(-difference) * label_smoothing if label_smoothing else loss


def ipo_loss(chosen_ratio: Tensor, rejected_ratio: Tensor, *, beta: float) -> Tensor:
    """Return IPO's loss; both ratios are averaged over tokens. Shape: all (pairs,)."""
    return (chosen_ratio - rejected_ratio - 1 / (2 * beta)).square()


def kto_loss(
    ratio: Tensor,
    good: Tensor,
    divergence: Tensor,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Return KTO's loss. Shape: ratio and good (completions,), divergence a scalar or the same.

    Args:
        ratio: log π/π_ref, summed over the completion.
        good: Whether each completion is good.
        divergence: The KL estimate: the mean log-ratio of mismatched completions (written for other
            prompts), at least 0, no gradient.
        beta: As in `dpo_loss`.
        desirable_weight: Weight of good completions.
        undesirable_weight: Weight of bad ones.
    """
    gain = beta * (ratio - divergence)
    weight = torch.where(good, desirable_weight, undesirable_weight)
    return weight * (1 - torch.sigmoid(torch.where(good, gain, -gain)))


def orpo_loss(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """Return ORPO's odds-ratio term; inputs are mean log-probabilities."""
    odds = (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))
    return -beta * F.logsigmoid(odds)


def simpo_loss(chosen: Tensor, rejected: Tensor, *, beta: float, gamma: float) -> Tensor:
    """Return SimPO's loss; inputs are mean log-probabilities. Shape: all (pairs,).

    Args:
        chosen: Mean log-probabilities of the chosen completions.
        rejected: Mean log-probabilities of the rejected completions.
        beta: Scale of the difference.
        gamma: The margin γ, subtracted after scaling. The authors' code takes γ/β.
    """
    return -F.logsigmoid(beta * (chosen - rejected) - gamma)


def reward_loss(
    chosen: Tensor, rejected: Tensor, margin: Tensor, *, centre_rewards: float = 0.0
) -> Tensor:
    """Return the Bradley-Terry loss of scores. Shape: all (pairs,).

    −log σ(chosen − rejected − margin) + c·(chosen + rejected)² (Touvron et al. 2023, 2307.09288;
    Eisenstein et al. 2023, 2312.09244).

    Args:
        chosen: Scores of the chosen completions.
        rejected: Scores of the rejected ones.
        margin: By how much the chosen one is better.
        centre_rewards: The weight c, which keeps scores around zero.
    """
    loss = -F.logsigmoid(chosen - rejected - margin)
    return loss + centre_rewards * (chosen + rejected).square() if centre_rewards else loss


def _log1mexp(x: Tensor) -> Tensor:
    """Return log(1 − exp(x)) for x < 0, exact for small and large x (Mächler 2012)."""
    x = x.clamp(max=-torch.finfo(x.dtype).tiny)
    small = x > -math.log(2)
    near = torch.log(-torch.expm1(torch.where(small, x, -1.0)))
    return torch.where(small, near, torch.log1p(-torch.exp(torch.where(small, -1.0, x))))
