"""The precision of matrix products: chosen by measurement, never by the processor's name."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idiolect.errors import ConfigError
from idiolect.nn import matrix_precision
from idiolect.nn.attention import Attention, Visibility
from idiolect.nn.basic import Linear
from idiolect.nn.config import TransformerConfig
from idiolect.nn.matrix_precision import autocast, choose_precision

LARGE = (512, 1024)


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Forget what earlier tests measured."""
    matrix_precision._fastest.cache_clear()


def _machine(monkeypatch: pytest.MonkeyPatch, *, bf16: float, int8: float = 1.0) -> type[nn.Module]:
    """Pretend a product costs this many times that of float32; return the 8-bit layer."""
    clock = [0.0]

    def forward(self: Linear, input: Tensor) -> Tensor:
        fast = torch.is_autocast_enabled("cpu")
        clock[0] += (bf16 if fast else 1.0) * len(input)
        return input

    class Rounded(nn.Module):
        def __init__(self, linear: Linear) -> None:
            super().__init__()

        def forward(self, input: Tensor) -> Tensor:
            clock[0] += int8 * len(input)
            return input

    monkeypatch.setattr(Linear, "forward", forward)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    return Rounded


@pytest.mark.parametrize(
    ("bf16", "chosen"), [(0.5, "bf16"), (0.95, "fp32"), (2.0, "fp32"), (200.0, "fp32")]
)
def test_the_faster_one_is_chosen_if_it_clearly_is(
    monkeypatch: pytest.MonkeyPatch, bf16: float, chosen: str
) -> None:
    network = nn.Sequential(Linear(4, 4), Linear(*LARGE))
    _machine(monkeypatch, bf16=bf16)
    assert choose_precision(network) == chosen


def test_int8_is_measured_where_it_may_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(Linear(*LARGE))
    rounded = _machine(monkeypatch, bf16=0.6, int8=0.3)
    assert choose_precision(network, int8=rounded) == "int8"
    assert choose_precision(network) == "bf16"


def test_a_hopeless_format_is_given_few_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(Linear(*LARGE))
    _machine(monkeypatch, bf16=200.0)
    choose_precision(network)
    rows, whole = matrix_precision._FEW_ROWS, matrix_precision._ROWS
    assert time.perf_counter() < 4 * 200.0 * rows < 200.0 * whole


def test_a_process_measures_a_shape_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(Linear(*LARGE))
    _machine(monkeypatch, bf16=0.5)
    assert choose_precision(network) == "bf16"
    _machine(monkeypatch, bf16=2.0)
    assert choose_precision(network) == "bf16"


def test_small_networks_and_those_without_layers_stay_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _machine(monkeypatch, bf16=0.01)
    assert choose_precision(nn.Sequential(Linear(64, 64))) == "fp32"
    assert choose_precision(nn.Embedding(1000, 1000)) == "fp32"


def test_the_matrix_of_the_vocabulary_counts_where_it_is_multiplied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _machine(monkeypatch, bf16=0.5)
    assert choose_precision(nn.Sequential(Linear(64, 64)), also=[(8192, 64)]) == "bf16"


def test_a_real_measurement_takes_little_time() -> None:
    """On whatever machine this is; the result is that of the machine."""
    assert choose_precision(nn.Sequential(Linear(*LARGE))) in ("fp32", "bf16")


def test_what_was_asked_for_is_taken() -> None:
    network = nn.Sequential(Linear(*LARGE))
    for one in ("fp32", "bf16", "int8"):
        assert choose_precision(network, one) == one  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown precision 'half'"):
        choose_precision(network, "half")  # type: ignore[arg-type]


def test_only_bf16_changes_products() -> None:
    linear, x = Linear(*LARGE), torch.randn(3, 512)
    plain = linear(x)
    with autocast("fp32", x.device):
        assert torch.equal(linear(x), plain)
    with autocast("bf16", x.device):
        rounded = linear(x)
    assert rounded.dtype == torch.bfloat16
    expected = F.linear(x.bfloat16(), linear.weight.bfloat16(), linear.bias.bfloat16())
    torch.testing.assert_close(rounded, expected)


@pytest.mark.parametrize("bias", [None, torch.zeros(4, 5, 5)])
def test_attention_stays_in_float32(monkeypatch: pytest.MonkeyPatch, bias: Tensor | None) -> None:
    seen: list[torch.dtype] = []
    real: Callable[..., Tensor] = F.scaled_dot_product_attention

    def attend(*tensors: Tensor, **options: object) -> Tensor:
        seen.extend(tensor.dtype for tensor in tensors if isinstance(tensor, Tensor))
        assert not torch.is_autocast_enabled("cpu")
        return real(*tensors, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    config = TransformerConfig(
        vocab_size=8,
        hidden_size=32,
        intermediate_size=8,
        num_attention_heads=4,
        num_decoder_layers=1,
        max_position_embeddings=8,
    )
    positions = torch.arange(5)
    visibility = Visibility(
        causal=True, query_positions=positions, key_positions=positions, bias=bias
    )
    with autocast("bf16", torch.device("cpu")):
        Attention(config)(torch.randn(2, 5, 32), visibility)
    assert set(seen) == {torch.float32}
