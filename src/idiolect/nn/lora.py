"""Low-rank adapters: a frozen linear map plus a product of two thin matrices that is trained.

W·x becomes W·x + (alpha / rank)·B·A·x with A (rank, in) and B (out, rank); B starts at zero, so an
adapted network begins as the network it was (Hu et al. 2021, 2106.09685). The adapted layer keeps
the names `weight` and `bias`, so whatever reads the network by names still does.
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
    """Which layers are adapted, and how far."""

    rank: int = 8
    """Rows of A."""
    alpha: float = 16.0
    """The change is scaled by alpha / rank, so another rank needs no other learning rate."""
    dropout: float = 0.0
    """On what A reads."""
    targets: tuple[str, ...] = ("query", "value")
    """Names of layers: query, key, value, output, gate, up, down."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"an adapter of rank {self.rank}", hint="at least 1")
        if not self.targets:
            raise ConfigError("an adapter without targets", hint="for example query and value")


class LoraLinear(Linear):
    """A linear map with an adapter. Shape: (…, in) to (…, out)."""

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
        thin = F.dropout(input, dropout_rate(self.dropout, self.training))
        change = linear(linear(thin, self.lora_a), self.lora_b)
        return linear(input, self.weight, self.bias) + self.scale * change

    def merged(self) -> Tensor:
        """Return the weight that does the same without an adapter. Shape: (out, in)."""
        return self.weight.detach() + self.scale * (self.lora_b @ self.lora_a).detach()


def add_lora(network: nn.Module, config: LoraConfig) -> list[str]:
    """Adapt the layers a configuration names, in place.

    Returns:
        The names of the adapted layers.

    Raises:
        ConfigError: A target fits no layer, or a layer is adapted already.
    """
    linears = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[0]
    }
    kinds = {name.rpartition(".")[2] for name in linears}
    unknown = set(config.targets) - kinds
    if unknown:
        raise ConfigError(
            f"no layer is called {sorted(unknown)[0]!r}", hint="one of " + ", ".join(sorted(kinds))
        )
    # Heads have layers of the same names; they are trained as they are or not at all.
    wanted = [
        name
        for name in linears
        if name.rpartition(".")[2] in config.targets and not name.startswith(("heads.", "pooler."))
    ]
    if any(isinstance(linears[name], LoraLinear) for name in wanted):
        raise ConfigError("the network has an adapter already", hint="merge it first")
    scale = config.alpha / config.rank
    for name in wanted:
        layer = LoraLinear(linears[name], rank=config.rank, scale=scale, dropout=config.dropout)
        _replace(network, name, layer)
    return wanted


def lora_layers(network: nn.Module) -> dict[str, LoraLinear]:
    """Return the adapted layers by name."""
    return {n: module for n, module in network.named_modules() if isinstance(module, LoraLinear)}


@torch.no_grad()
def merge_lora(network: nn.Module) -> None:
    """Fold the adapters into the weights, in place; the network computes the same as before."""
    for name, layer in lora_layers(network).items():
        plain = Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        plain.weight = nn.Parameter(layer.merged(), requires_grad=False)
        plain.bias = layer.bias
        _replace(network, name, plain.train(layer.training))


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)
