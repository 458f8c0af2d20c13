"""Advantages and policy losses against slow transcriptions of their formulas."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from idiolect.alignment.reinforcement.advantages import (
    adapted_beta,
    generalised_advantages,
    group_advantages,
    leave_one_out,
    token_rewards,
    whitened,
)
from idiolect.alignment.reinforcement.policy_losses import (
    clipped_policy_loss,
    clipped_value_loss,
    divergence_estimate,
)
from idiolect.alignment.reinforcement.policy_objective import WrittenText
from idiolect.alignment.reinforcement.policy_settings import PolicySettings
from idiolect.alignment.reinforcement.train_policy import _sample_writer
from idiolect.errors import ConfigError
from idiolect.pipeline.report import alignment_page

RANDOM = np.random.default_rng(0)
MASK = np.array([[0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0]], bool)
SHAPE = MASK.shape


def grid() -> torch.Tensor:
    return torch.from_numpy(RANDOM.normal(size=SHAPE)) * torch.from_numpy(MASK)


def test_rewards_of_tokens_have_the_score_at_the_last_and_the_divergence_at_each() -> None:
    scores, divergence = torch.tensor([1.0, 2.0, 3.0]), grid()
    found = token_rewards(scores, divergence, torch.from_numpy(MASK), 0.5).numpy()
    for row in range(len(MASK)):
        places = np.flatnonzero(MASK[row])
        for place in range(SHAPE[1]):
            expected = -0.5 * float(divergence[row, place]) if MASK[row, place] else 0.0
            expected += float(scores[row]) if place == places[-1] else 0.0
            assert found[row, place] == pytest.approx(expected)


def test_generalised_advantages_are_sums_of_discounted_errors() -> None:
    rewards, values, gamma, decay = grid(), grid(), 0.9, 0.8
    advantages, returns = generalised_advantages(
        rewards, values, torch.from_numpy(MASK), gamma=gamma, gae_lambda=decay
    )
    for row in range(len(MASK)):
        places = np.flatnonzero(MASK[row])
        r, v = rewards[row, places].tolist(), [*values[row, places].tolist(), 0.0]
        errors = [r[t] + gamma * v[t + 1] - v[t] for t in range(len(places))]
        for t, place in enumerate(places):
            expected = sum((gamma * decay) ** (k - t) * errors[k] for k in range(t, len(places)))
            assert float(advantages[row, place]) == pytest.approx(expected)
            assert float(returns[row, place]) == pytest.approx(expected + v[t])
    assert not advantages[~torch.from_numpy(MASK)].any()


def test_whitening_keeps_the_mean_if_asked() -> None:
    values, mask = grid() + 3, torch.from_numpy(MASK)
    own = values[mask].numpy()
    for keep in (False, True):
        found = whitened(values, mask, keep_mean=keep)[mask].numpy()
        expected = (own - own.mean()) / np.sqrt(own.var() + 1e-8) + (own.mean() if keep else 0)
        assert found == pytest.approx(expected)


def test_groups() -> None:
    rewards = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0], dtype=torch.float64)
    assert leave_one_out(rewards, 3).tolist() == [1 - 4, 2 - 3.5, 6 - 1.5, 0, 0, 0]
    deviation = np.std([1, 2, 6], ddof=1) + 1e-4
    expected = [-2 / deviation, -1 / deviation, 3 / deviation, 0, 0, 0]
    assert group_advantages(rewards, 3).tolist() == pytest.approx(expected)
    assert group_advantages(rewards, 3, scaled=False).tolist() == [-2, -1, 3, 0, 0, 0]


def test_clipped_losses_and_divergence() -> None:
    for ratio in (0.5, 0.9, 1.1, 1.6):
        for advantage in (-2.0, 3.0):
            expected = -min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage)
            found = clipped_policy_loss(torch.tensor(ratio), torch.tensor(advantage), 0.2)
            assert float(found) == pytest.approx(expected)
    value, before, goal = torch.tensor(2.0), torch.tensor(1.0), torch.tensor(1.5)
    # Bounded to 1.2, the error is 0.3 instead of 0.5; the larger counts.
    assert float(clipped_value_loss(value, before, goal, 0.2)) == pytest.approx(0.125)
    for own, other in ((-1.0, -1.0), (-1.0, -2.0), (-2.0, -1.0)):
        difference = other - own
        expected = math.exp(difference) - difference - 1
        found = divergence_estimate(torch.tensor(own), torch.tensor(other))
        assert float(found) == pytest.approx(expected, abs=1e-6)


def test_the_weight_of_the_divergence_moves_towards_its_target_slowly() -> None:
    settings = {"target": 6.0, "completions": 64, "horizon": 10_000.0}
    assert adapted_beta(0.15, 6.0, **settings) == 0.15  # type: ignore[arg-type]
    assert adapted_beta(0.15, 6.6, **settings) == pytest.approx(0.15 * (1 + 0.1 * 64 / 1e4))  # type: ignore[arg-type]
    assert adapted_beta(0.15, 60, **settings) == pytest.approx(0.15 * (1 + 0.2 * 64 / 1e4))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="beta is 0"):  # which no factor changes
        PolicySettings(algorithm="grpo", kl_target=6)


def test_samples_with_unusual_line_breaks_are_kept_and_shown(tmp_path: Path) -> None:
    """A completion may contain U+2028, which JSON does not escape."""
    session: Any = SimpleNamespace(folder=SimpleNamespace(path=tmp_path))
    write = _sample_writer(session)
    texts = [WrittenText(number, 0, f"one\u2028two\x85{number}", 1.0, None) for number in range(3)]
    for text in texts:
        write([text])
    samples = alignment_page._read(tmp_path / "samples.jsonl")
    assert [one["text"] for one in samples] == [text.text for text in texts]


def test_the_report_begins_with_the_exploited_reward() -> None:
    metrics = [
        {"reward": float(i), "judge": -float(i), "unique_share": 1.0 if i < 5 else 0.1}
        for i in range(10)
    ]
    first, second, *_ = alignment_page.explain_run(metrics)
    assert "it is exploited" in first
    assert "collapsed" in second
