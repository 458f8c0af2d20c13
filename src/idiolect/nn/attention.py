"""Multi-head attention, and the visibility of keys to queries.

Batches have one of two layouts; only attention distinguishes them:

    grid    (batch, length, width); a mask marks padding and document boundaries
    packed  (tokens, width), without padding; `spans` give the first and last token of each document

Attention over a packed batch runs document by document. It needs no mask and computes nothing for
padding or across documents, so it is used on CPUs for every batch with padding.

"Prefix" has two meanings in the literature, and a forward pass uses at most one of them: `prefix`
contains keys and values of virtual tokens before each text (prefix tuning); `prefix_mask` marks the
first tokens of a text, which have bidirectional attention (prefix language models).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idiolect.nn.basic import Linear, RMSNorm, drop, dropout_rate, softcap
from idiolect.nn.cache import LayerCache
from idiolect.nn.config import TransformerConfig
from idiolect.nn.position import RelativeTable, rotate

__all__ = ["Attention", "Span", "Visibility"]

Span = tuple[int, int]
"""Start and end (exclusive) of a document in a packed batch."""


@dataclass(kw_only=True)
class Visibility:
    """Determines which keys each query of a forward pass may attend to."""

    causal: bool
    """Whether keys after the query are hidden."""
    query_positions: Tensor
    """Position of each query in its text. Shape: (queries,) or (batch, queries)."""
    key_positions: Tensor
    """Position of each key in its text. Shape: (keys,) or (batch, keys)."""
    query_documents: Tensor | None = None
    """Grid only: document number of each query, 0 for padding. Shape: (batch, queries)."""
    key_documents: Tensor | None = None
    """Document number of each key; queries attend to their own document. Shape: (batch, keys)."""
    bias: Tensor | None = None
    """Added to the scores. Shape: (heads, queries, keys) or (batch, heads, queries, keys)."""
    spans: Sequence[tuple[Span, Span]] | None = None
    """Packed only: the spans of each document's queries and keys."""
    virtual_tokens: int = 0
    """Number of prefix keys before the text of each document."""
    prefix_mask: Tensor | None = None
    """Keys that all queries of their document attend to, even in causal attention. Bool, shape
    (batch, keys), or packed (keys,)."""
    _masks: dict[int | None, Tensor | None] = field(default_factory=dict)

    def mask(self, window: int | None, like: Tensor) -> tuple[Tensor | None, bool]:
        """Return a mask for `scaled_dot_product_attention`, or None, and its `is_causal` argument.

        Args:
            window: Number of keys a query attends to, counting itself; `None` for all.
            like: A tensor with the dtype and device of the scores.
        """
        queries, keys = self.query_positions.shape[-1], self.key_positions.shape[-1]
        narrow = window is not None and window < keys
        plain = self.key_documents is None and self.bias is None and not narrow
        plain = plain and (self.prefix_mask is None or self.spans is not None)
        if plain and (not self.causal or queries == 1):
            return None, False
        if plain and queries == keys:
            return None, True
        key = window if narrow else None
        if key not in self._masks:
            self._masks[key] = self._build(key, like)
        return self._masks[key], False

    def _build(self, window: int | None, like: Tensor) -> Tensor | None:
        """Build a mask. Shape: (queries, keys), or (batch, 1 or heads, queries, keys)."""
        query = self.query_positions[..., :, None]
        key = self.key_positions[..., None, :]
        visible = None
        if self.causal:
            visible = key <= query
            if self.prefix_mask is not None and self.spans is None:
                visible = visible | self.prefix_mask[:, None, :]
        if window is not None:
            near = key > query - window
            if not self.causal:
                near &= key < query + window
            visible = near if visible is None else visible & near
        if visible is not None and visible.dim() == 3:
            visible = visible[:, None]
        if self.key_documents is not None:
            same = self._same_document()
            visible = same if visible is None else visible & same
            # A padding query has no visible key, and softmax over no keys is NaN.
            visible = visible | ~visible.any(-1, keepdim=True)
        if self.bias is None:
            return visible
        bias = self.bias.to(like.dtype)
        lowest = torch.finfo(like.dtype).min
        return bias if visible is None else bias.masked_fill(~visible, lowest)

    def _same_document(self) -> Tensor:
        assert self.key_documents is not None
        keys = self.key_documents[:, None, None, :]
        if self.query_documents is None:
            return keys > 0
        same = (keys == self.query_documents[:, None, :, None]) & (keys > 0)
        same[..., : self.virtual_tokens] = True
        return same


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, 1706.03762).

    There may be fewer key/value heads than query heads (grouped-query attention, Ainslie et al.
    2023, 2305.13245). With `memory` it is cross-attention, without it self-attention.
    """

    def __init__(
        self, config: TransformerConfig, *, window: int | None = None, cross: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.key_heads, self.width = (
            config.num_attention_heads,
            config.key_value_heads,
            config.attention_head_size,
        )
        self.query = Linear(config.hidden_size, self.heads * self.width, bias=config.query_bias)
        self.key = Linear(config.hidden_size, self.key_heads * self.width, bias=config.query_bias)
        self.value = Linear(config.hidden_size, self.key_heads * self.width, bias=config.query_bias)
        self.output = Linear(self.heads * self.width, config.hidden_size, bias=config.output_bias)
        self.query_norm = self.key_norm = None
        self.norms_heads_together = config.qk_norm == "all_heads"
        if config.qk_norm != "none":
            heads = (self.heads, self.key_heads) if self.norms_heads_together else (1, 1)
            self.query_norm, self.key_norm = (
                RMSNorm(n * self.width, epsilon=config.norm_eps, offset=config.norm_offset)
                for n in heads
            )
        self.relative_keys = self.relative_values = None
        if config.position == "shaw" and not cross:
            self.relative_keys = RelativeTable(config.relative_buckets, self.width)
            self.relative_values = RelativeTable(config.relative_buckets, self.width)
        self.observer: Callable[[Tensor], None] | None = None
        """Receives the weights of each pass before dropout: (batch, heads, queries, keys)."""
        self.window = window
        self.dropout = config.attention_dropout
        self.softcap = config.score_softcap
        self.scale = config.score_scale
        if self.scale is None:
            # Untied positions contribute the other half of the score.
            parts = 2 if config.position == "untied" and not cross else 1
            self.scale = (parts * self.width) ** -0.5

    def forward(
        self,
        x: Tensor,
        visibility: Visibility,
        *,
        memory: Tensor | None = None,
        rotation: tuple[Tensor, Tensor] | None = None,
        cache: LayerCache | None = None,
        prefix: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Compute attention.

        Shape: x (batch, length, width) or packed (tokens, width); memory likewise; result as x.

        Args:
            x: Source of the queries.
            visibility: Which keys the queries may attend to.
            memory: Source of keys and values for cross-attention; by default `x`.
            rotation: Rotary cosines and sines of the queries (and keys).
            cache: Keys and values of earlier tokens. Cross-attention fills it once and then only
                reads it. It may then have one row for several consecutive rows of `x`, if
                these have one token each (beams).
            prefix: Keys and values to put before those of each text, if they are not cached.
                Shape: (key heads, n, head width).
        """
        query = self._split(self.query(x), self.heads, self.query_norm, rotation)
        if visibility.spans is not None:
            key, value = self._keys_values(x if memory is None else memory, rotation)
            return self.finish(self._attend_spans(query, key, value, visibility, prefix))

        query = query.transpose(1, 2)
        cached = cache.read() if cache is not None and memory is not None else None
        if cached is None:
            key, value = self._keys_values(x if memory is None else memory, rotation)
            key, value = key.transpose(1, 2), value.transpose(1, 2)
            if cache is not None:
                key, value = cache.append(key, value)
            elif prefix is not None:
                key, value = _preceded(prefix, key, value)
        else:
            key, value = cached
        mask, causal = visibility.mask(self.window, query)
        positions = visibility.query_positions, visibility.key_positions
        texts = len(key)
        if texts != len(query):
            # The beams of a text attend to the same source, so they become queries of one row.
            query = query.view(texts, -1, self.heads, self.width).transpose(1, 2)
        attended = self.attend(query, key, value, mask, causal, positions)
        if texts != len(x):
            return self.finish(attended.transpose(1, 2).reshape(len(x), 1, self.heads, self.width))
        return self.finish(attended.transpose(1, 2))

    def project(
        self, x: Tensor, rotation: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values. Shape: (…, width) to three of (…, heads, head width)."""
        query = self._split(self.query(x), self.heads, self.query_norm, rotation)
        return query, *self._keys_values(x, rotation)

    def _keys_values(
        self, x: Tensor, rotation: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        key = self._split(self.key(x), self.key_heads, self.key_norm, rotation)
        return key, self._split(self.value(x), self.key_heads, None, None)

    def _split(
        self, x: Tensor, heads: int, norm: nn.Module | None, rotation: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """Split projected states by head, normalize and rotate them. Shape: (…, heads, width)."""
        if norm is not None and self.norms_heads_together:
            x = norm(x)
        x = x.view(*x.shape[:-1], heads, self.width)
        if norm is not None and not self.norms_heads_together:
            x = norm(x)
        return x if rotation is None else rotate(x, rotation)

    def finish(self, attended: Tensor) -> Tensor:
        """Apply the output projection. Shape: (…, heads, head width) to (…, width)."""
        result: Tensor = self.output(attended.flatten(-2))
        return result

    def _attend_spans(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        visibility: Visibility,
        prefix: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """Attend document by document; adjacent documents of equal length form one batch.

        Shape of queries, keys, values and result: (tokens, heads, width).
        """
        if not visibility.spans:
            return torch.empty_like(query)
        mask, causal = visibility.mask(self.window, query)
        positions = visibility.query_positions, visibility.key_positions
        counts, spans, key_spans = zip(*_runs(visibility.spans), strict=True)
        parts = _parts(query, spans), _parts(key, key_spans), _parts(value, key_spans)
        attended = []
        for count, span, *run in zip(counts, key_spans, *parts, strict=True):
            queries, keys, values = (
                part.view(count, len(part) // count, *part.shape[1:]).transpose(1, 2)
                for part in run
            )
            length, key_length = queries.shape[2], keys.shape[2]
            if prefix is not None:
                keys, values = _preceded(prefix, keys, values)
                key_length = keys.shape[2]
            own = None if mask is None else mask[..., :length, :key_length]
            if visibility.prefix_mask is not None:
                shared = visibility.prefix_mask[slice(*span)].view(count, 1, 1, key_length)
                own, causal = _causal_but_for(shared, visibility, own), False
            places = positions[0][:length], positions[1][:key_length]
            one = self.attend(queries, keys, values, own, causal, places)
            attended.append(one.transpose(1, 2).flatten(0, 1))
        return torch.cat(attended)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        causal: bool,
        positions: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Compute attention. Shape: (batch, heads, length, width); the result as the queries."""
        if self.relative_keys is not None or self.softcap is not None or self.observer is not None:
            return self._attend_explicitly(query, key, value, mask, causal, positions)
        shared = self.heads // self.key_heads
        dropout = dropout_rate(self.dropout, self.training)
        if (
            shared > 1
            and query.shape[2] == 1
            and (mask is None or mask.dim() == 2 or mask.shape[-3] == 1)
        ):
            # One new token: query heads that share a key head become its queries, without a copy.
            folded = query.view(query.shape[0], self.key_heads, shared, self.width)
            attended = F.scaled_dot_product_attention(
                folded, key, value, attn_mask=mask, dropout_p=dropout, scale=self.scale
            )
            return attended.reshape(query.shape)
        if shared > 1:
            key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
        if query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # On CPUs bfloat16 is no faster here, and its gradient takes up to three times as long.
            query, key, value = query.float(), key.float(), value.float()
            if mask is not None and mask.is_floating_point():
                mask = mask.float()
            with torch.autocast("cpu", enabled=False):
                return F.scaled_dot_product_attention(
                    query, key, value, mask, dropout, is_causal=causal, scale=self.scale
                )
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=self.scale
        )

    def _attend_explicitly(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        causal: bool,
        positions: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Compute attention variants that fused kernels lack, with all scores in memory.

        These are soft-capped scores, and relative vectors added to keys and values (Shaw et al.
        2018).
        """
        assert self.scale is not None
        shared = self.heads // self.key_heads
        key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
        # With left padding, distances differ between the texts of a batch.
        pairs = "bqk" if positions[0].dim() == 2 else "qk"
        scores = query @ key.mT
        if self.relative_keys is not None:
            distances = self.relative_keys(*positions)
            scores = scores + torch.einsum(f"bhqd,{pairs}d->bhqk", query, distances)
        scores = scores * self.scale
        if self.softcap is not None:
            scores = softcap(scores, self.softcap)
        if causal:
            future = positions[1] > positions[0][:, None]
            scores = scores.masked_fill(future, float("-inf"))
        elif mask is not None and mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, float("-inf"))
        elif mask is not None:
            scores = scores + mask
        weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
        if self.observer is not None:
            self.observer(weights)
        weights = drop(weights, dropout_rate(self.dropout, self.training))
        attended = weights @ value
        if self.relative_values is not None:
            distances = self.relative_values(*positions)
            attended = attended + torch.einsum(f"bhqk,{pairs}d->bhqd", weights, distances)
        return attended


def _preceded(prefix: tuple[Tensor, Tensor], key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Prepend a prefix to the keys and values of each row. (batch, key heads, length, width)."""
    first, second = (
        torch.cat([before.expand(len(part), *before.shape), part], dim=2)
        for before, part in zip(prefix, (key, value), strict=True)
    )
    return first, second


def _causal_but_for(shared: Tensor, visibility: Visibility, mask: Tensor | None) -> Tensor:
    """Return a causal mask in which all tokens of a document attend to its prefix.

    Shape: (batch, 1 or heads, length, length).

    Args:
        shared: The prefix tokens. Shape: (batch, 1, 1, length).
        visibility: The visibility of the whole batch.
        mask: The score bias with later keys masked, if there is a bias; only its dtype is used.
    """
    place = torch.arange(shared.shape[-1], device=shared.device)
    visible = (place <= place[:, None]) | shared
    if visibility.bias is None:
        return visible
    bias = visibility.bias[..., : len(place), : len(place)]
    like = bias if mask is None else bias.to(mask.dtype)
    return like.masked_fill(~visible, torch.finfo(like.dtype).min)


def _runs(spans: Sequence[tuple[Span, Span]]) -> list[tuple[int, Span, Span]]:
    """Join adjacent documents of equal length into runs: count, query span, key span.

    >>> _runs([((0, 2), (0, 3)), ((2, 4), (3, 6)), ((4, 5), (6, 9))])
    [(2, (0, 4), (0, 6)), (1, (4, 5), (6, 9))]
    """
    runs: list[tuple[int, Span, Span]] = []
    for (start, end), (key_start, key_end) in spans:
        if runs:
            count, (first, last), (key_first, key_last) = runs[-1]
            alike = (last - first, key_last - key_first) == (
                (end - start) * count,
                (key_end - key_start) * count,
            )
            if alike and (last, key_last) == (start, key_start):
                runs[-1] = (count + 1, (first, end), (key_first, key_end))
                continue
        runs.append((1, (start, end), (key_start, key_end)))
    return runs


def _parts(tokens: Tensor, spans: Sequence[Span]) -> Sequence[Tensor]:
    """Return the tokens of each span. Shape: (tokens, …)."""
    if [0, *(end for _, end in spans)] == [*(start for start, _ in spans), len(tokens)]:
        # The gradient of each slice would be as large as the whole tensor.
        return torch.split(tokens, [end - start for start, end in spans])
    return [tokens[start:end] for start, end in spans]
