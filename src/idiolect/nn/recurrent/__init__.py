"""Recurrent networks: cells written as equations, layers with fused kernels, language models."""

from idiolect.nn.recurrent.recurrent_cells import CellKind, CellWeights, State, step, unroll
from idiolect.nn.recurrent.recurrent_config import RecurrentConfig
from idiolect.nn.recurrent.recurrent_gradients import gradients_through_time
from idiolect.nn.recurrent.recurrent_layer import RecurrentLayer, Sequences
from idiolect.nn.recurrent.recurrent_network import RecurrentNetwork
from idiolect.nn.recurrent.recurrent_state import RecurrentCache
from idiolect.nn.recurrent.vanishing_gradients import (
    penalize_vanishing,
    state_gradients,
    vanishing_penalty,
)

__all__ = [
    "CellKind",
    "CellWeights",
    "RecurrentCache",
    "RecurrentConfig",
    "RecurrentLayer",
    "RecurrentNetwork",
    "Sequences",
    "State",
    "gradients_through_time",
    "penalize_vanishing",
    "state_gradients",
    "step",
    "unroll",
    "vanishing_penalty",
]
