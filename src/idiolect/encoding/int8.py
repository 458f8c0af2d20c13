"""Linear layers in 8-bit integers, for encoding on a CPU.

- Weights have one fixed scale per output. Inputs have a scale and a midpoint per token, computed in
  each pass (dynamic quantization). They do not depend on other tokens, so a text's vector is the
  same in every batch; a common scale for the whole batch would break that.
- With c = round((x − middle) / step), x·wᵀ is step·(c·wᵀ) + middle·Σw. The midpoint matters: a few
  dimensions of hidden states are large, and activations are rarely negative.
- The product is oneDNN's for unsigned inputs and signed weights, for which processors have an
  instruction (VNNI). Inputs are shifted by 128 to be unsigned; the product subtracts the shift.
- Processors without it add two products in 16 bits, which silently overflows with 8-bit inputs.
  There, inputs have 7 bits.
- Embeddings, norms, attention scores and activations stay in float32.
"""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import torch
from torch import Tensor, nn

from idiolect.errors import ConfigError, MissingDependencyError
from idiolect.nn.basic import Linear
from idiolect.nn.matrix_precision import ChosenPrecision, MatrixPrecision, choose_precision
from idiolect.nn.network import Network, copy_module

__all__ = ["Int8Linear", "encoding_precision", "with_int8"]

_M = TypeVar("_M", bound=nn.Module)
_TINY = 1e-30
"""Avoids division by zero for a row of equal numbers."""


class Int8Linear(nn.Module):
    """A linear layer with quantized weights and inputs; it cannot be trained.

    Shape: (…, in) to (…, out), float32.

    Raises:
        MissingDependencyError: This build of torch has no int8 kernels.
    """

    _scale: Tensor
    _sums: Tensor

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        kernels = torch.ops.onednn
        if not _has_kernels():
            raise MissingDependencyError(
                "this build of torch has no int8 kernels", hint="encode in float32"
            )
        weight = linear.weight.detach()
        scale = weight.abs().amax(1).clamp(min=_TINY) / 127
        codes = (weight / scale[:, None]).round().to(torch.int8)
        self.shape = tuple(weight.shape)
        self.levels = 127 if _sums_eight_bits() else 63
        """Largest absolute code of an input: 127 for 8 bits, 63 for 7 bits."""
        # Not buffers: the packed layout is private to oneDNN and must not be saved.
        self._weight = kernels.qlinear_prepack(codes, None)
        # Buffers, so that the fingerprint of an encoder depends on them.
        self.register_buffer("_scale", scale)
        self._zeros = torch.zeros(len(scale), dtype=torch.int64)
        self.register_buffer("_sums", (codes.sum(1) * scale)[None])
        self._bias = torch.zeros_like(scale) if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Map the last dimension."""
        rows = x.reshape(-1, x.shape[-1])
        highest, lowest = rows.amax(1, keepdim=True), rows.amin(1, keepdim=True)
        middle = (highest + lowest) / 2
        step = (highest - lowest).clamp(min=_TINY) / (2 * self.levels)
        # torch converts to int8 eight times faster than to uint8.
        codes = ((rows - middle) * step.reciprocal()).round_().to(torch.int8)
        product = _product(codes, self.levels + 1, self._weight, self._scale, self._zeros)
        result = torch.addmm(self._bias, middle, self._sums).addcmul_(product, step)
        return result.view(*x.shape[:-1], self.shape[0])


def encoding_precision(network: Network, precision: MatrixPrecision) -> ChosenPrecision:
    """Return the precision itself, or the fastest one for encoding if it is `auto`.

    Raises:
        ConfigError: An unknown precision.
    """
    return choose_precision(network, precision, int8=Int8Linear if _has_kernels() else None)


def with_int8(network: _M) -> _M:
    """Return a network whose body has 8-bit linear layers; it shares all other modules.

    Task heads are unchanged, since vectors do not depend on them.

    Raises:
        ConfigError: A layer has an adapter, which would be lost.
        MissingDependencyError: This build of torch has no int8 kernels.
    """
    twin = copy_module(network)
    for name, child in network.named_children():
        if isinstance(child, Linear):
            if type(child) is not Linear:
                raise ConfigError(f"{name} has an adapter", hint="merge it first")
            setattr(twin, name, Int8Linear(child))
        elif name not in ("heads", "pooler"):
            setattr(twin, name, with_int8(child))
    return twin


def _product(codes: Tensor, shift: int, weight: Tensor, scale: Tensor, zeros: Tensor) -> Tensor:
    """Multiply integers from -`shift` + 1 to `shift` - 1 with packed weights.

    Shape: codes (rows, in), result (rows, out).
    """
    # int8 addition wraps around: adding -128 has the same bits as adding 128.
    unsigned = codes.add(shift - 256 if shift == 128 else shift).view(torch.uint8)
    product: Tensor = torch.ops.onednn.qlinear_pointwise(
        unsigned, 1.0, shift, weight, scale, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return product


@cache
def _sums_eight_bits() -> bool:
    """Return whether products with 8-bit inputs do not overflow on this processor."""
    weight, ones = torch.full((16, 64), 127, dtype=torch.int8), torch.ones(16)
    packed = torch.ops.onednn.qlinear_prepack(weight, None)
    codes = torch.full((4, 64), 127, dtype=torch.int8)
    found = _product(codes, 128, packed, ones, torch.zeros(16, dtype=torch.int64))
    return bool((found == 127 * 127 * 64).all())


def _has_kernels() -> bool:
    names = ("qlinear_prepack", "qlinear_pointwise")
    return all(hasattr(torch.ops.onednn, name) for name in names)
