"""LoRA: a frozen linear layer plus a trainable product of two low-rank matrices.

W·x becomes W·x + (alpha / rank)·B·A·x with A (rank, in) and B (out, rank). B is initialized to
zero, so the adapted network initially computes the same (Hu et al. 2021, 2106.09685). The adapted
layer keeps the names `weight` and `bias`, so code that finds weights by name still works. The
frozen matrix may be quantised (QLoRA, Dettmers et al. 2023, 2305.14314).

    rsLoRA   the scale is alpha / √rank, so large ranks learn as fast as small ones (Kalajdzievski
             2023, 2312.03732)
    DoRA     W + update determines only the direction of each row; its norm is a separate parameter
             (Liu et al. 2024, 2402.09353). The gradient treats the current norm as a constant
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from idiolect.errors import ConfigError
from idiolect.nn.basic import Linear, drop, dropout_rate, linear
from idiolect.nn.quantized_matrix import QuantizedMatrix, whole

__all__ = [
    "LoraConfig",
    "LoraLinear",
    "add_lora",
    "lora_layers",
    "merge_lora",
    "without_adapters",
]


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """The layers to adapt, and the size of the adapters."""

    r: int = 8
    """Rank: rows of A."""
    lora_alpha: float = 16.0
    """The update is scaled by alpha / rank, so the learning rate need not depend on the rank."""
    lora_dropout: float = 0.0
    """Dropout on the input of A."""
    target_modules: tuple[str, ...] = ("query", "value")
    """Names of the adapted layers: any of query, key, value, output, gate, up, down."""
    use_rslora: bool = False
    """Scale by alpha / √rank instead (rsLoRA)."""
    use_dora: bool = False
    """Learn the norm of each row separately from its direction (DoRA)."""

    def __post_init__(self) -> None:
        if self.r < 1:
            raise ConfigError(f"r is {self.r}", hint="choose a rank of at least 1")
        if not self.target_modules:
            raise ConfigError("target_modules is empty", hint="for example query and value")


class LoraLinear(Linear):
    """A linear layer with an adapter. Shape: (…, in) to (…, out).

    Args:
        base: The layer, whose weights are shared, not copied.
        rank: Rows of A.
        lora_alpha: The update is scaled by alpha / rank, or by alpha / √rank.
        dropout: Dropout on the input of A.
        use_rslora: Whether to scale by the root of the rank.
        use_dora: Whether the norm of each row is a separate parameter.
    """

    weight: Tensor | QuantizedMatrix  # type: ignore[assignment]
    lora_magnitude: nn.Parameter | None
    """The norms of the rows (DoRA). (out,)."""

    def __init__(
        self,
        base: nn.Linear,
        *,
        rank: int,
        lora_alpha: float,
        dropout: float = 0.0,
        use_rslora: bool = False,
        use_dora: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = base.out_features, base.in_features
        self.weight, self.bias = base.weight, base.bias
        for frozen in (self.weight, self.bias):
            if isinstance(frozen, Tensor):
                frozen.requires_grad_(False)
        self.use_rslora = use_rslora
        self.scale = lora_alpha / (math.sqrt(rank) if use_rslora else rank)
        self.dropout = dropout
        self.enabled = True
        """Whether the adapter has an effect; see `without_adapters`."""
        place: dict[str, Any] = {"dtype": self.weight.dtype, "device": self.weight.device}
        self.lora_a = nn.Parameter(torch.empty(rank, self.in_features, **place))
        self.lora_b = nn.Parameter(torch.zeros(self.out_features, rank, **place))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.lora_magnitude = None
        if use_dora:
            squares = _squared_lengths(self.weight)
            self.register_buffer("squares", squares, persistent=False)
            self.lora_magnitude = nn.Parameter(squares.sqrt().to(self.lora_a.dtype))
        self.train(base.training)

    @property
    def rank(self) -> int:
        """Rows of A."""
        return len(self.lora_a)

    @property
    def adapter(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name."""
        return {name: p for name, p in self.named_parameters() if name.startswith("lora_")}

    def forward(self, input: Tensor) -> Tensor:
        """Map the last dimension."""
        if not self.enabled:
            return linear(input, self.weight, self.bias)
        # The adapter trains in float32, even if the frozen weights are in bfloat16.
        thin = drop(input, dropout_rate(self.dropout, self.training))
        thin = thin.to(self.lora_a.dtype)
        change = self.scale * linear(linear(thin, self.lora_a), self.lora_b)
        if self.lora_magnitude is None:
            output = linear(input, self.weight, self.bias)
            return output + change.to(output.dtype)
        output = linear(input, self.weight)
        stretched = (output.to(change.dtype) + change) * (self.lora_magnitude / self.lengths())
        output = stretched.to(output.dtype)
        return output if self.bias is None else output + self.bias

    @torch.no_grad()
    def lengths(self) -> Tensor:
        """Return the norms of the rows of W + update, without building this matrix. (out,)."""
        a, b = self.lora_a, self.lora_b
        mixed = linear(a.to(self.weight.dtype), self.weight).to(a.dtype).t()
        change = b @ (a @ a.t())
        squares = self.get_buffer("squares") + (
            self.scale * b * (2 * mixed + self.scale * change)
        ).sum(1)
        return squares.clamp(min=torch.finfo(a.dtype).tiny).sqrt()

    @torch.no_grad()
    def merged(self) -> Tensor:
        """Return the equivalent weight without an adapter. Shape: (out, in)."""
        weight = whole(self.weight) + self.scale * (self.lora_b @ self.lora_a)
        if self.lora_magnitude is not None:
            weight *= (self.lora_magnitude / self.lengths())[:, None]
        return weight


def _squared_lengths(weight: Tensor | QuantizedMatrix) -> Tensor:
    """Return the squared norm of each row, in float32. Shape: (out,)."""
    if isinstance(weight, QuantizedMatrix):
        return torch.cat([_squared_lengths(weight[rows]) for rows in weight.slices()])
    return weight.detach().float().square().sum(1)


def add_lora(network: nn.Module, config: LoraConfig) -> list[str]:
    """Add adapters to the target layers of a configuration, in place.

    Returns:
        The names of the adapted layers.

    Raises:
        ConfigError: A target matches no layer, or a layer already has an adapter.
    """
    linears = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[0]
    }
    kinds = {name.rpartition(".")[2] for name in linears}
    unknown = set(config.target_modules) - kinds
    if unknown:
        raise ConfigError(
            f"no layer is named {sorted(unknown)[0]!r}", hint="one of " + ", ".join(sorted(kinds))
        )
    # Task heads have layers of the same names and get no adapters.
    wanted = [
        name
        for name in linears
        if name.rpartition(".")[2] in config.target_modules
        and not name.startswith(("heads.", "pooler."))
    ]
    if any(isinstance(linears[name], LoraLinear) for name in wanted):
        raise ConfigError("the network already has an adapter", hint="merge it first")
    for name in wanted:
        layer = LoraLinear(
            linears[name],
            rank=config.r,
            lora_alpha=config.lora_alpha,
            dropout=config.lora_dropout,
            use_rslora=config.use_rslora,
            use_dora=config.use_dora,
        )
        _replace(network, name, layer)
    return wanted


def lora_layers(network: nn.Module) -> dict[str, LoraLinear]:
    """Return the adapted layers by name."""
    return {n: module for n, module in network.named_modules() if isinstance(module, LoraLinear)}


@contextmanager
def without_adapters(network: nn.Module) -> Iterator[None]:
    """Disable a network's adapters until the context exits."""
    layers = lora_layers(network).values()
    for layer in layers:
        layer.enabled = False
    try:
        yield
    finally:
        for layer in layers:
            layer.enabled = True


@torch.no_grad()
def merge_lora(network: nn.Module) -> None:
    """Merge the adapters into the weights, in place; the network's outputs are unchanged.

    A quantised weight is replaced by its values plus the update, in full precision: quantising the
    sum again would round most of the update away.
    """
    for name, layer in lora_layers(network).items():
        plain = Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        plain.weight = nn.Parameter(layer.merged(), requires_grad=False)
        plain.bias = layer.bias
        _replace(network, name, plain.train(layer.training))


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)
