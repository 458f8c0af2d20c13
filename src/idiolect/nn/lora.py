"""LoRA: a frozen linear layer plus a trainable product of two low-rank matrices.

W·x becomes W·x + (alpha / rank)·B·A·x with A (rank, in) and B (out, rank). B is initialized to
zero, so the adapted network initially computes the same (Hu et al. 2021, 2106.09685). The adapted
layer keeps the names `weight` and `bias`, so code that finds weights by name still works.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idiolect.errors import ConfigError
from idiolect.nn.basic import Linear, dropout_rate, linear

__all__ = ["LoraConfig", "LoraLinear", "add_lora", "lora_layers", "merge_lora"]


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which layers are adapted, and the size of the adapters."""

    r: int = 8
    """Rank: rows of A."""
    lora_alpha: float = 16.0
    """The update is scaled by alpha / rank, so the learning rate need not change with the rank."""
    lora_dropout: float = 0.0
    """Dropout on the input of A."""
    target_modules: tuple[str, ...] = ("query", "value")
    """Names of the adapted layers: any of query, key, value, output, gate, up, down."""

    def __post_init__(self) -> None:
        if self.r < 1:
            raise ConfigError(f"r is {self.r}", hint="choose a rank of at least 1")
        if not self.target_modules:
            raise ConfigError("target_modules is empty", hint="for example query and value")


class LoraLinear(Linear):
    """A linear layer with an adapter. Shape: (…, in) to (…, out)."""

    def __init__(self, base: nn.Linear, *, rank: int, scale: float, dropout: float = 0.0) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = base.out_features, base.in_features
        # Shared with the base, not copied.
        self.weight, self.bias = base.weight, base.bias
        self.weight.requires_grad_(False)
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.scale = scale
        self.dropout = dropout
        self.lora_a = nn.Parameter(base.weight.new_empty(rank, self.in_features))
        self.lora_b = nn.Parameter(base.weight.new_zeros(self.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.train(base.training)

    def forward(self, input: Tensor) -> Tensor:
        """Map the last dimension."""
        # The adapter trains in float32, even if the frozen weights are in bfloat16.
        thin = F.dropout(input, dropout_rate(self.dropout, self.training))
        thin = thin.to(self.lora_a.dtype)
        change = linear(linear(thin, self.lora_a), self.lora_b)
        output = linear(input, self.weight, self.bias)
        return output + (self.scale * change).to(output.dtype)

    def merged(self) -> Tensor:
        """Return the equivalent weight without an adapter. Shape: (out, in)."""
        return self.weight.detach() + self.scale * (self.lora_b @ self.lora_a).detach()


def add_lora(network: nn.Module, config: LoraConfig) -> list[str]:
    """Add adapters to the layers that a configuration names, in place.

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
    scale = config.lora_alpha / config.r
    for name in wanted:
        layer = LoraLinear(linears[name], rank=config.r, scale=scale, dropout=config.lora_dropout)
        _replace(network, name, layer)
    return wanted


def lora_layers(network: nn.Module) -> dict[str, LoraLinear]:
    """Return the adapted layers by name."""
    return {n: module for n, module in network.named_modules() if isinstance(module, LoraLinear)}


@torch.no_grad()
def merge_lora(network: nn.Module) -> None:
    """Merge the adapters into the weights, in place; the network's outputs are unchanged."""
    for name, layer in lora_layers(network).items():
        plain = Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        plain.weight = nn.Parameter(layer.merged(), requires_grad=False)
        plain.bias = layer.bias
        _replace(network, name, plain.train(layer.training))


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)
