"""Linear maps by whichever kernel, norms, feed-forward layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from idiolect.nn.basic import FeedForward, RMSNorm, activate, linear


@pytest.mark.parametrize("rows", [(), (1,), (3,), (200,), (2, 100)])
@pytest.mark.parametrize("shape", [(8, 6), (640, 512)])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
def test_every_path_gives_the_product(
    rows: tuple[int, ...], shape: tuple[int, int], biased: bool, transposed: bool
) -> None:
    """Small and large, one row and many, with gradients and without, plain and transposed."""
    torch.manual_seed(0)
    weight = torch.randn(shape[::-1]).t() if transposed else torch.randn(shape)
    weight.requires_grad_()
    bias = torch.randn(shape[0], requires_grad=True) if biased else None
    x = torch.randn(*rows, shape[1], requires_grad=True)
    inputs = [t for t in (x, weight, bias) if t is not None]
    expected = F.linear(x, weight, bias)
    direction = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, inputs, direction)
    result = linear(x, weight, bias)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(torch.autograd.grad(result, inputs, direction), gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight, bias), expected, rtol=1e-4, atol=1e-4)


def test_autocast_is_respected() -> None:
    x, weight = torch.randn(200, 512), torch.randn(640, 512)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16


def test_rms_norm_follows_the_paper() -> None:
    norm = RMSNorm(6, epsilon=1e-3)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(4, 6)
    expected = x / (x.pow(2).mean(-1, keepdim=True) + 1e-3).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), expected)
    half = norm.to(torch.bfloat16)(x.bfloat16())
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["gelu", "gelu_tanh", "relu", "silu"])
@pytest.mark.parametrize("gated", [True, False])
def test_feed_forward(kind: str, gated: bool) -> None:
    layer = FeedForward(5, 7, activation=kind, gated=gated, bias=True, dropout=0.0)
    x = torch.randn(3, 5)
    up = x @ layer.up.weight.T + layer.up.bias
    if layer.gate is not None:
        inner = activate(kind, x @ layer.gate.weight.T + layer.gate.bias) * up
    else:
        inner = activate(kind, up)
    torch.testing.assert_close(layer(x), inner @ layer.down.weight.T + layer.down.bias)
