"""The number format of matrix products: float32, bfloat16, or 8-bit integers for encoding.

Weights, norms, attention and sums stay in float32; only the products of linear layers change
(autocast). Which format is fastest depends on the machine: of two processors that report bfloat16
support, one multiplies it twice as fast as float32 and the other two hundred times slower. `auto`
therefore measures a product of the network's shape for a few milliseconds.

    fp32    the format of the weights, by default float32
    bf16    bfloat16 by autocast: 8 significant bits, the range of float32
    int8    8-bit integers with a scale for each row; for encoding on a CPU
    auto    the fastest of these by measurement; float32 unless another one is clearly faster
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from idiolect.errors import ConfigError
from idiolect.nn.basic import Linear

__all__ = [
    "ChosenPrecision",
    "MatrixPrecision",
    "TrainingPrecision",
    "autocast",
    "check_precision",
    "choose_precision",
    "native_precision",
]

MatrixPrecision = Literal["auto", "fp32", "bf16", "int8"]
"""The number format of matrix products, or `auto` to measure."""
TrainingPrecision = Literal["auto", "fp32", "bf16"]
"""The precisions in which a network can be trained."""
ChosenPrecision = Literal["fp32", "bf16", "int8"]
"""The results of `choose_precision`."""

_SMALL = 1 << 18
"""Layers with fewer weights stay in float32: converting their inputs costs more than it saves."""
_ROWS, _WIDEST = 128, 2048
"""Number of tokens and maximum width of the measured product."""
_ROUNDS = 5
_CLEARLY = 1.3
"""Another format must be faster than float32 by this factor to be chosen."""
_FEW_ROWS, _HOPELESS = 16, 10.0
"""A format that is this many times slower than float32 for a few tokens is not measured further."""


def check_precision(precision: object, *, training: bool = False) -> None:
    """Check the name of a precision.

    Raises:
        ConfigError: It is unknown, or cannot be trained in.
    """
    known = get_args(TrainingPrecision if training else MatrixPrecision)
    if not isinstance(precision, str) or precision not in known:
        hint = "one of " + ", ".join(known)
        if isinstance(precision, str) and precision == "int8":
            raise ConfigError("int8 is for encoding only", hint=hint)
        raise ConfigError(f"unknown precision {precision!r}", hint=hint)


def choose_precision(
    network: nn.Module,
    precision: MatrixPrecision = "auto",
    *,
    int8: Callable[[Linear], nn.Module] | None = None,
    also: Iterable[tuple[int, int]] = (),
) -> ChosenPrecision:
    """Return the precision itself, or the fastest one if it is `auto`.

    Measurements are cached, so a process makes the same choice for equal shapes.

    Args:
        network: The network, on the device on which it runs.
        precision: The requested precision.
        int8: Makes the 8-bit counterpart of a linear layer; given if `auto` may choose int8.
        also: Shapes of other matrices that are multiplied, such as the vocabulary's.

    Raises:
        ConfigError: The precision is unknown.
    """
    check_precision(precision)
    if precision != "auto":
        return precision
    weights = [one.weight for one in network.modules() if isinstance(one, Linear)]
    if not weights:
        return "fp32"
    if (device := weights[0].device).type != "cpu":
        return native_precision(device)
    largest = max([*(weight.shape for weight in weights), *also], key=math.prod)
    if math.prod(largest) < _SMALL:
        return "fp32"
    rows, columns = (min(size, _WIDEST) for size in largest)
    return _fastest(rows, columns, torch.get_num_threads(), int8)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which linear layers multiply in a precision.

    Only bfloat16 needs one. For other precisions the caller's context stays in effect.
    """
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def native_precision(device: torch.device) -> ChosenPrecision:
    """Return the precision that needs no measurement: bf16 on a GPU with native support, else fp32.

    CPUs are excluded: some that report bfloat16 support are two hundred times slower with it than
    with float32.
    """
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if native else "fp32"


@cache
def _fastest(
    out: int, width: int, threads: int, int8: Callable[[Linear], nn.Module] | None
) -> ChosenPrecision:
    """Measure a product of (128, width) and (width, out) in each format on this CPU.

    `threads` only keys the cache: another number of threads needs another measurement.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_ROWS, width, generator=generator)
    layer = Linear(width, out, bias=False, device="meta")
    layer.weight = nn.Parameter(torch.randn(out, width, generator=generator), requires_grad=False)

    def in_bf16(x: Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            layer(x)

    products: dict[ChosenPrecision, Callable[[Tensor], object]] = {"fp32": layer, "bf16": in_bf16}
    if int8 is not None:
        products["int8"] = int8(layer)
    with torch.inference_mode():
        times = _times(products, x)
    best = min(times, key=lambda name: times[name])
    return best if times["fp32"] >= _CLEARLY * times[best] else "fp32"


def _times(
    products: dict[ChosenPrecision, Callable[[Tensor], object]], x: Tensor
) -> dict[ChosenPrecision, float]:
    """Return the shortest time of each product, in seconds.

    The products alternate, so that other load on the machine affects all of them. A few rows are
    timed first, to skip formats so slow that measuring them would take seconds.
    """

    def seconds(name: ChosenPrecision, part: Tensor) -> float:
        started = time.perf_counter()
        products[name](part)
        return time.perf_counter() - started

    few = x[:_FEW_ROWS]
    first = {name: min(seconds(name, few) for _ in range(3)) for name in products}
    running = [name for name in products if first[name] <= _HOPELESS * first["fp32"]]
    rounds = [{name: seconds(name, x) for name in running} for _ in range(_ROUNDS)]
    return {name: min(times[name] for times in rounds) for name in running}
