"""One layer: self-attention, cross-attention in a decoder that reads an encoder, feed-forward.

Each sub-layer f is wrapped in a residual sum, with its norm n before or after it:

    norm_first       x + f(n(x))       GPT-2, Llama, T5, mBART
    otherwise        n(x + f(x))       the first Transformer, BERT, GPT, BART
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from idiolect.nn.attention import Attention, Visibility
from idiolect.nn.basic import Dropout, FeedForward, make_norm
from idiolect.nn.cache import LayerCache
from idiolect.nn.config import TransformerConfig

__all__ = ["Layer"]


class Layer(nn.Module):
    """A Transformer layer. Shape: (batch, length, width) or packed (tokens, width), in and out."""

    def __init__(self, config: TransformerConfig, *, window: int | None, cross: bool) -> None:
        super().__init__()

        def norm() -> nn.Module:
            return make_norm(config.norm, config.hidden_size, epsilon=config.norm_eps)

        self.attention = Attention(config, window=window)
        self.attention_norm = norm()
        self.cross = Attention(config, cross=True) if cross else None
        self.cross_norm = norm() if cross else None
        self.feed_forward = FeedForward(
            config.hidden_size,
            config.intermediate_size,
            activation=config.activation,
            gated=config.gated,
            bias=config.feed_forward_bias,
            dropout=config.activation_dropout,
        )
        self.feed_forward_norm = norm()
        self.dropout = Dropout(config.dropout)
        self.norm_first = config.norm_first

    def forward(
        self,
        x: Tensor,
        visibility: Visibility,
        *,
        rotation: tuple[Tensor, Tensor] | None = None,
        memory: Tensor | None = None,
        memory_visibility: Visibility | None = None,
        cache: tuple[LayerCache, LayerCache] | None = None,
    ) -> Tensor:
        """Run hidden states through the layer; see `Attention.forward` for the arguments."""
        own, other = cache if cache is not None else (None, None)
        x = self._residual(
            x,
            self.attention_norm,
            lambda y: self.attention(y, visibility, rotation=rotation, cache=own),
        )
        cross, cross_norm = self.cross, self.cross_norm
        if cross is not None and cross_norm is not None and memory_visibility is not None:
            x = self._residual(
                x, cross_norm, lambda y: cross(y, memory_visibility, memory=memory, cache=other)
            )
        return self._residual(x, self.feed_forward_norm, self.feed_forward)

    def _residual(self, x: Tensor, norm: nn.Module, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        x = x + self.dropout(sublayer(norm(x) if self.norm_first else x))
        return x if self.norm_first else norm(x)
