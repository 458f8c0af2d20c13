"""Linear maps computed in 8-bit integers, for encoding on a CPU.

What is notable:

- Weights have one scale for each output, fixed once; inputs a scale and a middle for each token,
  found as it passes (dynamic quantisation). They depend on no other token, so the vector of a text
  is the same whatever batch it is in; one scale for a whole batch, as is common, would break that.
- With c = round((x − middle) / step), x·wᵀ is step·(c·wᵀ) + middle·Σw. The middle matters: hidden
  states have single large dimensions, and what an activation gives is hardly ever negative.
- The product is oneDNN's for unsigned inputs and signed weights, the pair for which processors have
  an instruction (VNNI). Inputs are shifted by 128 to be unsigned; the product takes that out again.
- Embeddings, norms, attention scores and activations stay in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from idiolect.errors import ConfigError, MissingDependencyError
from idiolect.nn.basic import Linear

__all__ = ["Int8Linear", "to_int8"]

_MIDDLE = 128
_TINY = 1e-30
"""Keeps a row of equal numbers from being divided by zero."""


class Int8Linear(nn.Module):
    """A dense map with rounded weights and inputs; it cannot be trained.

    Shape: (…, in) to (…, out), float32.

    Raises:
        MissingDependencyError: This build of torch has no such product.
    """

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        kernels = torch.ops.onednn
        if not hasattr(kernels, "qlinear_prepack") or not hasattr(kernels, "qlinear_pointwise"):
            raise MissingDependencyError(
                "this build of torch computes nothing in int8", hint="encode in float32"
            )
        weight = linear.weight.detach()
        scale = weight.abs().amax(1).clamp(min=_TINY) / 127
        codes = (weight / scale[:, None]).round().to(torch.int8)
        self.shape = tuple(weight.shape)
        # Not buffers: the packed layout is oneDNN's own, and no checkpoint should hold it.
        self._weight = kernels.qlinear_prepack(codes, None)
        self._scale = scale
        self._zeros = torch.zeros(len(scale), dtype=torch.int64)
        self._sums = (codes.sum(1) * scale)[None]
        self._bias = torch.zeros_like(scale) if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Map the last dimension."""
        rows = x.reshape(-1, x.shape[-1])
        highest, lowest = rows.amax(1, keepdim=True), rows.amin(1, keepdim=True)
        middle = (highest + lowest) / 2
        step = (highest - lowest).clamp(min=_TINY) / 254
        # By way of int8, since torch converts to that eight times as fast as to uint8; adding 128
        # wraps around to the unsigned number.
        codes = ((rows - middle) * step.reciprocal()).round_().to(torch.int8).add_(-_MIDDLE)
        product = torch.ops.onednn.qlinear_pointwise(
            codes.view(torch.uint8),
            1.0,
            _MIDDLE,
            self._weight,
            self._scale,
            self._zeros,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        result = torch.addmm(self._bias, middle, self._sums).addcmul_(product, step)
        return result.view(*x.shape[:-1], self.shape[0])


def to_int8(network: nn.Module) -> None:
    """Replace every dense map of a network's layers, in place.

    Heads stay as they are: vectors do not pass through them.

    Raises:
        ConfigError: A map has an adapter, which would be lost.
        MissingDependencyError: This build of torch has no such product.
    """
    for name, child in network.named_children():
        if isinstance(child, Linear):
            if type(child) is not Linear:
                raise ConfigError(f"{name} has an adapter", hint="merge it first")
            setattr(network, name, Int8Linear(child))
        elif name not in ("heads", "pooler"):
            to_int8(child)
