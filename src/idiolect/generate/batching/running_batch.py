"""A running batch, which texts join and leave; the class depends on the network's cache.

PagedBatch    a decoder with a paged cache: texts join at any step, without padding
GridBatch     other networks, and strategies that need a padded batch: all texts start together
PairedBatch   two batches that read the same new tokens, such as guidance by a negative prompt
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from idiolect.generate.batching.page_pool import PagePool
from idiolect.generate.decoding import Decoding
from idiolect.generate.generation import TextRow
from idiolect.generate.products.few_row_products import reads_few_rows
from idiolect.nn.network import Network
from idiolect.nn.paging.paged_cache import PagedCache
from idiolect.nn.paging.paged_pass import PagedText

__all__ = ["PAGE_SIZE", "GridBatch", "PagedBatch", "PairedBatch", "RunningBatch"]

PAGE_SIZE = 32
"""Tokens in a page."""


class RunningBatch(ABC):
    """Texts that are being generated, in the order in which they joined."""

    can_join = False
    """Whether texts may join while others are being generated."""

    @abstractmethod
    def step(self, tokens: Sequence[int], fresh: Sequence[TextRow]) -> Tensor:
        """Read the last token of each text and the prompts of joining texts; score the next token.

        Shape: result (texts and joining texts, vocabulary), float32.

        Args:
            tokens: The last token of each text in the batch.
            fresh: Texts that join, after the others.
        """

    @abstractmethod
    def keep(self, places: Sequence[int]) -> None:
        """Keep the texts at these positions (ascending); the others leave."""


class PagedBatch(RunningBatch):
    """Texts of a decoder with a paged KV cache; texts with the same prefix share pages.

    Args:
        network: The network.
        cache: An empty cache.
        sources: Returns the prompt ids of joining texts.
        vocab_size: As in `Decoding`.
        least_pages: As `least` of `PagePool`.
    """

    can_join = True

    def __init__(
        self,
        network: Network,
        cache: PagedCache,
        sources: Callable[[Sequence[TextRow]], list[list[int]]],
        *,
        vocab_size: int | None = None,
        least_pages: int = 0,
    ) -> None:
        self._network, self._cache, self._sources = network, cache, sources
        self._vocab_size, self._least = vocab_size, least_pages
        self.pool = PagePool(cache.page_size, least=least_pages)
        """The page allocation."""
        self._pages: list[list[int]] = []
        self._read: list[list[int]] = []
        self.tokens_read = 0
        """Number of tokens that the network has computed, over all forward passes."""

    @reads_few_rows
    def step(self, tokens: Sequence[int], fresh: Sequence[TextRow]) -> Tensor:
        """Read tokens and prompts in one pass, without padding."""
        size = self._cache.page_size
        texts, new = list[PagedText](), [[token] for token in tokens]
        for pages, ids, token in zip(self._pages, self._read, tokens, strict=True):
            if len(ids) == len(pages) * size:
                pages.append(self.pool.take())
            texts.append(PagedText(pages, len(ids), 1))
            ids.append(token)
        for ids in self._sources(fresh) if fresh else []:
            pages, past = self.pool.open(ids)
            self._pages.append(pages)
            self._read.append(list(ids))
            texts.append(PagedText(pages, past, len(ids) - past))
            new.append(ids[past:])
        # In a forward pass, texts with one new token come first.
        order = sorted(range(len(texts)), key=lambda place: texts[place].new > 1)
        self._cache.pages = self._capacity()
        self._cache.texts = [texts[place] for place in order]
        read = torch.tensor(
            [[token for place in order for token in new[place]]], device=self._network.device
        )
        self.tokens_read += read.shape[1]
        states = self._network(read, cache=self._cache, return_logits=False).hidden_states[0]
        assert self._cache.now is not None
        back = torch.tensor(order, device=read.device).argsort()
        last = self._cache.now.last[back]
        return self._network.score_vocabulary(states[last])[:, : self._vocab_size].float()

    def keep(self, places: Sequence[int]) -> None:
        """Keep texts; the pages of the others become free."""
        for place in set(range(len(self._pages))) - set(places):
            self.pool.release(self._pages[place], self._read[place])
        self._pages = [self._pages[place] for place in places]
        self._read = [self._read[place] for place in places]

    def _capacity(self) -> int:
        """Return the number of pages to allocate, with spare capacity, so that it rarely grows."""
        size = self.pool.size
        if self._cache.pages >= size:
            return self._cache.pages
        most = max(size, self._least) if self._least else size + size // 2
        return min(size + size // 2, most)


class GridBatch(RunningBatch):
    """Texts that start together, in a padded batch.

    Args:
        open: Returns the `Decoding` of the texts, not started.
    """

    def __init__(self, open: Callable[[Sequence[TextRow]], Decoding]) -> None:
        self._open = open
        self._decoding: Decoding | None = None
        self._device = torch.device("cpu")

    def step(self, tokens: Sequence[int], fresh: Sequence[TextRow]) -> Tensor:
        """Read the last token of each text, or the prompts of texts that start."""
        if fresh:
            assert not tokens
            self._decoding = self._open(fresh)
            scores = self._decoding.start()
            self._device = scores.device
            return scores
        assert self._decoding is not None
        return self._decoding.step(torch.tensor(tokens, device=self._device))

    def keep(self, places: Sequence[int]) -> None:
        """Keep texts."""
        if places and self._decoding is not None:
            self._decoding.select(torch.tensor(places, device=self._device))


class PairedBatch(RunningBatch):
    """Two batches that read the same new tokens.

    Args:
        own: The texts.
        other: The batch whose scores are contrasted.
        combine: Combines the scores of both. Shapes: (texts, vocabulary).
    """

    def __init__(
        self, own: RunningBatch, other: RunningBatch, combine: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        self._own, self._other, self._combine = own, other, combine
        self.can_join = own.can_join and other.can_join

    def step(self, tokens: Sequence[int], fresh: Sequence[TextRow]) -> Tensor:
        """Read tokens and prompts in both."""
        return self._combine(self._own.step(tokens, fresh), self._other.step(tokens, fresh))

    def keep(self, places: Sequence[int]) -> None:
        """Keep texts in both."""
        self._own.keep(places)
        self._other.keep(places)
