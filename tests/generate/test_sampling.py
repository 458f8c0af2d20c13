"""The kept sets of every sampling rule beside those of `transformers`, and mirostat."""

from __future__ import annotations

import math

import pytest
import torch
import transformers

from idiolect.errors import ConfigError
from idiolect.generate.token_sampling import Mirostat, Sampling

RULES = {
    "top_k": (7, transformers.TopKLogitsWarper),
    "top_p": (0.7, transformers.TopPLogitsWarper),
    "min_p": (0.1, transformers.MinPLogitsWarper),
    "typical_p": (0.6, transformers.TypicalLogitsWarper),
    "epsilon_cutoff": (0.02, transformers.EpsilonLogitsWarper),
    "eta_cutoff": (0.05, transformers.EtaLogitsWarper),
}


@pytest.mark.parametrize("name", RULES)
def test_kept_sets_equal_those_of_transformers(name: str) -> None:
    value, warper = RULES[name]
    scores = torch.randn(10_000, 40, generator=torch.Generator().manual_seed(5)) * 2
    theirs = warper(value)(None, scores)
    ours = Sampling(**{name: value}).filter(scores)  # type: ignore[arg-type]
    assert torch.equal(ours.isinf(), theirs.isinf())
    assert 0 < int(ours.isinf().sum()) < ours.numel()


def test_rules_apply_in_the_order_of_transformers() -> None:
    scores = torch.randn(500, 40, generator=torch.Generator().manual_seed(6)) * 2
    theirs = transformers.TemperatureLogitsWarper(0.7)(None, scores)
    for value, warper in RULES.values():
        theirs = warper(value)(None, theirs)
    ours = Sampling(0.7, **{name: value for name, (value, _) in RULES.items()}).filter(scores)  # type: ignore[arg-type]
    assert torch.allclose(ours, theirs)


def test_values_out_of_range_are_refused() -> None:
    for wrong in ({"min_p": 1.0}, {"typical_p": 0.0}, {"eta_cutoff": -0.1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Sampling(**wrong)


def test_mirostat_holds_the_surprise_at_its_target() -> None:
    shares = torch.randn(300, generator=torch.Generator().manual_seed(8)).mul(2).softmax(-1)
    order = shares.argsort(descending=True).tolist()
    mirostat, limit, surprises = Mirostat(3.0, 0.1), 6.0, []
    for uniform in torch.rand(1500, generator=torch.Generator().manual_seed(1)).tolist():
        # The algorithm of llama.cpp, in plain steps: cut, renormalize, draw, correct.
        kept = [i for i in order if -math.log2(shares[i]) <= limit] or order[:1]
        total, reached = sum(float(shares[i]) for i in kept), 0.0
        for token in kept:
            reached += float(shares[token]) / total
            if reached > uniform:
                break
        surprises.append(-math.log2(float(shares[token]) / total))
        limit -= 0.1 * (surprises[-1] - 3.0)
        assert mirostat.draw(shares.log(), uniform) == token
    assert sum(surprises[200:]) / 1300 == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("temperature", [1e-20, 1e-40, 5e-324])
def test_the_lowest_temperatures_are_greedy(temperature: float) -> None:
    scores = torch.tensor([[1.0, 30.0, 29.0], [-80.0, -90.0, float("-inf")]])
    drawn = Sampling(temperature=temperature).draw(scores, torch.tensor([0.99, 0.99]))
    assert drawn.tolist() == [1, 0]
