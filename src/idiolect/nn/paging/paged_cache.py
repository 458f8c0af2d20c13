"""Keys and values in pages, so that texts of any length share one pool without padding.

A text owns a list of pages of equal size, in order, anywhere in the pool (Kwon et al. 2023,
2309.06180). Texts with a common beginning may share pages. The caller assigns pages to texts, sets
`pages` and `texts`, and calls the network with all new tokens in one row:

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
    """The pages of one attention layer. Shape: (pages, key heads, page size, head width).

    Args:
        cache: The cache of all layers.
    """

    def __init__(self, cache: PagedCache) -> None:
        self._cache = cache
        self.keys = self.values = torch.empty(0)

    @property
    def now(self) -> PagedPass:
        """The current forward pass."""
        assert self._cache.now is not None
        return self._cache.now

    def write(self, keys: Tensor, values: Tensor) -> None:
        """Write the keys and values of the new tokens. Shape: (tokens, key heads, head width)."""
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
    """Cached tokens common to all rows: none, since each text has its own length."""
    memory: Tensor | None = None
    """Encoder states: always none, since paged networks have no encoder."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.pages = 0
        """Number of pages of each layer."""
        self.texts: Sequence[PagedText] = ()
        """The texts of the next forward pass, in the order of their tokens in its one row; those
        with one new token first."""
        self.now: PagedPass | None = None
        """The last forward pass."""
        self._layers: list[LayerPages] = []

    def begin(self, score_bias: ScoreBias | None, device: torch.device) -> PagedPass:
        """Begin a pass over `texts`, and return it; see `PagedPass`."""
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
    """Return a pool with at least `pages` pages that keeps the existing ones."""
    if len(pool) >= pages:
        return pool
    # Zeros, since unwritten entries are multiplied by an attention weight of zero.
    larger = like.new_zeros(pages, like.shape[1], page_size, like.shape[2])
    if len(pool):
        larger[: len(pool)] = pool
    return larger
