"""Run a stack with virtual tokens before every text."""

from __future__ import annotations

import torch
from torch import Tensor

from idiolect.errors import InputError
from idiolect.nn.cache import Cache
from idiolect.nn.prompt.virtual_tokens import LayerPrefix, PrefixTokens, VirtualTokens
from idiolect.nn.stack import Stack
from idiolect.nn.stack_forward import run_stack

__all__ = ["read_prompt", "run_prompted"]


def run_prompted(
    stack: Stack,
    virtual: VirtualTokens,
    x: Tensor,
    mask: Tensor | None,
    *,
    causal: bool,
    cache: Cache | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    """Return the hidden states of the texts alone, without those of the virtual tokens.

    Shape: x and the result (batch, length, width).

    Args:
        stack: An encoder or a decoder.
        virtual: The virtual tokens.
        x: The embedded texts; with a cache, only the new tokens.
        mask: As in `Transformer.forward`: it covers the texts, not the virtual tokens.
        causal: Whether a token attends only to itself and earlier tokens.
        cache: Keys and values of earlier tokens; the prefix is stored in an empty cache first.
        shift: Added to the rows of a prompt, as the network adds it to every embedding. (width,).

    Raises:
        InputError: A row has several documents, but the prompt must be read with each text.
    """
    if cache is not None and cache.length:
        prefix = []  # already in the cache
    elif isinstance(virtual, PrefixTokens):
        prefix = virtual.layers(x.dtype)
    else:
        rows = virtual.table().to(x.dtype)
        rows = rows if shift is None else rows + shift
        if not causal:
            return _run_together(stack, rows, x, mask)
        prefix = read_prompt(stack, rows)
    return run_stack(stack, x, mask, causal=causal, cache=cache, prefix=prefix)


def read_prompt(stack: Stack, rows: Tensor) -> list[LayerPrefix]:
    """Return the keys and values that a causal stack computes from a prompt alone.

    Shape: rows (tokens, width).
    """
    cache = Cache()
    run_stack(stack, rows[None], None, causal=True, cache=cache)
    prefix = []
    for index in range(len(stack.layers)):
        read = cache.layer(index)[0].read()
        assert read is not None
        prefix.append((read[0][0], read[1][0]))
    return prefix


def _run_together(stack: Stack, rows: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
    """Run the prompt with every text, as tokens before it."""
    count = len(rows)
    x = torch.cat([rows.expand(len(x), *rows.shape), x], dim=1)
    if mask is not None:
        if x.device.type == "cpu" and mask.numel() and int(mask.max()) > 1:
            raise InputError(
                "several documents in a row, and a prompt for each text",
                hint="give each document a row of its own, or use a prefix",
            )
        mask = torch.cat([mask.new_ones(len(mask), count), mask], dim=1)
    return run_stack(stack, x, mask, causal=False)[:, count:]
