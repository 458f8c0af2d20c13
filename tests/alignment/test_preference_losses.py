"""Losses and their gradients against the formulas of the papers, written out slowly."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from idiolect.alignment.preference.preference_losses import (
    dpo_loss,
    ipo_loss,
    kto_loss,
    orpo_loss,
    reward_loss,
    simpo_loss,
)

BETA, GAMMA = 0.3, 0.7


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def odds(log_p: float) -> float:
    return math.exp(log_p) / (1 - math.exp(log_p))


CASES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[float, float], float]]] = {
    "dpo": (
        lambda a, b: dpo_loss(a, b, beta=BETA),
        lambda a, b: -math.log(sigmoid(BETA * (a - b))),
    ),
    "cdpo": (
        lambda a, b: dpo_loss(a, b, beta=BETA, label_smoothing=0.1),
        lambda a, b: (
            -0.9 * math.log(sigmoid(BETA * (a - b))) - 0.1 * math.log(sigmoid(BETA * (b - a)))
        ),
    ),
    "ipo": (
        lambda a, b: ipo_loss(a, b, beta=BETA),
        lambda a, b: (a - b - 1 / (2 * BETA)) ** 2,
    ),
    "kto-good": (
        lambda a, b: kto_loss(a, torch.ones(len(a), dtype=torch.bool), b.detach(), beta=BETA),
        lambda a, b: 1 - sigmoid(BETA * (a - b)),
    ),
    "kto-bad": (
        lambda a, b: kto_loss(
            a, torch.zeros(len(a), dtype=torch.bool), b.detach(), beta=BETA, undesirable_weight=2.0
        ),
        lambda a, b: 2 * (1 - sigmoid(BETA * (b - a))),
    ),
    "orpo": (
        lambda a, b: orpo_loss(a, b, beta=BETA),
        lambda a, b: -BETA * math.log(sigmoid(math.log(odds(a) / odds(b)))),
    ),
    "simpo": (
        lambda a, b: simpo_loss(a, b, beta=BETA, gamma=GAMMA),
        lambda a, b: -math.log(sigmoid(BETA * (a - b) - GAMMA)),
    ),
    "reward": (
        lambda a, b: reward_loss(a, b, torch.full_like(a, 0.5), centre_rewards=0.1),
        lambda a, b: -math.log(sigmoid(a - b - 0.5)) + 0.1 * (a + b) ** 2,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient(name: str) -> None:
    loss, formula = CASES[name]
    a = torch.tensor([-0.2, -1.5, -3.0], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([-0.9, -0.4, -2.5], dtype=torch.float64, requires_grad=True)
    found = loss(a, b)
    found.sum().backward()  # type: ignore[no-untyped-call]
    step = 1e-6
    for i, (x, y) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        assert found[i].item() == pytest.approx(formula(x, y), abs=1e-10)
        assert a.grad is not None
        slope = (formula(x + step, y) - formula(x - step, y)) / (2 * step)
        assert a.grad[i].item() == pytest.approx(slope, abs=1e-6)


def test_orpo_is_exact_near_certainty() -> None:
    sure = torch.tensor([-1e-5], requires_grad=True)
    loss = orpo_loss(sure, torch.tensor([-2.0]), beta=1.0)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(math.log1p(odds(-2.0) / odds(-1e-5)), rel=1e-4)
    assert sure.grad is not None
    assert bool(sure.grad.isfinite().all())
