"""Concat pooling: last state, maximum and mean over the tokens (ULMFiT, 1801.06146)."""

from __future__ import annotations

import torch
from torch import Tensor

from idiolect.encoding.pooling import pool

__all__ = ["concat_pool"]


def concat_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Pool the hidden states of each text to [last, max, mean]; zero for an empty mask.

    The last state is that of a text's last token. Padding is excluded, so the result does not
    depend on the other texts in the batch.

    Shape: hidden (batch, length, width), mask (batch, length), result (batch, 3·width).

    Args:
        hidden: Hidden states.
        mask: True for the tokens to pool, which must be contiguous.
    """
    mask = mask.bool()
    largest = hidden.masked_fill(~mask[..., None], -torch.inf).amax(1)
    largest = largest.masked_fill(~mask.any(1, keepdim=True), 0.0)
    return torch.cat([pool("last", hidden, mask), largest, pool("mean", hidden, mask)], -1)
