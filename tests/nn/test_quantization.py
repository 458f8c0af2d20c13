"""Quantised matrices: their codes are the papers', products and gradients those of their values."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from idiolect.errors import ConfigError
from idiolect.nn import quantized_matrix
from idiolect.nn.basic import linear, transposed_linear
from idiolect.nn.embedding import ExtendedRows
from idiolect.nn.lora import LoraConfig, add_lora, lora_layers, merge_lora
from idiolect.nn.quantization import NF4_VALUES, Int8Matrix, NF4Matrix, quantize_layers
from idiolect.nn.quantized_matrix import QuantizedMatrix, quantized_matrices, whole
from nn.test_attention import network

FORMATS = pytest.mark.parametrize("kind", [NF4Matrix, Int8Matrix])


def matrix(rows: int = 40, width: int = 128) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(1)) * 0.05


@pytest.fixture(autouse=True)
def _few_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantized_matrix, "_VALUES_AT_ONCE", 7 * 128)


def test_nf4_values_are_the_quantiles_of_the_paper() -> None:
    """Equation 4 and appendix E: quantiles of a normal distribution, with an exact zero."""
    offset = 0.9677083  # the mean of 1 - 1/30 and 1 - 1/32

    def quantiles(count: int) -> Tensor:
        return torch.special.ndtri(torch.linspace(offset, 0.5, count, dtype=torch.float64)[:-1])

    values = torch.cat([quantiles(9), torch.zeros(1, dtype=torch.float64), -quantiles(8)]).sort()[0]
    expected = values / values.max()
    assert torch.allclose(torch.tensor(NF4_VALUES, dtype=torch.float64), expected, atol=1e-6)


def test_nf4_takes_the_nearest_value_of_each_block() -> None:
    exact = matrix()
    blocks = exact.view(-1, 32)
    maxima = blocks.abs().amax(1, keepdim=True)
    values = torch.tensor(NF4_VALUES)
    nearest = values[((blocks / maxima)[..., None] - values).abs().argmin(-1)] * maxima
    ours = whole(NF4Matrix(exact)).view_as(nearest)
    # The maxima are quantised to 8 bits, so a few weights lie on the other side of a border.
    assert ((ours - nearest).abs() < 0.05 * maxima).float().mean() > 0.97
    errors = [(one - blocks).square().mean().sqrt() for one in (ours, nearest)]
    assert errors[0] < 1.02 * errors[1]


def test_nf4_beside_bitsandbytes() -> None:
    functional = pytest.importorskip("bitsandbytes.functional", reason="needs bitsandbytes")
    exact = matrix(512, 576)
    packed, state = functional.quantize_4bit(
        exact, blocksize=64, quant_type="nf4", compress_statistics=True
    )
    theirs = functional.dequantize_4bit(packed, state)
    assert torch.allclose(state.code.cpu(), torch.tensor(NF4_VALUES))
    errors = [(one - exact).square().mean().sqrt() for one in (whole(NF4Matrix(exact)), theirs)]
    assert errors[0] <= 1.01 * errors[1]


def test_stored_bits() -> None:
    exact = matrix(512, 576)
    bits = [8 * kind(exact).stored_bytes / exact.numel() for kind in (NF4Matrix, Int8Matrix)]
    assert bits[0] < 4.26
    assert bits[1] < 8.1


def test_int8_is_within_half_a_step() -> None:
    exact = matrix()
    steps = exact.abs().amax(1, keepdim=True) / 127
    assert ((whole(Int8Matrix(exact)) - exact).abs() <= 0.501 * steps).all()


@FORMATS
@pytest.mark.parametrize("width", [128, 40])
def test_rows_are_read_like_a_tensor(kind: type[QuantizedMatrix], width: int) -> None:
    stored = kind(matrix(width=width))
    values = whole(stored)
    assert torch.equal(stored[5:9], values[5:9])
    ids = torch.tensor([[3, 39], [0, 3]])
    assert torch.equal(stored[ids], values[ids])
    part = stored.part(10, 20)
    assert torch.equal(whole(part), values[10:20])
    assert torch.equal(part[torch.tensor([9])], values[19:20])


@FORMATS
def test_zeros_stay_zero(kind: type[QuantizedMatrix]) -> None:
    exact = matrix()
    exact[3] = 0
    assert not whole(kind(exact))[3].any()


@FORMATS
def test_products_and_gradients_are_those_of_the_values(kind: type[QuantizedMatrix]) -> None:
    stored = kind(matrix())
    values = whole(stored)
    x = torch.randn(3, 70, 128, requires_grad=True)
    bias = torch.randn(40, requires_grad=True)
    weights = torch.randn(3, 70, 40)
    gradients = []
    for weight in (stored, values):
        (linear(x, weight, bias) * weights).sum().backward()
        gradients.append([x.grad, bias.grad])
        x.grad = bias.grad = None
    torch.testing.assert_close(linear(x, stored, bias), linear(x, values, bias))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(transposed_linear(weights, stored), weights @ values)


@FORMATS
def test_another_dtype_does_not_touch_the_blocks(kind: type[QuantizedMatrix]) -> None:
    stored = kind(matrix())
    values = whole(stored)
    module = nn.ModuleDict({"matrix": copy.deepcopy(stored)}).to(torch.bfloat16)
    assert torch.equal(whole(module["matrix"]), values.bfloat16())  # type: ignore[arg-type]
    assert torch.equal(whole(module.float()["matrix"]), values)  # type: ignore[arg-type]


def test_added_rows_on_quantised_ones() -> None:
    stored, added = Int8Matrix(matrix()), torch.randn(3, 128)
    quantised = ExtendedRows(stored, added, first_id=38)
    plain = ExtendedRows(whole(stored), added, first_id=38)
    assert quantised.fingerprint == plain.fingerprint
    ids, hidden = torch.arange(41)[None], torch.randn(5, 128)
    assert torch.equal(quantised.lookup(ids), plain.lookup(ids))
    torch.testing.assert_close(quantised.score(hidden), plain.score(hidden))
    assert torch.equal(quantised.joined(), plain.joined())
    stored.get_buffer("codes")[0, 0] ^= 1
    with pytest.raises(Exception, match="have changed"):
        quantised.verify()


@pytest.mark.parametrize("use_dora", [False, True])
def test_an_adapter_over_a_quantised_base_merges_to_the_same_outputs(use_dora: bool) -> None:
    net = network()
    quantize_layers(net.blocks, "nf4")
    plain = copy.deepcopy(net)
    for name in quantized_matrices(plain):
        owner = plain.get_submodule(name.removesuffix(".weight"))
        values = whole(owner.weight)  # type: ignore[arg-type]
        del owner.weight
        owner.weight = nn.Parameter(values)
    for one in (net, plain):
        torch.manual_seed(2)
        targets = ("query", "up", "down")
        add_lora(one, LoraConfig(target_modules=targets, use_dora=use_dora, use_rslora=True))
        for layer in lora_layers(one).values():
            nn.init.normal_(layer.lora_b, std=0.1)
    ids = torch.arange(12).view(2, 6)
    outputs = net(ids).logits
    torch.testing.assert_close(outputs, plain(ids).logits)
    outputs.square().sum().backward()
    plain(ids).logits.square().sum().backward()
    for ours, theirs in zip(lora_layers(net).values(), lora_layers(plain).values(), strict=True):
        for name, parameter in ours.adapter.items():
            torch.testing.assert_close(
                parameter.grad, theirs.adapter[name].grad, rtol=1e-3, atol=1e-4
            )
    merge_lora(net)
    torch.testing.assert_close(net(ids).logits, outputs)
    assert not {name for name in quantized_matrices(net) if ".query." in name}


def test_what_is_quantised_is_not_quantised_again() -> None:
    net = network()
    with pytest.raises(ConfigError, match=r"unknown quantization 'int3' \(one of nf4, int8"):
        quantize_layers(net.blocks, "int3")  # type: ignore[arg-type]
    quantize_layers(net.blocks, "int8")
    with pytest.raises(ConfigError, match="quantised already, to int8"):
        quantize_layers(net.blocks, "nf4")


def test_int8_of_a_transposed_view_is_stored_in_rows() -> None:
    matrix = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    stored = Int8Matrix(matrix.t())
    assert stored.codes.is_contiguous()  # else each product would read one byte of each cache line
    assert torch.equal(stored.codes, Int8Matrix(matrix.t().contiguous()).codes)
