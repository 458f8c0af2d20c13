"""One side of a Transformer: positions, layers and norms of an encoder or a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from idiolect.errors import InputError
from idiolect.nn.attention import Visibility
from idiolect.nn.basic import Dropout, make_norm
from idiolect.nn.cache import Cache
from idiolect.nn.config import TransformerConfig
from idiolect.nn.layer import Layer
from idiolect.nn.paging.paged_cache import PagedCache
from idiolect.nn.position import Rotary, Sinusoids, make_score_bias

__all__ = ["Stack"]

_RotaryUse = Literal["none", "global", "local"]
"""The rotary positions of a layer: none, the usual ones, or those of windowed layers."""


class Stack(nn.Module):
    """Position encodings, layers and norms of an encoder or a decoder."""

    def __init__(
        self, config: TransformerConfig, *, layers: int, causal: bool, cross: bool
    ) -> None:
        super().__init__()
        self.causal = causal
        self.offset = config.position_offset
        self.limit = config.max_position_embeddings if config.has_position_table else None
        self.table = None
        if config.position in ("learned", "learned_buckets"):
            self.table = nn.Embedding(
                config.max_position_embeddings + self.offset, config.hidden_size
            )
        self.sinusoids = None
        if config.position == "sinusoidal":
            self.sinusoids = Sinusoids(
                config.max_position_embeddings + self.offset,
                config.hidden_size,
                interleaved=config.sinusoid_interleaved,
            )
        self.rotary = self.local_rotary = None
        if config.position == "rotary":
            self.rotary = Rotary(
                config.rotary_size, base=config.rope_theta, scaling=config.rope_scaling
            )
            if config.local_rope_theta is not None:
                self.local_rotary = Rotary(
                    config.rotary_size, base=config.local_rope_theta, scaling=None
                )
        self.rotary_uses = tuple(_rotary_use(config, i) for i in range(layers))
        self.score_bias = make_score_bias(config, two_sided=not causal)
        self.embedding_norm = make_norm(config) if config.embedding_norm else None
        self.dropout = Dropout(config.dropout)
        self.windows = {config.window(i) for i in range(layers)}
        self.layers = nn.ModuleList(Layer(config, index=i, cross=cross) for i in range(layers))
        self.final_norm = make_norm(config) if config.final_norm else None

    def check_length(self, length: int) -> None:
        """Raise `InputError` if a text has more tokens than the stack has positions."""
        if self.limit is not None and length > self.limit:
            raise InputError(
                f"a text has {length} tokens, but the model has {self.limit} positions",
                hint="truncate it or split it",
            )

    def forward(
        self,
        x: Tensor,
        visibility: Visibility,
        positions: Tensor,
        *,
        memory: Tensor | None = None,
        memory_visibility: Visibility | None = None,
        cache: Cache | PagedCache | None = None,
        prefix: Sequence[tuple[Tensor, Tensor]] = (),
    ) -> Tensor:
        """Run embeddings through the layers.

        Shape: x and result (batch, length, width) or packed (tokens, width); positions (batch,
        length), (length,) or packed (tokens,).

        Args:
            x: The embedded tokens.
            visibility: Which keys each query may attend to.
            positions: Position of each token in its text.
            memory: The encoder's hidden states.
            memory_visibility: Which of these each query may attend to.
            cache: Keys and values of earlier tokens.
            prefix: Keys and values of each layer before every text, if they are not cached.
        """
        x = self._add_positions(x, positions)
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        x = self.dropout(x)
        rotations = self._rotations(positions, x.dtype)
        if visibility.bias is not None and torch.is_grad_enabled():
            # Built here, since layers share the masks and may be recomputed one by one.
            for window in self.windows:
                visibility.mask(window, x)
        for i, layer in enumerate(self.layers):
            x = layer(
                x,
                visibility,
                rotation=rotations[self.rotary_uses[i]],
                memory=memory,
                memory_visibility=memory_visibility,
                cache=None if cache is None else cache.layer(i),
                prefix=prefix[i] if prefix else None,
            )
        if self.final_norm is None:
            return x
        result: Tensor = self.final_norm(x)
        return result

    def _rotations(
        self, positions: Tensor, dtype: torch.dtype
    ) -> dict[_RotaryUse, tuple[Tensor, Tensor] | None]:
        """Return the cosines and sines for each way in which layers use rotary positions."""
        everywhere = None if self.rotary is None else self.rotary(positions, dtype)
        local = everywhere
        if self.local_rotary is not None:
            local = self.local_rotary(positions, dtype)
        return {"none": None, "global": everywhere, "local": local}

    def _add_positions(self, x: Tensor, positions: Tensor) -> Tensor:
        if self.table is not None:
            x = x + self.table(positions + self.offset)
        if self.sinusoids is not None:
            x = x + self.sinusoids(positions + self.offset).to(x.dtype)
        return x


def _rotary_use(config: TransformerConfig, layer: int) -> _RotaryUse:
    turned = config.rotary_layers
    if turned and not turned[layer % len(turned)]:
        return "none"
    return "global" if config.window(layer) is None else "local"
