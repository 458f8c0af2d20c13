"""Run embedded texts through a stack, packed on a CPU and padded elsewhere.

On a CPU padding is removed first, and attention runs document by document. With a cache, and on an
accelerator, the texts stay in a padded grid, because the kernels need rectangular tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from idiolect.errors import InputError
from idiolect.nn.attention import Visibility
from idiolect.nn.basic import can_inspect
from idiolect.nn.cache import Cache
from idiolect.nn.packing import Packing, positions_and_documents
from idiolect.nn.paging.paged_cache import PagedCache
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
    cache: Cache | PagedCache | None = None,
    memory: Tensor | None = None,
    memory_mask: Tensor | None = None,
    prefix: Sequence[tuple[Tensor, Tensor]] = (),
) -> Tensor:
    """Return the hidden states; zero at padding if the grid was packed.

    Shape: x and the result (batch, length, width).

    Args:
        stack: An encoder or a decoder.
        x: The embedded texts; with a cache, only the new tokens.
        mask: As in `Transformer.forward`.
        causal: Whether a token attends only to itself and earlier tokens.
        position_ids: Position of each token; by default its index in its text.
        prefix_mask: Tokens that all tokens of their text attend to, even in causal attention.
        cache: Keys and values of earlier tokens; if they are in pages, `x` is one packed row.
        memory: The encoder's hidden states, for cross-attention. Shape: (batch, any, width).
        memory_mask: The encoder's mask.
        prefix: Keys and values of each layer before every text; an empty cache keeps them.
            Shape: (key heads, n, head width).

    Raises:
        InputError: A text is longer than the stack's positions, or has no source text; or the stack
            or the cache does not support the given positions or prefix.
    """
    if isinstance(cache, PagedCache):
        return _run_paged(stack, x, cache)
    if position_ids is not None or prefix_mask is not None:
        _check_given(stack, x, position_ids, prefix_mask, causal, cache)
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.long, device=x.device)
        if can_inspect(mask):
            given = position_ids, None if prefix_mask is None else prefix_mask.bool()
            return _run_packed(stack, x, mask, causal, memory, memory_mask, (), *given)
    is_known = mask is not None and can_inspect(mask)
    if mask is not None and is_known and bool((mask == 1).all()):
        mask = None
    if mask is not None and is_known and cache is None:
        return _run_packed(stack, x, mask, causal, memory, memory_mask, prefix)
    before = prefix[0][0].shape[1] if prefix else 0
    if cache is not None:
        cache.begin(prefix, len(x))
        before, prefix = cache.prefix, ()
    past, length = cache.length if cache is not None else 0, x.shape[1]
    documents = None
    all_positions = torch.arange(past + length, device=x.device)
    if mask is not None:
        all_positions, documents = positions_and_documents(mask)
    if mask is None:
        stack.check_length(before + past + length)
    elif is_known and mask.numel():
        stack.check_length(before + int(all_positions.max()) + 1)
    query_documents = None if documents is None else documents[:, past:]
    if before:
        first = torch.arange(before, device=x.device)
        first = first.expand(*all_positions.shape[:-1], before)
        all_positions = torch.cat([first, all_positions + before], dim=-1)
        if documents is not None:
            documents = torch.cat([documents.new_ones(len(documents), before), documents], dim=1)
    positions = all_positions[..., before + past :]
    visibility = Visibility(
        causal=causal,
        prefix_mask=None if prefix_mask is None else prefix_mask.bool(),
        query_positions=positions,
        key_positions=all_positions,
        query_documents=query_documents,
        key_documents=documents,
        bias=None if stack.score_bias is None else stack.score_bias(positions, all_positions),
        virtual_tokens=before,
    )
    memory_visibility = None
    if memory is not None:
        memory_visibility = Visibility(
            causal=False,
            query_positions=positions,
            key_positions=torch.arange(memory.shape[1], device=x.device),
            query_documents=query_documents,
            key_documents=None if memory_mask is None else memory_mask.long(),
        )
    hidden: Tensor = stack(
        x,
        visibility,
        positions if position_ids is None else position_ids,
        memory=memory,
        memory_visibility=memory_visibility,
        cache=cache,
        prefix=prefix,
    )
    return hidden


def _run_paged(stack: Stack, x: Tensor, cache: PagedCache) -> Tensor:
    """Run the texts of a paged pass; see `PagedPass`. Shape: (1, tokens, width)."""
    now = cache.begin(stack.score_bias, x.device)
    stack.check_length(now.longest)
    visibility = Visibility(causal=True, query_positions=now.positions, key_positions=now.positions)
    hidden: Tensor = stack(x[0], visibility, now.positions, cache=cache)
    return hidden[None]


def _check_given(
    stack: Stack,
    x: Tensor,
    position_ids: Tensor | None,
    prefix_mask: Tensor | None,
    causal: bool,
    cache: Cache | None,
) -> None:
    """Raise an error for positions and prefixes that the stack does not support."""
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
    prefix: Sequence[tuple[Tensor, Tensor]],
    position_ids: Tensor | None = None,
    prefix_mask: Tensor | None = None,
) -> Tensor:
    packing = Packing.of(mask)
    before = prefix[0][0].shape[1] if prefix else 0
    packed_positions = packing.positions + before
    if position_ids is not None:
        packed_positions = packing.pack(position_ids[..., None]).squeeze(-1)
    if len(packed_positions):
        stack.check_length(int(packed_positions.max()) + 1)
    keys = torch.arange(before + packing.longest, device=packing.index.device)
    positions = keys[before:]
    visibility = Visibility(
        causal=causal,
        query_positions=positions,
        key_positions=keys,
        bias=None if stack.score_bias is None else stack.score_bias(positions, keys),
        virtual_tokens=before,
        spans=[(span, span) for span in packing.spans],
        prefix_mask=None
        if prefix_mask is None
        else packing.pack(prefix_mask[..., None]).squeeze(-1),
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
        prefix=prefix,
    )
    return packing.unpack(packed)


def _packed_memory(
    packing: Packing, memory: Tensor, memory_mask: Tensor | None
) -> tuple[Tensor, Visibility]:
    """Pack the encoder's states; a decoder document attends to the source with the same number."""
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
