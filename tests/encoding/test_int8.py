"""Encoding in 8-bit integers: near the exact map, the same in every batch, and not to be saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from encoding.models import minilm, tiny_encoder
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.int8 import Int8Linear
from idiolect.errors import ConfigError, InputError
from idiolect.nn.basic import Linear
from idiolect.nn.lora import LoraConfig, add_lora

TEXTS = [
    "a text",
    "The eigenvalues of a Hermitian matrix are real.",
    "XR-2000B toner",
    "word " * 90,
]


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_a_map_is_near_the_exact_one(bias: bool) -> None:
    torch.manual_seed(0)
    exact = Linear(64, 48, bias=bias)
    rounded = Int8Linear(exact)
    x = torch.randn(3, 5, 64)
    x[0, 0] = 0
    x[0, 1] = 7.5  # all the same: no reach
    x[1] *= 1e-4
    x[2, :, 3] = 40  # a dimension that stands out, as in trained models
    for row, result in zip(x.view(-1, 64), rounded(x).view(-1, 48), strict=True):
        expected = exact(row)
        reach = (row.max() - row.min()).item() / (2 * rounded.levels)
        # Half a step of error in each input, and of each weight, at their worst by luck: 4 sigma.
        bound = 4 * 64**0.5 * (reach * exact.weight.abs().mean() + row.abs().max() * 5e-4)
        assert (result - expected).abs().max() <= bound + 1e-6


@torch.no_grad()
def test_middles_and_steps_are_exact_where_rounding_is() -> None:
    linear = Linear(4, 2)
    linear.weight.copy_(torch.tensor([[127.0, 1, -3, 0], [2, -127, 5, 9]]))
    linear.bias.copy_(torch.tensor([0.5, -1.0]))
    rounded = Int8Linear(linear)
    most = 2 * rounded.levels
    x = torch.tensor([[0.0, most, 10, 100], [-3, most - 3, 7, 0]])
    torch.testing.assert_close(rounded(x), linear(x), rtol=1e-6, atol=1e-3)


def test_minilm_in_int8_is_near_and_alike_in_every_batch() -> None:
    encoder = Encoder.load(minilm())
    exact, name = encoder.encode(TEXTS), encoder.fingerprint
    encoder.to_int8()
    rounded = encoder.encode(TEXTS)
    assert (exact * rounded).sum(1).min() > 0.99
    assert encoder.fingerprint not in ("", name)
    for i, text in enumerate(TEXTS):
        np.testing.assert_allclose(encoder.encode([text])[0], rounded[i], atol=2e-6)


@torch.no_grad()
def test_the_largest_sums_do_not_overflow() -> None:
    # Without VNNI, two products are added in 16 bits, which those of eight bits exceed.
    linear = Linear(64, 8, bias=False)
    linear.weight.fill_(1.0)
    x = torch.full((3, 64), 2.0)
    x[:, 0] = -2.0
    torch.testing.assert_close(Int8Linear(linear)(x), linear(x), rtol=1e-5, atol=1e-3)


def test_rounded_weights_are_not_saved(tmp_path: Path) -> None:
    encoder = tiny_encoder("llama")
    encoder.to_int8()
    encoder.to_int8()  # done already
    with pytest.raises(InputError, match="quantized weights cannot be saved"):
        encoder.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_adapters_are_not_lost_in_silence() -> None:
    encoder = tiny_encoder("llama")
    add_lora(encoder.model.network, LoraConfig(r=2))
    with pytest.raises(ConfigError, match="adapter"):
        encoder.to_int8()
