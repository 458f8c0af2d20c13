"""How much a loss depends on each attention head, and the cost of pruning the least important.

The importance of a head is E|∂L/∂ξ|, where ξ = 1 scales the head's output: |Aᵀ ∂L/∂A|,
averaged over texts, and scaled to length one in each layer (Michel et al. 2019, 1905.10650).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from idiolect.encoding.encoder import Encoder
from idiolect.errors import InputError
from idiolect.nn.attention import Attention
from idiolect.tasks.probes.layer_states import self_attentions

__all__ = ["PruningCurve", "head_importance", "prune_heads", "pruned", "pruning_curve"]

_Head = tuple[int, int]
"""Index of the layer and of the head in it."""


@dataclass(frozen=True)
class PruningCurve:
    """A metric after pruning some share of the heads."""

    shares: tuple[float, ...]
    """Shares of the heads."""
    by_importance: list[float]
    """The metric without the least important heads."""
    random: list[list[float]]
    """The metric without random heads: a list for each share, with a value for each seed."""
    measure: str
    """Name of the metric."""
    higher_is_better: bool
    """Whether a higher value is better."""


def head_importance(
    encoder: Encoder, batches: Iterable[Callable[[], Tensor]]
) -> NDArray[np.float64]:
    """Return the importance of each head. Shape: (layers, heads).

    Args:
        encoder: The encoder, whose network computes the losses.
        batches: Each computes the loss summed over texts of equal length, without padding.

    Raises:
        InputError: The network has no attention heads.
    """
    attentions = self_attentions(encoder)
    if not attentions:
        raise InputError("this network has no attention heads", hint="probe its layers instead")
    total = torch.zeros(len(attentions), attentions[0].heads, dtype=torch.float64)
    encoder.model.network.eval()
    for compute_loss in batches:
        with torch.enable_grad(), _gates(attentions) as gates:
            loss = compute_loss()
            # One gate for each text, so that gradients of different texts do not cancel.
            slopes = torch.autograd.grad(loss, [gate for layer in gates for gate in layer])
        position = 0
        for number, layer in enumerate(gates):
            for slope in slopes[position : position + len(layer)]:
                total[number] += slope.double().abs().sum((0, 1, 3)).cpu()
            position += len(layer)
    length = total.norm(dim=1, keepdim=True).clamp(min=1e-30)
    found: NDArray[np.float64] = (total / length).numpy()
    return found


@contextmanager
def _gates(attentions: Sequence[Attention]) -> Iterator[list[list[Tensor]]]:
    """Multiply the output of each head of each text by 1, once for each pass through a layer."""
    gates: list[list[Tensor]] = [[] for _ in attentions]

    def hook(number: int, attention: Attention) -> Callable[..., Any]:
        def gate(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            states = arguments[0]
            ones = torch.ones(len(states), 1, attention.heads, 1, device=states.device)
            gates[number].append(ones.requires_grad_())
            split = states.view(*states.shape[:-1], attention.heads, attention.width)
            return ((split * ones).flatten(-2),)

        return gate

    with ExitStack() as stack:
        for number, attention in enumerate(attentions):
            handle = attention.output.register_forward_pre_hook(hook(number, attention))
            stack.callback(handle.remove)
        yield gates


def prune_heads(encoder: Encoder, heads: Iterable[_Head]) -> None:
    """Prune heads permanently by setting their columns of the output matrix to zero.

    Shapes do not change, so the model is saved and loaded as before.

    Args:
        encoder: The encoder, whose network is changed in place.
        heads: Layers and heads, from 0.

    Raises:
        InputError: There is no such head, or its weights are quantised.
    """
    attentions = self_attentions(encoder)
    for layer, head in heads:
        if not (0 <= layer < len(attentions) and 0 <= head < attentions[layer].heads):
            raise InputError(f"there is no head {head} in layer {layer}", hint="both count from 0")
        attention = attentions[layer]
        weight = attention.output.weight
        if not isinstance(weight, nn.Parameter):
            raise InputError("the weights are quantised", hint="load them in full precision")
        with torch.no_grad():
            weight[:, head * attention.width : (head + 1) * attention.width] = 0


@contextmanager
def pruned(encoder: Encoder, heads: Iterable[_Head]) -> Iterator[None]:
    """Prune heads until the context exits."""
    weights = [attention.output.weight for attention in self_attentions(encoder)]
    kept = [weight.detach().clone() for weight in weights]
    try:
        prune_heads(encoder, heads)
        yield
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, kept, strict=True):
                weight.copy_(old)


def pruning_curve(
    encoder: Encoder,
    importance: NDArray[np.float64],
    measure: Callable[[], float],
    *,
    name: str,
    higher_is_better: bool,
    shares: Sequence[float] = (0.0, 0.2, 0.4),
    seeds: int = 3,
) -> PruningCurve:
    """Measure a model without its least important heads, and without random ones.

    Args:
        encoder: The encoder.
        importance: Shape: (layers, heads).
        measure: Returns the measure of the encoder as it is.
        name: What is measured.
        higher_is_better: Whether a higher number is better.
        shares: Shares of the heads to prune.
        seeds: How many random choices.
    """
    layers, heads = importance.shape
    every = [(layer, head) for layer in range(layers) for head in range(heads)]
    order = np.argsort(importance.flatten(), kind="stable")
    by_importance, random = [], []

    def measured(chosen: Sequence[int]) -> float:
        with pruned(encoder, [every[i] for i in chosen]):
            return measure()

    whole = measure()
    for share in shares:
        count = round(share * len(every))
        if not count:
            by_importance.append(whole)
            random.append([whole] * seeds)
            continue
        by_importance.append(measured(order[:count].tolist()))
        random.append(
            [
                measured(np.random.default_rng(seed).permutation(len(every))[:count].tolist())
                for seed in range(seeds)
            ]
        )
    return PruningCurve(tuple(shares), by_importance, random, name, higher_is_better)
