"""Losses over a target and sampled negatives, as sums over targets.

Shape: positive (targets,), negative and equal (targets, samples). `equal` marks samples that equal
the target, which are not used as negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["bpr_max", "gbce", "sampled_softmax"]


def sampled_softmax(
    positive: Tensor, negative: Tensor, equal: Tensor, log_target: Tensor, log_sample: Tensor
) -> Tensor:
    """Return the cross-entropy over the target and the samples, with logQ correction.

    Subtracting the log sampling probability of each item makes it an estimate of the full softmax
    (Bengio & Senécal 2008).

    Args:
        positive: Scores of the targets.
        negative: Scores of the samples.
        equal: Which samples are the target.
        log_target: Log sampling probability of each target. (targets,).
        log_sample: Log sampling probability of each sample. (samples,).
    """
    corrected = (negative - log_sample).masked_fill(equal, float("-inf"))
    logits = torch.cat([(positive - log_target)[:, None], corrected], 1)
    return logits.logsumexp(1).sum() - logits[:, 0].sum()


def bpr_max(positive: Tensor, negative: Tensor, equal: Tensor, penalty: float = 1.0) -> Tensor:
    """Return −log Σ s·σ(r₊ − r₋) + λ Σ s·r₋², with s the softmax of the negatives.

    BPR-max of GRU4Rec (Hidasi & Karatzoglou 2018, 1706.03847). The softmax is over the negatives
    only.

    Args:
        positive: Scores r₊ of the targets.
        negative: Scores r₋ of the samples.
        equal: Which samples are the target.
        penalty: λ.
    """
    weights = negative.masked_fill(equal, float("-inf")).softmax(1).nan_to_num()
    ranked = (weights * torch.sigmoid(positive[:, None] - negative)).sum(1)
    return (penalty * (weights * negative.square()).sum(1) - torch.log(ranked + 1e-24)).sum()


def gbce(
    positive: Tensor, negative: Tensor, equal: Tensor, items: int, calibration: float = 0.75
) -> Tensor:
    """Return the generalised binary cross-entropy of gSASRec (Petrov & Macdonald 2023).

    The target's probability is raised to β = α(t(1 − 1/α) + 1/α), with α the sampled share of the
    other items, so that sampling does not make a model overconfident.

    Args:
        positive: Scores of the targets.
        negative: Scores of the samples.
        equal: Which samples are the target.
        items: Number of items.
        calibration: t, from 0 (plain binary cross-entropy) to 1.
    """
    alpha = min(1.0, negative.shape[1] / max(1, items - 1))
    beta = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
    own = beta * F.softplus(-positive.double())
    others = F.softplus(negative.double()).masked_fill(equal, 0.0).sum(1)
    return (own + others).sum().float()
