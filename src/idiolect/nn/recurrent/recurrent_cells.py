"""RNN, LSTM and GRU as plain code: one step, written as its equations are.

    input        x_t, what a layer reads at time t                       (batch, input_size)
    state        h_t, and in an LSTM also the memory c_t                 (batch, hidden_size)
    U, W         the matrices from input and from state; rows of all gates one below the other
    a, b         their biases (torch keeps both)

The library computes with torch's fused kernels (`RecurrentLayer`), which return only the last
states. These steps show what the kernels compute, are their reference in tests, and keep what the
kernels discard: every state in between, which `gradients_through_time` needs.
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
    """Keep a memory to which gates write, and of which they forget and show parts.

        i, f, o = σ(…)      input, forget and output gate
        g       = tanh(…)   what is new
        c_t     = f · c_{t-1} + i · g
        h_t     = o · tanh(c_t)

    From c_{t-1} to c_t there is no matrix: where f is 1, a gradient passes unchanged.
    """
    h, c = state
    i, f, g, o = (x @ w.U.T + w.a + h @ w.W.T + w.b).chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return (torch.sigmoid(o) * torch.tanh(c), c)


def _gru_step(x: Tensor, state: State, w: CellWeights) -> State:
    """Move from the old state towards a new one, as far as a gate says.

        r, z = σ(…)                              reset and update gate
        n    = tanh(U_n x_t + a_n + r · (W_n h_{t-1} + b_n))
        h_t  = (1 - z) · n + z · h_{t-1}

    As in torch and cuDNN, r multiplies after the matrix; in the paper it does before.
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
        state: The state before.
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
