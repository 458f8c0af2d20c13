"""SGD, and SGD that averages its weights once validation no longer improves (NT-ASGD)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["AveragedSGD"]

_PATIENCE = 5
"""The non-monotone interval: the number of preceding evaluations that are not compared."""


class AveragedSGD(torch.optim.SGD):
    """SGD that averages the weights once the validation loss no longer improves.

    Averaging starts when a validation loss is above the best of those more than five evaluations
    ago (Merity et al. 2017, 1708.02182, after Polyak & Juditsky 1992). The average is the mean of
    the weights after each step since then. It does not influence the steps; `finish` copies it to
    the weights.

    Args:
        groups: Groups of parameters.
        averages: Whether to average at all; otherwise this is plain SGD.
        lr: Learning rate.
    """

    def __init__(self, groups: Iterable[Any], *, averages: bool, lr: float = 0.0) -> None:
        super().__init__(list(groups), lr=lr)
        self._averages = averages

    @property
    def averaging(self) -> bool:
        """Whether averaging has started."""
        return any("average" in state for state in self.state.values())

    def observe(self, losses: list[float]) -> None:
        """Start averaging if the last validation loss meets the condition.

        Args:
            losses: All validation losses so far.
        """
        earlier = losses[:-1][:-_PATIENCE]
        if self._averages and not self.averaging and earlier and losses[-1] > min(earlier):
            for parameter in self._parameters():
                self.state[parameter]["average"] = parameter.detach().clone()
                self.state[parameter]["averaged"] = torch.zeros(())

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters, and the average."""
        result = super().step(closure)
        for parameter in self._parameters():
            state = self.state.get(parameter, {})
            if "average" in state:
                state["averaged"] += 1
                state["average"].lerp_(parameter, 1 / float(state["averaged"]))
        return result

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Use the averages as the network's weights, if there are any, until the context exits."""
        own = {parameter: parameter.detach().clone() for parameter in self._averaged()}
        self.finish()
        try:
            yield
        finally:
            for parameter, value in own.items():
                parameter.data.copy_(value)

    def finish(self) -> None:
        """Copy the averages to the weights; does nothing before averaging started."""
        for parameter, average in self._averaged().items():
            parameter.data.copy_(average)

    def _averaged(self) -> dict[nn.Parameter, Tensor]:
        found = {p: self.state.get(p, {}).get("average") for p in self._parameters()}
        return {parameter: one for parameter, one in found.items() if one is not None}

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.param_groups for parameter in group["params"]]
