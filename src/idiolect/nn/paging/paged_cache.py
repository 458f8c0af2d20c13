"""Keys and values in pages, so that texts of any length share one pool without padding.

A text owns a list of pages of equal size, in order, anywhere in the pool (Kwon et al. 2023,
2309.06180). A page may belong to several texts that begin alike. The caller decides who owns what,
sets `pages` and `texts`, and calls the network with all new tokens in one row:

    cache.pages, cache.texts = 3, [PagedText([0, 2], 17, 1), PagedText([1], 0, 4)]
    network(torch.tensor([[9, 5, 6, 7, 8]]), cache=cache)  # hidden states of all five tokens
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from idiolect.nn.paging.paged_pass import PagedPass, PagedText
from idiolect.nn.position import ScoreBias

__all__ = ["LayerPages", "PagedCache"]


class LayerPages:
    """The pages of one attention. Shape: (pages, key heads, page size, head width).

    Args:
        cache: What all layers have in common.
    """

    def __init__(self, cache: PagedCache) -> None:
        self._cache = cache
        self.keys = self.values = torch.empty(0)

    @property
    def now(self) -> PagedPass:
        """The forward pass that runs."""
        assert self._cache.now is not None
        return self._cache.now

    def write(self, keys: Tensor, values: Tensor) -> None:
        """Put the new tokens in their places. Shape: (tokens, key heads, head width)."""
        self.keys, self.values = (
            _grown(pool, like, self._cache.pages, self._cache.page_size)
            for pool, like in ((self.keys, keys), (self.values, values))
        )
        now = self.now
        self.keys[now.page, :, now.offset] = keys
        self.values[now.page, :, now.offset] = values

    def read(self, pages: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Return copies of keys and values of one text. Shape: (1, key heads, length, width)."""
        keys, values = (
            pool[pages].transpose(0, 1).flatten(1, 2)[None, :, :length]
            for pool in (self.keys, self.values)
        )
        return keys, values


class PagedCache:
    """The pools of a decoder's layers, which grow to the number of `pages`.

    Args:
        page_size: Tokens in a page.
    """

    length = 0
    """Tokens that stand before those of every pass: none, since each text has its own."""
    memory: Tensor | None = None
    """The states of an encoder, of which a paged network has none."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.pages = 0
        """How many pages each layer has."""
        self.texts: Sequence[PagedText] = ()
        """The texts of the next forward pass, in the order of their tokens in its one row; those
        with one new token first."""
        self.now: PagedPass | None = None
        """The last forward pass."""
        self._layers: list[LayerPages] = []

    def begin(self, score_bias: ScoreBias | None, device: torch.device) -> PagedPass:
        """Return the pass over `texts` that begins; see `PagedPass`."""
        self.now = PagedPass(
            self.texts, page_size=self.page_size, device=device, score_bias=score_bias
        )
        return self.now

    def layer(self, index: int) -> tuple[LayerPages, None]:
        """Return the pages of a layer's self-attention; there is no cross-attention."""
        while len(self._layers) <= index:
            self._layers.append(LayerPages(self))
        return self._layers[index], None


def _grown(pool: Tensor, like: Tensor, pages: int, page_size: int) -> Tensor:
    """Return a pool of at least so many pages that keeps the present ones."""
    if len(pool) >= pages:
        return pool
    # Zeros, since what is not yet written is multiplied by a weight of zero.
    larger = like.new_zeros(pages, like.shape[1], page_size, like.shape[2])
    if len(pool):
        larger[: len(pool)] = pool
    return larger
