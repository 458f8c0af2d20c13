"""Gradient checkpointing: recompute a layer's activations in the backward pass.

Only the input of each layer stays in memory, for about a third more computation (Chen et al. 2016,
1604.06174). Dropout uses the same random numbers both times, so the gradients are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ["recomputed"]


@contextmanager
def recomputed(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Recompute the activations of blocks in the backward pass, until the context exits.

    Args:
        blocks: The layers, such as `Network.blocks`.
    """
    changed = list(blocks)
    for block in changed:
        block.forward = _recomputing(block.forward)
    try:
        yield
    finally:
        for block in changed:
            del block.forward


def _recomputing(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run
