"""RNN, LSTM and GRU in plain code: one step, written as its equations.

    input        x_t, the layer's input at time t                        (batch, input_size)
    state        h_t, and in an LSTM also the cell state c_t             (batch, hidden_size)
    U, W         matrices applied to input and state; the rows of all gates are concatenated
    a, b         their biases (torch has both)

The library uses torch's fused kernels (`RecurrentLayer`), which return only the last states. These
functions show what the kernels compute, are the reference for them in tests, and return every
intermediate state, which `gradients_through_time` needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["CellKind", "CellWeights", "State", "step", "unroll"]

CellKind = Literal["tanh", "relu", "lstm", "gru"]
"""The kind of a recurrent cell."""

State = tuple[Tensor, ...]
"""(h,), or (h, c) of an LSTM. Shape of each: (batch, hidden_size)."""


@dataclass(frozen=True)
class CellWeights:
    """The weights of one layer, in torch's layout."""

    U: Tensor
    """From input to gates. (gates · hidden_size, input_size)."""
    W: Tensor
    """From state to gates. (gates · hidden_size, hidden_size)."""
    a: Tensor
    """The bias of U. (gates · hidden_size,)."""
    b: Tensor
    """The bias of W. (gates · hidden_size,)."""


def _tanh_step(x: Tensor, state: State, w: CellWeights) -> State:
    """h_t = tanh(U x_t + a + W h_{t-1} + b)."""
    (h,) = state
    return (torch.tanh(x @ w.U.T + w.a + h @ w.W.T + w.b),)


def _relu_step(x: Tensor, state: State, w: CellWeights) -> State:
    """h_t = max(0, U x_t + a + W h_{t-1} + b)."""
    (h,) = state
    return (torch.relu(x @ w.U.T + w.a + h @ w.W.T + w.b),)


def _lstm_step(x: Tensor, state: State, w: CellWeights) -> State:
    """Update a cell state, with gates that control what is written, forgotten and output.

        i, f, o = σ(…)      input, forget and output gate
        g       = tanh(…)   candidate values
        c_t     = f · c_{t-1} + i · g
        h_t     = o · tanh(c_t)

    No matrix is applied between c_{t-1} and c_t: where f is 1, a gradient passes unchanged.
    """
    h, c = state
    i, f, g, o = (x @ w.U.T + w.a + h @ w.W.T + w.b).chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return (torch.sigmoid(o) * torch.tanh(c), c)


def _gru_step(x: Tensor, state: State, w: CellWeights) -> State:
    """Interpolate between the previous and a new state, weighted by the update gate.

        r, z = σ(…)                              reset and update gate
        n    = tanh(U_n x_t + a_n + r · (W_n h_{t-1} + b_n))
        h_t  = (1 - z) · n + z · h_{t-1}

    As in torch and cuDNN, r is applied after the matrix product; in the paper, before it.
    """
    (h,) = state
    r_x, z_x, n_x = (x @ w.U.T + w.a).chunk(3, dim=-1)
    r_h, z_h, n_h = (h @ w.W.T + w.b).chunk(3, dim=-1)
    r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
    n = torch.tanh(n_x + r * n_h)
    return ((1 - z) * n + z * h,)


_STEPS: dict[CellKind, Callable[[Tensor, State, CellWeights], State]] = {
    "tanh": _tanh_step,
    "relu": _relu_step,
    "lstm": _lstm_step,
    "gru": _gru_step,
}


def step(kind: CellKind, x: Tensor, state: State, weights: CellWeights) -> State:
    """Compute one step of a cell.

    Shape: x (batch, input_size), each tensor of a state (batch, hidden_size).

    Args:
        kind: The kind of cell.
        x: The input.
        state: The previous state.
        weights: The layer's weights.
    """
    return _STEPS[kind](x, state, weights)


def unroll(kind: CellKind, xs: Tensor, state: State, weights: CellWeights) -> Sequence[State]:
    """Return the states after each step of a sequence.

    Shape: xs (batch, length, input_size), each tensor of a state (batch, hidden_size).

    Args:
        kind: The kind of cell.
        xs: The inputs.
        state: The state before the first step.
        weights: The layer's weights.
    """
    states = []
    for x in xs.unbind(1):
        state = step(kind, x, state, weights)
        states.append(state)
    return states
