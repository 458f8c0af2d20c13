"""Discriminative learning rates and gradual unfreezing, from the top of a network down.

    distance 0   heads and attached modules
             1   the last layer
             …
             L   the first layer
           L+1   the embedding

Discriminative fine-tuning multiplies the learning rate by `layer_decay` for each unit of distance.
Gradual unfreezing first trains distance 0, and one more distance every `unfreeze_steps` steps
(ULMFiT, Howard & Ruder 2018, 1801.06146).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from idiolect.errors import ConfigError
from idiolect.nn.network import Network

__all__ = ["GradualUnfreezing", "layer_distances", "layer_rates"]


def layer_distances(network: Network) -> dict[str, int]:
    """Return the distance of each parameter from the top of a network, by name.

    Parameters registered before the first layer count as the embedding, and those registered after
    a layer, such as a final norm, as part of that layer. An attached module, such as a classifier,
    is on the encoder of an encoder-decoder, so the decoder's layers are not counted.
    """
    blocks, attached = network.blocks, list(getattr(network, "attached", {}).values())
    if attached and network.kind == "encoder-decoder":
        encoder: Any = network.encoder
        own = {id(module) for module in encoder.modules()}
        blocks = [block for block in blocks if id(block) in own]
    layer = {id(p): number for number, one in enumerate(blocks, 1) for p in one.parameters()}
    above = [*network.head_modules, *attached]
    top = {id(parameter) for module in above for parameter in module.parameters()}
    top -= {id(parameter) for parameter in network.tokens.parameters()}  # shared with a head
    found, current = {}, 0
    for name, parameter in network.named_parameters():
        if id(parameter) in top:
            found[name] = 0
        else:
            current = max(current, layer.get(id(parameter), 0))
            found[name] = len(blocks) + 1 - current
    return found


def layer_rates(
    network: Network, rates: Mapping[str, float | None], *, usual: float, layer_decay: float
) -> dict[str, float | None]:
    """Return the maximum learning rate of each parameter, lower for each layer below the top.

    Args:
        network: The network.
        rates: Rates by parameter before the decay; `None` for the run's rate.
        usual: The run's rate.
        layer_decay: Factor on the rate from each layer to the one below it; 1 for equal rates.
    """
    if layer_decay == 1:
        return dict(rates)
    distances = layer_distances(network)
    return {
        name: (usual if rate is None else rate) * layer_decay ** distances[name]
        for name, rate in rates.items()
    }


class GradualUnfreezing:
    """Unfreeze the trained parameters step by step, from the top of the network down.

    Frozen parameters have no gradient, so the optimizer neither moves nor decays them and keeps no
    moments of them, and the layers below the lowest trained one need no backward pass.

    Args:
        network: The network.
        training: All parameters that are to train eventually, by name.
        every: Number of steps after which one more layer trains; 0 to train all from the start.
        steps: Steps of the whole run.

    Raises:
        ConfigError: The run ends before the lowest layer trains.
    """

    def __init__(
        self, network: Network, training: Mapping[str, nn.Parameter], *, every: int, steps: int
    ) -> None:
        self._training, self._every = training, every
        self._distances = layer_distances(network) if every else {}
        lowest = max((self._distances[name] for name in training), default=0) if every else 0
        if lowest * every >= steps:
            raise ConfigError(
                f"one more layer trains every {every} steps, so the lowest of {lowest + 1} groups "
                f"would train from step {lowest * every} of {steps}",
                hint="train for more epochs, or unfreeze in fewer steps",
            )

    def apply(self, step: int) -> None:
        """Freeze and unfreeze for a step, counted from 0."""
        if self._every:
            for name, parameter in self._training.items():
                parameter.requires_grad_(self._distances[name] <= step // self._every)

    def finish(self) -> None:
        """Unfreeze all parameters, as before the run."""
        for parameter in self._training.values():
            parameter.requires_grad_(True)
