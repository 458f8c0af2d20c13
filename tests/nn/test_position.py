"""Positions against the papers' formulas, written out, and against published implementations."""

from __future__ import annotations

import math

import pytest
import torch

from idiolect.nn.config import RotaryScaling, TransformerConfig
from idiolect.nn.position import (
    RelativeTable,
    UntiedPositions,
    alibi_slopes,
    relative_bucket,
    rotary_frequencies,
    rotate,
    sinusoids,
)


def test_sinusoids_follow_the_paper() -> None:
    table = sinusoids(7, 6, interleaved=True)
    for place in range(7):
        for i in range(3):
            angle = place / 10_000 ** (2 * i / 6)
            assert table[place, 2 * i] == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[place, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-6)


def test_separate_sinusoids_are_those_of_fairseq() -> None:
    table = sinusoids(5, 8, interleaved=False)
    for place in range(5):
        for i in range(4):
            angle = place * math.exp(-i * math.log(10_000) / 3)
            assert table[place, i] == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[place, 4 + i] == pytest.approx(math.cos(angle), abs=1e-6)


def test_rotation_depends_on_distance_only() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 16)
    frequencies, _ = rotary_frequencies(16, base=100.0, scaling=None)

    def score(i: int, j: int) -> float:
        def turned(x: torch.Tensor, place: int) -> torch.Tensor:
            angles = torch.cat([place * frequencies] * 2)
            return rotate(x, (angles.cos(), angles.sin()))

        return float((turned(query, i) * turned(key, j)).sum())

    assert score(3, 5) == pytest.approx(score(10, 12), abs=1e-5)
    assert score(3, 5) != pytest.approx(score(3, 6), abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        ("linear", {}),
        ("yarn", {"original_max_position_embeddings": 32, "beta_fast": 8.0, "beta_slow": 2.0}),
        ("yarn", {"original_max_position_embeddings": 32, "truncate": False}),
        ("yarn", {"original_max_position_embeddings": 32, "attention_factor": 1.3}),
        (
            "llama3",
            {
                "original_max_position_embeddings": 32,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
            },
        ),
    ],
)
def test_rotary_scaling_matches_transformers(kind: str, extra: dict[str, float]) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0, **extra}
    config = LlamaConfig(hidden_size=128, num_attention_heads=2, rope_parameters=parameters)
    theirs, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
    scaling = RotaryScaling(
        kind=kind,
        factor=4.0,
        trained_length=32,
        fast=extra.get("beta_fast", extra.get("high_freq_factor", 32.0)),
        slow=extra.get("beta_slow", extra.get("low_freq_factor", 1.0)),
        attention_factor=extra.get("attention_factor"),
        rounded=extra.get("truncate", True),
    )
    ours, ours_factor = rotary_frequencies(64, base=1e4, scaling=scaling)
    torch.testing.assert_close(ours, theirs)
    assert ours_factor == pytest.approx(factor)


@pytest.mark.parametrize("two_sided", [True, False])
def test_buckets_match_transformers(two_sided: bool) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-300, 301)
    theirs = T5Attention._relative_position_bucket(
        distance, bidirectional=two_sided, num_buckets=32, max_distance=128
    )
    ours = relative_bucket(distance, buckets=32, limit=128, two_sided=two_sided)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("heads", [1, 4, 8, 12, 20])
def test_alibi_slopes_match_bloom(heads: int) -> None:
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    mask = torch.ones(1, 5)
    theirs = build_alibi_tensor(mask, heads, torch.float32).view(heads, 5)
    torch.testing.assert_close(alibi_slopes(heads), theirs[:, 1])


def test_shaw_clips_distances() -> None:
    table = RelativeTable(5, 3)
    place = torch.arange(6)
    vectors = table(place, place)
    for i in range(6):
        for j in range(6):
            row = max(-2, min(2, j - i)) + 2
            assert torch.equal(vectors[i, j], table.table.weight[row])


def _tupe_config(**changes: object) -> TransformerConfig:
    values = {
        "vocab_size": 10,
        "hidden_size": 8,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "num_encoder_layers": 1,
        "position": "untied",
        "max_position_embeddings": 6,
    }
    return TransformerConfig(**values | changes)


def test_untied_positions_follow_the_paper() -> None:
    """Equation 7 and the reset of equation 10, head by head and pair by pair."""
    torch.manual_seed(0)
    module = UntiedPositions(_tupe_config(), two_sided=True)
    torch.nn.init.normal_(module.first)
    place = torch.arange(5)
    with torch.no_grad():
        scores = module(place, place)
        positions = module.norm(module.table.weight)
        for head in range(2):
            rows = slice(head * 4, head * 4 + 4)
            for i in range(5):
                for j in range(5):
                    query = module.query.weight[rows] @ positions[i] + module.query.bias[rows]
                    key = module.key.weight[rows] @ positions[j] + module.key.bias[rows]
                    expected = query @ key / math.sqrt(2 * 4)
                    bucket = relative_bucket(
                        torch.tensor(j - i), buckets=32, limit=128, two_sided=True
                    )
                    expected = expected + module.relative.table.weight[bucket, head]
                    if i == 0:
                        expected = module.first[0, head]
                    elif j == 0:
                        expected = module.first[1, head]
                    assert scores[head, i, j] == pytest.approx(float(expected), abs=1e-5)


def test_untied_positions_without_relative_part() -> None:
    module = UntiedPositions(_tupe_config(relative_buckets=0), two_sided=False)
    assert module.relative is None
    assert module.first is None
    assert module(torch.arange(3), torch.arange(3)).shape == (2, 3, 3)
