"""`RecurrentCache`: the state of a recurrent network after the text so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from idiolect.nn.recurrent.recurrent_cells import State

__all__ = ["RecurrentCache"]


class RecurrentCache:
    """The state of each layer, of the same size after any number of tokens.

    It has the interface of `idiolect.nn.cache.Cache`, so generation works with either.

    Args:
        states: The state of each layer; empty before the first token.
        length: Number of tokens read.
    """

    def __init__(self, states: Sequence[State] = (), length: int = 0) -> None:
        self.states = list(states)
        self.length = length
        """Number of tokens read, padding included."""

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> RecurrentCache:
        """Return the cache with the states that `tensors` returned."""
        layers: dict[int, dict[int, Tensor]] = {}
        for name, tensor in tensors.items():
            layer, number = map(int, name.split("."))
            layers.setdefault(layer, {})[number] = tensor
        return cls([tuple(own[n] for n in sorted(own)) for _, own in sorted(layers.items())], 1)

    def tensors(self) -> dict[str, Tensor]:
        """Return the states by layer and part: `0.0` is h of the first layer, `0.1` its c."""
        return {
            f"{layer}.{number}": part
            for layer, state in enumerate(self.states)
            for number, part in enumerate(state)
        }

    def select(self, rows: Tensor) -> None:
        """Keep the given rows of the batch, in the given order. Shape: rows (n,), int64."""
        self.states = [tuple(part[rows] for part in state) for state in self.states]

    def detached(self) -> RecurrentCache:
        """Return the same states detached from the autograd graph."""
        states = [tuple(part.detach() for part in state) for state in self.states]
        return RecurrentCache(states, self.length)
