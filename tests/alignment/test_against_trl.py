"""Losses and gradients of trl 1.16, on fixed log-probabilities, to 1e-6.

trl's own loss methods run with a model that returns the log-probabilities they are given.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from idiolect.alignment.preference.completion_batch import (
    CompletionBatch,
    EncodedCompletion,
    TextScores,
)
from idiolect.alignment.preference.preference_losses import reward_loss
from idiolect.alignment.preference.preference_objective import (
    PreferenceObjective,
    PreferenceSettings,
)
from idiolect.alignment.reinforcement.advantages import group_advantages, leave_one_out
from idiolect.alignment.reinforcement.policy_losses import clipped_policy_loss, divergence_estimate
from training import models

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
trl = pytest.importorskip("trl")

ROWS, LENGTH, PROMPT = 4, 9, 3
COMPLETION = torch.zeros(2 * ROWS, LENGTH, dtype=torch.long)
for _row, _end in enumerate((9, 5, 7, 4, 6, 9, 8, 5)):
    COMPLETION[_row, PROMPT:_end] = 1
MASK = COMPLETION[:, 1:].bool()


def log_probs(seed: int) -> Tensor:
    """Log-probability of each token after the first; zero outside completions."""
    drawn = torch.rand(2 * ROWS, LENGTH - 1, generator=torch.Generator().manual_seed(seed)).double()
    return (-3 * drawn - 0.05) * MASK


class Accelerator:
    device = torch.device("cpu")
    num_processes = 1
    sync_gradients = True

    def gather(self, value: Any) -> Any:
        return value

    gather_for_metrics = gather

    def reduce(self, value: Any, reduction: str = "sum") -> Any:
        return value


def trainer(**fields: Any) -> Any:
    """What trl's methods read of `self`."""
    usual: dict[str, Any] = {
        "model": SimpleNamespace(training=True),
        "accelerator": Accelerator(),
        "_metrics": {"train": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
        "aux_loss_enabled": False,
        "beta": 0.3,
        "precompute_ref_logps": True,
        "f_divergence_type": "reverse_kl",
        "ld_alpha": None,
        "label_smoothing": 0.0,
        "loss_weights": [1.0],
        "use_weighting": False,
    }
    return SimpleNamespace(**usual | fields)


def network(logs: Tensor) -> Any:
    zeros = torch.zeros_like(logs)
    found = SimpleNamespace(log_probs=logs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())
    return lambda **_: found


def ours(settings: PreferenceSettings, logs: Tensor, reference: Tensor, **fields: Any) -> Tensor:
    """The mean loss of the objective, on given log-probabilities. trl's rows: chosen, rejected."""
    sums, lengths = logs.sum(1).view(2, -1).t(), MASK.sum(1).view(2, -1).t()
    if settings.loss == "kto":
        sums, lengths = logs.sum(1)[:, None], MASK.sum(1)[:, None]
        reference = reference.sum(1)[:, None]
    else:
        reference = reference.sum(1).view(2, -1).t()
    text = EncodedCompletion([4], [5, 6])
    batch = CompletionBatch.of([[text] * sums.shape[1]] * len(sums))
    batch = replace(batch, reference=reference, **fields)
    labelled = fields.get("labelled", torch.zeros_like(sums))
    scores = TextScores(sums, lengths, labelled, torch.zeros_like(sums))
    objective = PreferenceObjective(models.model(grown=False).network, [[text, text]], settings)
    return objective._losses(batch, scores)[0].mean()


def assert_same(own: Tensor, other: Tensor, logs: Tensor) -> None:
    (mine,) = torch.autograd.grad(own, logs, retain_graph=True)
    (theirs,) = torch.autograd.grad(other, logs)
    assert float(own.detach()) == pytest.approx(float(other.detach()), abs=1e-6)
    assert torch.allclose(mine, theirs, atol=1e-6)
    assert float(theirs.abs().max()) > 1e-4


@pytest.mark.parametrize(("ours_name", "theirs"), [("dpo", "sigmoid"), ("ipo", "ipo")])
def test_dpo_and_ipo(ours_name: Any, theirs: str) -> None:
    from trl import DPOTrainer

    logs, reference = log_probs(0).requires_grad_(), log_probs(1)
    chosen, rejected = reference.sum(1).chunk(2)
    inputs = {
        "input_ids": torch.ones(2 * ROWS, LENGTH, dtype=torch.long),
        "attention_mask": torch.ones(2 * ROWS, LENGTH, dtype=torch.long),
        "completion_mask": COMPLETION,
        "ref_chosen_logps": chosen,
        "ref_rejected_logps": rejected,
    }
    other = DPOTrainer._compute_loss(
        trainer(loss_types=[theirs]), network(logs), inputs, return_outputs=False
    )
    own = ours(PreferenceSettings(loss=ours_name, beta=0.3), logs, reference)
    assert_same(own, other, logs)


def test_kto() -> None:
    from trl import KTOTrainer

    logs, reference = log_probs(0).requires_grad_(), log_probs(1)
    mismatched, base = log_probs(2).sum(1) + 3, log_probs(3).sum(1)
    good = torch.tensor([True, False, True, True, False, False, True, False])
    inputs = {
        "input_ids": torch.ones(2 * ROWS, LENGTH, dtype=torch.long),
        "attention_mask": torch.ones(2 * ROWS, LENGTH, dtype=torch.long),
        "completion_mask": COMPLETION,
        "label": good,
        "ref_logps": reference.sum(1),
        "ref_KL_logps": base,
    }
    fake = trainer(
        calculate_KL=True, loss_type="kto", desirable_weight=1.5, undesirable_weight=0.5,
        _compute_kl_logps=lambda *_: mismatched,
    )  # fmt: skip
    other = KTOTrainer._compute_loss(fake, network(logs), inputs, return_outputs=False)
    divergence = (mismatched - base).mean().clamp(min=0)
    assert divergence > 0
    settings = PreferenceSettings(
        loss="kto", beta=0.3, desirable_weight=1.5, undesirable_weight=0.5
    )
    own = ours(settings, logs, reference, good=good, divergence=divergence.expand(2 * ROWS))
    assert_same(own, other, logs)


def test_orpo_and_simpo() -> None:
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    logs = log_probs(0).requires_grad_()
    zeros = torch.zeros_like(logs)
    chosen, rejected = (logs.sum(1) / MASK.sum(1)).chunk(2)
    fake = trainer(alpha=0.0, loss_type="simpo", simpo_gamma=0.5)
    other = CPOTrainer.cpo_loss(fake, chosen, rejected)[0].mean()
    chosen, rejected = (logs.sum(1) / MASK.sum(1)).chunk(2)
    settings = PreferenceSettings(loss="simpo", beta=0.3, gamma=0.5)
    assert_same(ours(settings, logs, zeros), other, logs)
    # trl computes ORPO in float32.
    other = -ORPOTrainer.odds_ratio_loss(trainer(), chosen, rejected)[0].mean()
    assert_same(ours(PreferenceSettings(loss="orpo", beta=0.3), logs, zeros), other, logs)


def test_reward_model() -> None:
    from trl import RewardTrainer

    scores = torch.randn(2 * ROWS, 1, generator=torch.Generator().manual_seed(0)).double()
    scores.requires_grad_()
    margin = torch.tensor([0.0, 0.5, 1.0, 2.0])
    fake = trainer(args=SimpleNamespace(center_rewards_coefficient=0.1))
    inputs = {"margin": margin, "attention_mask": torch.ones(2, 2)}
    other = RewardTrainer.compute_loss(
        fake, lambda **_: SimpleNamespace(logits=scores), dict(inputs)
    )
    own = reward_loss(*scores[:, 0].chunk(2), margin, centre_rewards=0.1).mean()
    assert_same(own, other, scores)


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo"])
def test_grpo(loss: str) -> None:
    from trl import GRPOTrainer

    logs, old, reference = log_probs(0).requires_grad_(), log_probs(4), log_probs(1)
    advantages = group_advantages(torch.tensor([1.0, 2, 0, 5, 1, 1, 3, 0]).double(), 4)
    args = SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1)
    fake = trainer(
        loss_type=loss, importance_sampling_level="token", top_entropy_quantile=1.0, args=args,
        off_policy_mask_threshold=None, epsilon_low=0.2, epsilon_high=0.2, use_vllm=False,
        max_completion_length=LENGTH, current_gradient_accumulation_steps=1, beta=0.04,
        steps_per_generation=1, _entropy_bonus_enabled=False, vllm_importance_sampling_correction=0,
        _get_per_token_logps_and_entropies=lambda *_, **__: (logs, torch.zeros_like(logs), None),
    )  # fmt: skip
    inputs = {
        "prompt_ids": torch.ones(2 * ROWS, 1), "prompt_mask": torch.ones(2 * ROWS, 1),
        "completion_ids": torch.ones(2 * ROWS, LENGTH - 1), "completion_mask": MASK.long(),
        "advantages": advantages, "old_per_token_logps": old, "ref_per_token_logps": reference,
        "num_items_in_batch": MASK.sum(),
    }  # fmt: skip
    other = GRPOTrainer._compute_loss(fake, None, inputs)
    token = clipped_policy_loss((logs - old).exp(), advantages[:, None], 0.2)
    token = (token + 0.04 * divergence_estimate(logs, reference)) * MASK
    counts = {
        "dapo": token.sum() / MASK.sum(),
        "grpo": (token.sum(1) / MASK.sum(1)).mean(),
        "dr_grpo": token.sum() / (2 * ROWS * LENGTH),
    }
    assert_same(counts[loss], other, logs)


def test_rloo() -> None:
    from trl import RLOOTrainer

    logs, old = log_probs(0).requires_grad_(), log_probs(0) + 0.02
    advantages = leave_one_out(torch.tensor([1.0, 2, 0, 5, 1, 1, 3, 0]).double(), 4)
    fake = trainer(
        epsilon_low=0.2, epsilon_high=0.2,
        _get_per_token_logps_and_entropies=lambda *_, **__: (logs, torch.zeros_like(logs), None),
    )  # fmt: skip
    inputs = {
        "prompt_ids": torch.ones(2 * ROWS, 1), "prompt_mask": torch.ones(2 * ROWS, 1),
        "completion_ids": torch.ones(2 * ROWS, LENGTH - 1), "completion_mask": MASK.long(),
        "advantages": advantages, "old_logps": (old * MASK).sum(1),
    }  # fmt: skip
    other = RLOOTrainer._compute_loss(fake, None, inputs)
    ratio = ((logs - old) * MASK).sum(1).exp()
    assert_same(clipped_policy_loss(ratio, advantages, 0.2).mean(), other, logs)
