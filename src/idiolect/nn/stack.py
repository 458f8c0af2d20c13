"""One side of a Transformer: positions, layers and norms of an encoder or a decoder."""

from __future__ import annotations

from torch import Tensor, nn

from idiolect.nn.attention import Sight
from idiolect.nn.basic import make_norm
from idiolect.nn.cache import Cache
from idiolect.nn.config import TransformerConfig
from idiolect.nn.layer import Layer
from idiolect.nn.position import Rotary, make_score_bias, sinusoids

__all__ = ["Stack"]


class Stack(nn.Module):
    """Positions, layers and norms of one side: an encoder or a decoder."""

    positions: Tensor

    def __init__(
        self, config: TransformerConfig, *, layers: int, causal: bool, cross: bool
    ) -> None:
        super().__init__()
        self.causal = causal
        self.offset = config.position_offset
        self.limit = config.max_positions if config.position in ("learned", "untied") else None
        self.table = None
        if config.position == "learned":
            self.table = nn.Embedding(config.max_positions + self.offset, config.width)
        self.sinusoids = (config.width, config.sinusoid_interleaved)
        self.sinusoidal = config.position == "sinusoidal"
        if self.sinusoidal:
            self.register_buffer(
                "positions", self._sinusoids(config.max_positions), persistent=False
            )
        self.rotary = (
            Rotary(config.score_width, base=config.rotary_base, scaling=config.rotary_scaling)
            if config.position == "rotary"
            else None
        )
        self.score_bias = make_score_bias(config, two_sided=not causal)
        self.embedding_norm = self._norm(config) if config.embedding_norm else None
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            Layer(config, window=config.window(i), cross=cross) for i in range(layers)
        )
        self.final_norm = self._norm(config) if config.final_norm else None

    @staticmethod
    def _norm(config: TransformerConfig) -> nn.Module:
        return make_norm(config.norm, config.width, epsilon=config.norm_epsilon)

    def _sinusoids(self, length: int) -> Tensor:
        width, interleaved = self.sinusoids
        return sinusoids(length + self.offset, width, interleaved=interleaved)

    def forward(
        self,
        x: Tensor,
        sight: Sight,
        places: Tensor,
        *,
        memory: Tensor | None = None,
        memory_sight: Sight | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Pass embeddings through the layers.

        Shape: x (batch, length, width) or packed (tokens, width), and so the result; places
        (batch, length), (length,) or packed (tokens,).
        """
        x = self._add_positions(x, places)
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        x = self.dropout(x)
        turn = None if self.rotary is None else self.rotary(places, x.dtype)
        for i, layer in enumerate(self.layers):
            x = layer(
                x,
                sight,
                turn=turn,
                memory=memory,
                memory_sight=memory_sight,
                cache=None if cache is None else cache.layer(i),
            )
        if self.final_norm is None:
            return x
        result: Tensor = self.final_norm(x)
        return result

    def _add_positions(self, x: Tensor, places: Tensor) -> Tensor:
        if self.table is not None:
            x = x + self.table(places + self.offset)
        if self.sinusoidal:
            longest = int(places.max()) + 1 if places.numel() else 0
            if longest + self.offset > len(self.positions):
                self.positions = self._sinusoids(2 * longest).to(self.positions.device)
            x = x + self.positions[places + self.offset].to(x.dtype)
        return x
