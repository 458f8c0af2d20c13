"""AdamW for dense and sparse gradients; for sparse ones it updates only the rows that occur."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["RowSparseAdamW", "clip_gradients"]


class RowSparseAdamW(torch.optim.AdamW):
    """AdamW (Loshchilov & Hutter 2019, 1711.05101) that also supports sparse gradients.

    A row without a gradient keeps its value and its moments, as in `torch.optim.SparseAdam`, so the
    cost of a step is proportional to the rows that occur in it. Sparse parameters have no weight
    decay.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    self._update_rows(parameter, parameter.grad.coalesce(), group)
                    parameter.grad = None
        return super().step(closure)

    def _update_rows(self, parameter: nn.Parameter, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        step, (beta1, beta2) = float(state["step"]), group["betas"]
        rows, values = grad.indices()[0], grad.values()
        mean = state["exp_avg"].index_select(0, rows).lerp_(values, 1 - beta1)
        square = state["exp_avg_sq"].index_select(0, rows).mul_(beta2)
        square.addcmul_(values, values, value=1 - beta2)
        state["exp_avg"].index_copy_(0, rows, mean)
        state["exp_avg_sq"].index_copy_(0, rows, square)
        size = square.div_(1 - beta2**step).sqrt_().add_(group["eps"])
        change = mean.div_(size).mul_(-group["lr"] / (1 - beta1**step))
        parameter.index_add_(0, rows, change)


def clip_gradients(parameters: Iterable[nn.Parameter], maximum: float) -> Tensor:
    """Scale gradients down to a norm of at most `maximum`; return the norm before.

    Args:
        parameters: Parameters with dense, sparse or no gradients.
        maximum: Maximum norm of all gradients together.
    """
    own = [parameter for parameter in parameters if parameter.grad is not None]
    if not any(parameter.grad.is_sparse for parameter in own if parameter.grad is not None):
        return nn.utils.clip_grad_norm_(own, maximum)
    grads = []
    for parameter in own:
        assert parameter.grad is not None
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            grads.append(parameter.grad.values())
        else:
            grads.append(parameter.grad)
    norm = nn.utils.get_total_norm(grads)
    for grad in grads:
        grad.mul_((maximum / (norm + 1e-6)).clamp(max=1.0))
    return norm
