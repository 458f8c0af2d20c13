"""Attention over a paged cache; see `PagedPass`."""

from __future__ import annotations

import torch
from torch import Tensor

from idiolect.nn.attention import Attention
from idiolect.nn.basic import softcap
from idiolect.nn.paging.paged_cache import LayerPages

__all__ = ["attend_pages"]


def attend_pages(
    attention: Attention, x: Tensor, rotation: tuple[Tensor, Tensor] | None, cache: LayerPages
) -> Tensor:
    """Write new keys and values, and attend to those of each token's own text.

    Shape: x (tokens, width), also the result.

    Args:
        attention: The self-attention of a layer.
        x: The packed tokens.
        rotation: Rotary cosines and sines of the tokens.
        cache: The layer's pages, with the current pass.
    """
    query, key, value = attention.project(x, rotation)
    cache.write(key, value)
    now, parts = cache.now, []
    if now.singles:
        parts.append(_attend_singles(attention, query[: now.singles], cache))
    for text in now.prompts:
        if text.pages is None:
            keys, values = (
                part[text.start : text.end].transpose(0, 1)[None] for part in (key, value)
            )
        else:
            keys, values = cache.read(text.pages, text.visibility.key_positions.shape[-1])
        visibility = text.visibility
        mask, causal = visibility.mask(attention.window, query)
        positions = visibility.query_positions, visibility.key_positions
        queries = query[text.start : text.end].transpose(0, 1)[None]
        attended = attention.attend(queries, keys, values, mask, causal, positions)
        parts.append(attended[0].transpose(0, 1))
    return attention.finish(parts[0] if len(parts) == 1 else torch.cat(parts))


def _attend_singles(attention: Attention, query: Tensor, cache: LayerPages) -> Tensor:
    """Attend from one token per text. Shape: (texts, heads, width), also the result."""
    now, heads, scale = cache.now, attention.key_heads, attention.scale
    assert scale is not None
    texts, width = len(query), query.shape[-1]
    # Query heads that share a key head are treated as its queries.
    query = (query * scale).view(texts, heads, -1, width)
    folded = query.shape[2]
    of_pairs = query[now.queries]
    block, shared = now.block, now.shared
    scores = of_pairs[: now.used] @ cache.keys[block].mT
    if now.owners:
        # (shared, owners, key heads, folded, width): all owners of a page are queries of it, too.
        grouped = (
            of_pairs[now.used :].view(len(shared), now.owners, heads, folded, width).transpose(1, 2)
        )
        more = grouped.flatten(2, 3) @ cache.keys[shared].mT
        more = more.view(len(shared), heads, now.owners, folded, -1).transpose(1, 2).flatten(0, 1)
        scores = torch.cat([scores, more])
    # (texts, columns, key heads, folded, page size) to (texts, heads, 1, keys).
    scores = scores[now.table].permute(0, 2, 3, 1, 4)
    shape = scores.shape
    scores = scores.reshape(texts, heads * folded, 1, -1)
    if attention.softcap is not None:
        scores = softcap(scores, attention.softcap)
    if now.bias is not None:
        scores = scores + now.bias.to(scores.dtype)
    scores = scores.masked_fill(~now.visible(attention.window), float("-inf"))
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype).view(shape)
    of_pages = weights.permute(0, 3, 1, 2, 4)[now.queries, now.page_columns]
    parts = of_pages[: now.used] @ cache.values[block]
    # An additional row receives the entries that belong to no text.
    result = query.new_zeros(texts + 1, *query.shape[1:])
    result.index_add_(0, now.rows[: now.used], parts)
    if now.owners:
        grouped = (
            of_pages[now.used :].reshape(len(shared), now.owners, heads, folded, -1).transpose(1, 2)
        )
        parts = grouped.flatten(2, 3) @ cache.values[shared]
        parts = (
            parts.view(len(shared), heads, now.owners, folded, width).transpose(1, 2).flatten(0, 1)
        )
        result.index_add_(0, now.rows[now.used :], parts)
    return result[:texts].flatten(1, 2)
