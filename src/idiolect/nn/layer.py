"""One layer: self-attention, cross-attention (in the decoder of an encoder-decoder), feed-forward.

Each sub-layer f is wrapped in a residual sum, with its norm n in one of four places:

    before             x + f(n(x))       GPT-2, Llama, T5, mBART
    after_sum          n(x + f(x))       the first Transformer, BERT, GPT, BART
    after              x + n(f(x))       OLMo 2
    before_and_after   x + m(f(n(x)))    Gemma

With parallel_residual both sub-layers read the same x:  x + attention(n(x)) + feed_forward(m(x)).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from idiolect.nn.attention import Attention, Visibility
from idiolect.nn.basic import Dropout, FeedForward, make_norm
from idiolect.nn.cache import LayerCache
from idiolect.nn.config import TransformerConfig
from idiolect.nn.paging.paged_attention import attend_pages
from idiolect.nn.paging.paged_cache import LayerPages

__all__ = ["Layer"]


class Layer(nn.Module):
    """A Transformer layer. Shape: (batch, length, width) or packed (tokens, width), in and out."""

    def __init__(self, config: TransformerConfig, *, index: int, cross: bool) -> None:
        super().__init__()
        self.attention = Attention(config, window=config.window(index))
        normed = index > 0 or config.first_attention_norm
        self.attention_norm = make_norm(config) if normed else nn.Identity()
        self.cross = Attention(config, cross=True) if cross else None
        self.cross_norm = make_norm(config) if cross else None
        self.feed_forward = FeedForward(
            config.hidden_size,
            config.intermediate_size,
            activation=config.activation,
            gated=config.gated,
            bias=config.feed_forward_bias,
            dropout=config.activation_dropout,
        )
        self.feed_forward_norm = make_norm(config)
        self.attention_output_norm = self.cross_output_norm = self.feed_forward_output_norm = None
        if config.norm_placement == "before_and_after":
            self.attention_output_norm = make_norm(config)
            self.cross_output_norm = make_norm(config) if cross else None
            self.feed_forward_output_norm = make_norm(config)
        self.dropout = Dropout(config.dropout)
        self.norm_placement = config.norm_placement
        # Cross-attention needs the output of self-attention, so a layer with it is never parallel.
        self.parallel = config.parallel_residual and not cross

    def forward(
        self,
        x: Tensor,
        visibility: Visibility,
        *,
        rotation: tuple[Tensor, Tensor] | None = None,
        memory: Tensor | None = None,
        memory_visibility: Visibility | None = None,
        cache: tuple[LayerCache, LayerCache] | tuple[LayerPages, None] | None = None,
        prefix: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Run hidden states through the layer; see `Attention.forward` for the arguments."""
        own, other = cache if cache is not None else (None, None)

        def attend(y: Tensor) -> Tensor:
            if isinstance(own, LayerPages):
                return attend_pages(self.attention, y, rotation, own)
            attended: Tensor = self.attention(
                y, visibility, rotation=rotation, cache=own, prefix=prefix
            )
            return attended

        if self.parallel:
            attended = self.dropout(attend(self.attention_norm(x)))
            result: Tensor = (
                x + attended + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
            )
            return result
        x = self._residual(x, self.attention_norm, self.attention_output_norm, attend)
        cross, cross_norm = self.cross, self.cross_norm
        if cross is not None and cross_norm is not None and memory_visibility is not None:
            x = self._residual(
                x,
                cross_norm,
                self.cross_output_norm,
                lambda y: cross(y, memory_visibility, memory=memory, cache=other),
            )
        return self._residual(
            x, self.feed_forward_norm, self.feed_forward_output_norm, self.feed_forward
        )

    def _residual(
        self,
        x: Tensor,
        norm: Callable[[Tensor], Tensor],
        output_norm: Callable[[Tensor], Tensor] | None,
        sublayer: Callable[[Tensor], Tensor],
    ) -> Tensor:
        if self.norm_placement == "before":
            output = sublayer(norm(x))
        elif self.norm_placement == "after_sum":
            return norm(x + self.dropout(sublayer(x)))
        elif output_norm is None:
            output = norm(sublayer(x))
        else:
            output = output_norm(sublayer(norm(x)))
        result: Tensor = x + self.dropout(output)
        return result
