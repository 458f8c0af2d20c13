"""Measure vanishing and exploding gradients in backpropagation through time.

From step t+1 to step t, a gradient is multiplied by the Jacobian of the state, J_t = ∂h_{t+1}/∂h_t.
Over many steps it vanishes if the Jacobians shorten it, and explodes if they lengthen it (Bengio et
al. 1994; Pascanu et al. 2013, 1211.5063).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from idiolect.nn.recurrent.recurrent_cells import step
from idiolect.nn.recurrent.recurrent_layer import RecurrentLayer
from idiolect.nn.recurrent.recurrent_network import RecurrentNetwork

__all__ = ["gradients_through_time"]


def gradients_through_time(
    network: RecurrentNetwork, input_ids: Tensor, loss: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return ‖∂E/∂h_t‖ of each layer and step, along all paths through time, without dropout.

    The layers are computed by their equations, since the fused kernels do not return intermediate
    states.
    Shape: input_ids (batch, length), result (layers, length).

    Args:
        network: The network; its gradients are unchanged.
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
