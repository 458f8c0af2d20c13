"""Run embedded texts through a stack, packed on a CPU and padded elsewhere.

On a CPU padding is removed first and attention runs document by document. With a cache, and on an
accelerator, the texts stay in a padded grid, since their kernels need a rectangle.
"""

from __future__ import annotations

import torch
from torch import Tensor

from idiolect.errors import InputError
from idiolect.nn.attention import Visibility
from idiolect.nn.cache import Cache
from idiolect.nn.packing import Packing, positions_and_documents
from idiolect.nn.stack import Stack

__all__ = ["run_stack"]


def run_stack(
    stack: Stack,
    x: Tensor,
    mask: Tensor | None,
    *,
    causal: bool,
    position_ids: Tensor | None = None,
    prefix_mask: Tensor | None = None,
    cache: Cache | None = None,
    memory: Tensor | None = None,
    memory_mask: Tensor | None = None,
) -> Tensor:
    """Return the hidden states; zero at padding if the grid was packed.

    Shape: x and the result (batch, length, width).

    Args:
        stack: An encoder or a decoder.
        x: The embedded texts; with a cache, only the new tokens.
        mask: As in `Transformer.forward`.
        causal: Whether a token sees only those before it and itself.
        position_ids: Position of each token, if not its place in its text.
        prefix_mask: Tokens that all tokens of their text see, although causal.
        cache: Keys and values of earlier tokens.
        memory: The encoder's hidden states, for cross-attention. Shape: (batch, any, width).
        memory_mask: The encoder's mask.

    Raises:
        InputError: A text is longer than the stack's positions, or has no source text; or given
            positions or a prefix are not possible with the stack or a cache.
    """
    on_cpu = x.device.type == "cpu"
    if position_ids is not None or prefix_mask is not None:
        _check_given(stack, x, position_ids, prefix_mask, causal, cache)
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.long, device=x.device)
        if on_cpu:
            given = position_ids, None if prefix_mask is None else prefix_mask.bool()
            return _run_packed(stack, x, mask, causal, memory, memory_mask, *given)
    if mask is not None and on_cpu and bool((mask == 1).all()):
        mask = None
    if mask is not None and on_cpu and cache is None:
        return _run_packed(stack, x, mask, causal, memory, memory_mask)
    past, length = cache.length if cache is not None else 0, x.shape[1]
    documents = None
    all_positions = torch.arange(past + length, device=x.device)
    if mask is not None:
        all_positions, documents = positions_and_documents(mask)
    # On an accelerator, inspecting the mask would make the host wait for the device.
    if mask is None:
        stack.check_length(past + length)
    elif on_cpu and mask.numel():
        stack.check_length(int(all_positions.max()) + 1)
    positions = all_positions[..., past:]
    visibility = Visibility(
        causal=causal,
        prefix=None if prefix_mask is None else prefix_mask.bool(),
        query_positions=positions,
        key_positions=all_positions,
        query_documents=None if documents is None else documents[:, past:],
        key_documents=documents,
        bias=None if stack.score_bias is None else stack.score_bias(positions, all_positions),
    )
    memory_visibility = None
    if memory is not None:
        memory_visibility = Visibility(
            causal=False,
            query_positions=positions,
            key_positions=torch.arange(memory.shape[1], device=x.device),
            query_documents=None if documents is None else documents[:, past:],
            key_documents=None if memory_mask is None else memory_mask.long(),
        )
    hidden: Tensor = stack(
        x,
        visibility,
        positions if position_ids is None else position_ids,
        memory=memory,
        memory_visibility=memory_visibility,
        cache=cache,
    )
    return hidden


def _check_given(
    stack: Stack,
    x: Tensor,
    position_ids: Tensor | None,
    prefix_mask: Tensor | None,
    causal: bool,
    cache: Cache | None,
) -> None:
    """Refuse positions and prefixes that the stack cannot use."""
    if cache is not None:
        raise InputError("position_ids and prefix_mask need the whole text", hint="omit the cache")
    for name, given in (("position_ids", position_ids), ("prefix_mask", prefix_mask)):
        if given is not None and given.shape != x.shape[:2]:
            raise InputError(f"{name} {tuple(given.shape)} for ids {tuple(x.shape[:2])}")
    if position_ids is not None and stack.score_bias is not None:
        raise InputError(
            "the network scores distances, which given positions would not change",
            hint="omit position_ids",
        )
    if prefix_mask is not None and (not causal or stack.windows != {None}):
        raise InputError(
            "a prefix is read both ways in a decoder that attends to all earlier tokens",
            hint="omit prefix_mask",
        )


def _run_packed(
    stack: Stack,
    x: Tensor,
    mask: Tensor,
    causal: bool,
    memory: Tensor | None,
    memory_mask: Tensor | None,
    position_ids: Tensor | None = None,
    prefix_mask: Tensor | None = None,
) -> Tensor:
    packing = Packing.of(mask)
    packed_positions = packing.positions
    if position_ids is not None:
        packed_positions = packing.pack(position_ids[..., None]).squeeze(-1)
    if len(packed_positions):
        stack.check_length(int(packed_positions.max()) + 1)
    positions = torch.arange(packing.longest, device=packing.index.device)
    visibility = Visibility(
        causal=causal,
        query_positions=positions,
        key_positions=positions,
        bias=None if stack.score_bias is None else stack.score_bias(positions, positions),
        spans=[(span, span) for span in packing.spans],
        prefix=None if prefix_mask is None else packing.pack(prefix_mask[..., None]).squeeze(-1),
    )
    memory_visibility = None
    if memory is not None:
        memory, memory_visibility = _packed_memory(packing, memory, memory_mask)
    packed = stack(
        packing.pack(x),
        visibility,
        packed_positions,
        memory=memory,
        memory_visibility=memory_visibility,
    )
    return packing.unpack(packed)


def _packed_memory(
    packing: Packing, memory: Tensor, memory_mask: Tensor | None
) -> tuple[Tensor, Visibility]:
    """Pack the encoder's states; a decoder's document attends to the one with its number."""
    if memory_mask is None:
        memory_mask = torch.ones(memory.shape[:2], dtype=torch.bool, device=memory.device)
    other = Packing.of(memory_mask)
    sources = dict(zip(other.documents, other.spans, strict=True))
    alone = [document for document in packing.documents if document not in sources]
    if alone:
        raise InputError(
            f"text {alone[0][0]} of the batch has a target and no source",
            hint="pass input_ids for every text",
        )
    pairs = [
        (span, sources[document])
        for span, document in zip(packing.spans, packing.documents, strict=True)
    ]
    visibility = Visibility(
        causal=False,
        query_positions=torch.arange(packing.longest, device=memory.device),
        key_positions=torch.arange(other.longest, device=memory.device),
        spans=pairs,
    )
    return other.pack(memory), visibility
