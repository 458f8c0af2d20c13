"""Linear maps, norms, activations, dropout and the feed-forward layer.

On a CPU `linear` uses oneDNN instead of torch's default matrix library. For one row and a
(50257, 768) matrix it is about twice as fast, since the default gemv reads memory with one thread.
For thousands of rows it is 1.1 to 1.4 times as fast, forward and backward. Weights that are
transposed views use the default library: oneDNN would reorder the whole matrix at every call. The
operator is private to torch; in a release without it, `F.linear` is used.

Code with a faster product of its own passes it to `products_by`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from idiolect.nn.config import Activation, TransformerConfig
from idiolect.nn.quantized_matrix import QuantizedMatrix

__all__ = [
    "Dropout",
    "FeedForward",
    "Linear",
    "RMSNorm",
    "activate",
    "can_inspect",
    "drop",
    "dropout_rate",
    "init_parameters",
    "linear",
    "make_norm",
    "products_by",
    "softcap",
    "transposed_linear",
]

_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn, "_linear_pointwise"
)
_FEW = 1 << 18
"""Fewer weights than this fit in the CPU caches, where a oneDNN call is not worth its overhead."""
_MANY = 64
"""With fewer rows than this, the Python overhead of the autograd function outweighs the gain."""

_Own = Callable[[Tensor, Tensor | QuantizedMatrix, Tensor | None], Tensor | None]
_OWN: ContextVar[_Own | None] = ContextVar("products", default=None)


@contextmanager
def products_by(product: _Own) -> Iterator[None]:
    """Make `linear` try a function first, in this thread and in inference mode.

    Args:
        product: Returns x·weightᵀ + bias, or None if `linear` should compute it.
    """
    token = _OWN.set(product)
    try:
        yield
    finally:
        _OWN.reset(token)


def can_inspect(values: Tensor) -> bool:
    """Return whether Python code may read a tensor's values.

    On an accelerator this would make the host wait for the device; during an export there are no
    values.
    """
    return values.device.type == "cpu" and not torch.compiler.is_exporting()


def linear(x: Tensor, weight: Tensor | QuantizedMatrix, bias: Tensor | None = None) -> Tensor:
    """Return x·weightᵀ + bias, computed by the fastest available kernel.

    Shape: x (…, in), weight (out, in), bias (out), result (…, out).
    """
    if not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():
        own = _OWN.get()
        found = None if own is None else own(x, weight, bias)
        if found is not None:
            return found
    if isinstance(weight, QuantizedMatrix):
        product: Tensor = _quantized_product(x, weight, bias)
        return product
    large = weight.numel() >= _FEW
    if not _fits_onednn(x, weight):
        return F.linear(x, weight, bias)
    if not torch.is_grad_enabled():
        few = not large and x.numel() == x.shape[-1]
        return F.linear(x, weight, bias) if few else _product(x, weight, bias)
    if large and x.numel() >= _MANY * x.shape[-1]:
        result: Tensor = _Product.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return result
    return F.linear(x, weight, bias)


def _fits_onednn(x: Tensor, weight: Tensor) -> bool:
    """Return whether oneDNN can be used: float32 on a CPU, eager mode, contiguous weights."""
    return (
        _ONEDNN
        and x.dtype == torch.float32 == weight.dtype
        and x.device.type == "cpu"
        and weight.is_contiguous()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


class _Product(torch.autograd.Function):
    """`_product` with a backward pass that saves and computes nothing for frozen weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            _product(grad, weight.t()) if for_x else None,
            rows.t() @ x.flatten(0, -2) if for_weight else None,
            rows.sum(0) if for_bias else None,
        )


class _QuantizedProduct(torch.autograd.Function):
    """A product with a frozen quantised matrix, of which some rows are de-quantised at a time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: QuantizedMatrix, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        parts = [
            linear(x, weight[rows].to(x.dtype), None if bias is None else bias[rows])
            for rows in weight.slices()
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        for_x, _, for_bias = ctx.needs_input_grad
        return (
            transposed_linear(grad, ctx.weight) if for_x else None,
            None,
            grad.flatten(0, -2).sum(0) if for_bias else None,
        )


# Unlike `torch.compiler.disable`, this does not import the compiler, which takes over a second.
@torch._disable_dynamo  # type: ignore[attr-defined]
def _quantized_product(x: Tensor, weight: QuantizedMatrix, bias: Tensor | None) -> Tensor:
    result: Tensor = _QuantizedProduct.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return result


def transposed_linear(x: Tensor, weight: Tensor | QuantizedMatrix) -> Tensor:
    """Return x·weight, without a gradient. Shape: x (…, out), weight (out, in), result (…, in)."""
    if not isinstance(weight, QuantizedMatrix):
        return x @ weight
    parts = ((x[..., rows], weight[rows].to(x.dtype)) for rows in weight.slices())
    products = (_product(a, b.t()) if _fits_onednn(a, b) else a @ b for a, b in parts)
    return reduce(torch.add, products)


class Linear(nn.Linear):
    """A linear layer whose forward pass is `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """Map the last dimension. Shape: (…, in) to (…, out)."""
        return linear(input, self.weight, self.bias)


class RMSNorm(nn.Module):
    """Divide by the root mean square (Zhang & Sennrich 2019, 1910.07467), computed in float32.

    Shape: (…, width) to (…, width).

    Args:
        width: Size of the last dimension.
        epsilon: Added to the mean square before the root.
        offset: Added to the stored weight (Gemma: 1).
    """

    def __init__(self, width: int, *, epsilon: float, offset: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), 1.0 - offset))
        self.epsilon = epsilon
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        if self.offset:
            weight = self.weight.float() + self.offset
            return F.rms_norm(x.float(), weight.shape, weight, self.epsilon).to(x.dtype)
        if x.dtype == torch.float32:
            return F.rms_norm(x, self.weight.shape, self.weight, self.epsilon)
        return F.rms_norm(x.float(), self.weight.shape, eps=self.epsilon).to(x.dtype) * self.weight


def make_norm(config: TransformerConfig) -> nn.Module:
    """Build a configuration's norm over hidden states."""
    if config.norm == "layer":
        return nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)
    return RMSNorm(config.hidden_size, epsilon=config.norm_eps, offset=config.norm_offset)


_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


def activate(kind: Activation, x: Tensor) -> Tensor:
    """Apply an activation elementwise."""
    return _ACTIVATIONS[kind](x)


def softcap(scores: Tensor, bound: float) -> Tensor:
    """Bound scores smoothly by ±`bound`."""
    return bound * torch.tanh(scores / bound)


def dropout_rate(rate: float, training: bool) -> float:
    """Return the effective rate: zero outside training and in `torch.inference_mode`.

    Inference mode applies to one thread, a module's training mode to all threads. Encoding uses the
    former, so it does not affect another thread that uses the same network.
    """
    return rate if training and not torch.is_inference_mode_enabled() else 0.0


def drop(x: Tensor, rate: float) -> Tensor:
    """Set random elements to zero, and scale the others by 1 / (1 - rate).

    On a CPU `torch.nn.functional.dropout` takes four times as long, because its Bernoulli sampling
    is slow.
    """
    if not rate:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, rate)
    kept = torch.rand(x.shape) >= rate
    return x * kept.to(x.dtype).div_(1 - rate)


class Dropout(nn.Module):
    """Set random elements to zero in training, and scale the others by 1 / (1 - rate).

    Shape: (…) to (…).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Apply dropout, unless `dropout_rate` is zero."""
        return drop(x, dropout_rate(self.rate, self.training))


class FeedForward(nn.Module):
    """Two linear layers with an activation between; with `gated`, a gated linear unit.

    Shape: (…, width) to (…, width).
    """

    def __init__(
        self,
        width: int,
        inner: int,
        *,
        activation: Activation,
        gated: bool,
        bias: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.activation: Activation = activation
        self.gate = Linear(width, inner, bias=bias) if gated else None
        self.up = Linear(width, inner, bias=bias)
        self.down = Linear(inner, width, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position independently."""
        if self.gate is None:
            inner = activate(self.activation, self.up(x))
        else:
            inner = activate(self.activation, self.gate(x)) * self.up(x)
        result: Tensor = self.down(self.dropout(inner))
        return result


@torch.no_grad()
def init_parameters(network: nn.Module, layers: int, seed: int) -> None:
    """Initialize all weights, reproducibly for a seed.

    Matrices are normal with standard deviation 0.02. The last matrix of each residual branch has
    0.02 / √(2·layers), so that the sum over the branches does not grow with their number (Radford
    et al. 2019). Norms multiply by one, biases are zero.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        for name, parameter in network.named_parameters():
            if parameter.dim() < 2:
                norm = "norm" in name and name.endswith("weight")
                owner = network.get_submodule(name.rpartition(".")[0])
                offset = owner.offset if isinstance(owner, RMSNorm) else 0.0
                parameter.fill_(1.0 - offset if norm else 0.0)
            else:
                ends = name.endswith((".output.weight", ".down.weight")) and ".layers." in name
                parameter.normal_(std=0.02 / (2 * layers) ** 0.5 if ends else 0.02)
