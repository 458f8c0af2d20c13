"""Ω, a regulariser against vanishing gradients, for plain networks (Pascanu et al. 2013)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from idiolect.errors import ConfigError
from idiolect.nn.recurrent.recurrent_layer import RecurrentLayer

__all__ = ["penalize_vanishing", "state_gradients", "vanishing_penalty"]


def penalize_vanishing(layer: RecurrentLayer, states: Tensor, weight: float) -> Tensor:
    """Return the states unchanged; a backward pass through them adds the gradient of Ω.

    Ω depends on the gradient of the loss, so it is known only in the backward pass: it trains the
    layer, but is not part of the reported loss. It is multiplied by the number of states, because
    the summed loss is later divided by the number of tokens.

    Shape: states and result (batch, length, hidden_size).

    Args:
        layer: A plain recurrent layer.
        states: Its states h_1 … h_T.
        weight: The weight of Ω.

    Raises:
        ConfigError: As for `vanishing_penalty`.
    """
    _check_plain(layer)
    result: Tensor = _PenalizeVanishing.apply(  # type: ignore[no-untyped-call]
        states, layer.weight_hh, layer, weight * states[..., 0].numel()
    )
    return result


class _PenalizeVanishing(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight_hh: Tensor, layer: RecurrentLayer, scale: float
    ) -> Tensor:
        ctx.save_for_backward(states)
        ctx.layer, ctx.scale = layer, scale
        return states.view_as(states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, immediate: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        if not ctx.needs_input_grad[1]:  # a frozen matrix
            return immediate, None, None, None
        (states,) = ctx.saved_tensors
        grads = state_gradients(ctx.layer, states, immediate)
        with torch.enable_grad():
            penalty = ctx.scale * vanishing_penalty(ctx.layer, states, grads)
        (grad,) = torch.autograd.grad(penalty, ctx.layer.weight_hh)
        return immediate, grad, None, None


@torch.no_grad()
def state_gradients(layer: RecurrentLayer, states: Tensor, immediate: Tensor) -> Tensor:
    """Return ∂E/∂h_t along all paths, from the gradients that the outputs receive directly.

    Shape: states, immediate and result (batch, length, hidden_size).

    Args:
        layer: A plain recurrent layer.
        states: Its states h_1 … h_T.
        immediate: The gradient of E with respect to each state as an output, as autograd returns it
            for the layer's output.

    Raises:
        ConfigError: As for `vanishing_penalty`.
    """
    slopes = _slopes(layer, states)
    grads = [immediate[:, -1]]
    for t in range(states.shape[1] - 2, -1, -1):
        grads.append(immediate[:, t] + (grads[-1] * slopes[:, t + 1]) @ layer.weight_hh)
    return torch.stack(grads[::-1], dim=1)


def vanishing_penalty(layer: RecurrentLayer, states: Tensor, grads: Tensor) -> Tensor:
    """Return Ω, which is small if a gradient keeps its norm from each step to the previous one.

        Ω = mean over texts of Σ_t ( ‖δ_{t+1} J_t‖ / ‖δ_{t+1}‖ - 1 )²,   δ_t = ∂E/∂h_t

    As in Pascanu et al. (2013), only the immediate partial derivative is used: states and δ are
    treated as constants, so only the state-to-state matrix receives a gradient of Ω.

    Shape: states and grads (batch, length, hidden_size), result a scalar.

    Args:
        layer: A plain recurrent layer.
        states: Its states h_1 … h_T.
        grads: δ, as `state_gradients` returns it.

    Raises:
        ConfigError: The layer has gates, for which Ω is not defined.
    """
    states, grads = states.detach(), grads.detach()
    later = grads[:, 1:]
    back = (later * _slopes(layer, states)[:, 1:]) @ layer.weight_hh
    lengths = later.norm(dim=-1)
    kept = lengths > 1e-20  # a gradient of zero has no norm to preserve
    ratio = back.norm(dim=-1)[kept] / lengths[kept]
    penalty: Tensor = (ratio - 1).square().sum() / len(states)
    return penalty


def _check_plain(layer: RecurrentLayer) -> None:
    if layer.kind not in ("tanh", "relu"):
        raise ConfigError(
            f"the regulariser Ω is defined for plain networks, and this layer is {layer.kind}",
            hint="use rnn; gates keep gradients by themselves",
        )


def _slopes(layer: RecurrentLayer, states: Tensor) -> Tensor:
    """Return the derivative of the nonlinearity at each state."""
    _check_plain(layer)
    return 1 - states.square() if layer.kind == "tanh" else (states > 0).to(states.dtype)
