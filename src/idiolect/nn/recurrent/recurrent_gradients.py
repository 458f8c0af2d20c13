"""What happens to gradients on their way back through time: they vanish, or they explode.

A gradient that goes back from step t+1 to step t is multiplied by the Jacobian of the state,
J_t = ∂h_{t+1}/∂h_t. Over many steps it shrinks to nothing where these shorten it, and grows without
bound where they lengthen it (Bengio et al. 1994; Pascanu et al. 2013, 1211.5063).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from idiolect.errors import ConfigError
from idiolect.nn.recurrent.recurrent_cells import step
from idiolect.nn.recurrent.recurrent_layer import RecurrentLayer
from idiolect.nn.recurrent.recurrent_network import RecurrentNetwork

__all__ = ["gradients_through_time", "state_gradients", "vanishing_penalty"]


def gradients_through_time(
    network: RecurrentNetwork, input_ids: Tensor, loss: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return ‖∂E/∂h_t‖ of each layer and step, along all paths through time, without dropout.

    The layers run as their equations say, since the fused kernels keep no state in between.

    Shape: input_ids (batch, length), result (layers, length).

    Args:
        network: The network; its gradients stay as they are.
        input_ids: Texts without padding.
        loss: Returns E from the last layer's states (batch, length, hidden_size).
    """
    with torch.enable_grad():
        xs = network.tokens(input_ids).detach()
        every: list[list[Tensor]] = []
        for layer in network.layers:
            assert isinstance(layer, RecurrentLayer)
            state = layer.first_state(len(xs))
            own: list[Tensor] = []
            for x in xs.unbind(1):
                state = step(layer.kind, x, state, layer.weights)
                if not own:  # frozen weights would leave the first state without a history
                    state = tuple(part.requires_grad_() if part.is_leaf else part for part in state)
                own.append(state[0])
            every.append(own)
            xs = torch.stack(own, dim=1)
        flat = [h for own in every for h in own]
        grads = torch.autograd.grad(loss(xs), flat, allow_unused=True)
    norms = [0.0 if grad is None else float(grad.norm()) for grad in grads]
    return torch.tensor(norms).view(len(every), -1)


@torch.no_grad()
def state_gradients(layer: RecurrentLayer, states: Tensor, immediate: Tensor) -> Tensor:
    """Return ∂E/∂h_t along all paths, from the gradients that the outputs receive directly.

    Shape: states, immediate and result (batch, length, hidden_size).

    Args:
        layer: A plain recurrent layer.
        states: Its states h_1 … h_T.
        immediate: The gradient of E with respect to each state as an output, as autograd returns it
            for the layer's output.
    """
    slopes = _slopes(layer, states)
    grads = [immediate[:, -1]]
    for t in range(states.shape[1] - 2, -1, -1):
        grads.append(immediate[:, t] + (grads[-1] * slopes[:, t + 1]) @ layer.weight_hh)
    return torch.stack(grads[::-1], dim=1)


def vanishing_penalty(layer: RecurrentLayer, states: Tensor, grads: Tensor) -> Tensor:
    """Return Ω, which is small where a gradient keeps its length from each step to the one before.

        Ω = mean over texts of Σ_t ( ‖δ_{t+1} J_t‖ / ‖δ_{t+1}‖ - 1 )²,   δ_t = ∂E/∂h_t

    As in Pascanu et al. (2013), only the immediate partial derivative is taken: states and δ are
    constants, so the gradient of Ω reaches the matrix from state to state alone.

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
    kept = lengths > 1e-20  # a gradient of zero has no length to keep
    ratio = back.norm(dim=-1)[kept] / lengths[kept]
    penalty: Tensor = (ratio - 1).square().sum() / len(states)
    return penalty


def _slopes(layer: RecurrentLayer, states: Tensor) -> Tensor:
    """Return the derivative of the nonlinearity at each state."""
    if layer.kind == "tanh":
        return 1 - states.square()
    if layer.kind == "relu":
        return (states > 0).to(states.dtype)
    raise ConfigError(
        f"the regulariser Ω is defined for plain networks, and this layer is {layer.kind}",
        hint="use rnn; gates keep gradients by themselves",
    )
