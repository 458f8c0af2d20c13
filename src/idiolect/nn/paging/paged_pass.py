"""The page layout of one forward pass over a paged cache: what it writes and reads.

Texts with one new token (those being generated) are computed together: each page is multiplied in
place with the queries of the texts that own it, and the scores of a text's pages are concatenated
for the softmax. A page with several owners is read once for all of them (Juravsky et al. 2024,
2402.05099). Texts with more new tokens (prompts) are computed one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from idiolect.nn.attention import Visibility
from idiolect.nn.position import ScoreBias

__all__ = ["PagedPass", "PagedText", "PromptSpan"]


@dataclass(frozen=True)
class PagedText:
    """A text of one pass."""

    pages: Sequence[int]
    """Its pages, in order, with space for the new tokens."""
    past: int
    """Number of tokens already in the pages."""
    new: int
    """Number of new tokens that the pass reads."""


@dataclass(frozen=True)
class PromptSpan:
    """A text with several new tokens."""

    start: int
    """Start of its tokens in the packed batch."""
    end: int
    """End (exclusive) of its tokens in the packed batch."""
    pages: Tensor | None
    """Its pages, if they contain earlier tokens. (n,)."""
    visibility: Visibility
    """The keys of the text that its new tokens attend to."""


class PagedPass:
    """The positions of one pass's tokens in the pages, and the pages that they read.

    Args:
        texts: The texts, in the order of their tokens in the packed batch; those with one new token
            first.
        page_size: Tokens in a page.
        device: The device of the pass.
        score_bias: The position bias of the scores, if the network has one.
    """

    def __init__(
        self,
        texts: Sequence[PagedText],
        *,
        page_size: int,
        device: torch.device,
        score_bias: ScoreBias | None,
    ) -> None:
        self.singles = next((n for n, text in enumerate(texts) if text.new > 1), len(texts))
        """Number of texts with one new token."""
        assert all(text.new > 1 for text in texts[self.singles :])
        self.longest = max(text.past + text.new for text in texts)
        """Number of tokens of the longest text, including the new ones."""
        positions, pages = list[int](), list[int]()
        for text in texts:
            places = range(text.past, text.past + text.new)
            positions += places
            pages += [text.pages[place // page_size] for place in places]
        self.positions = torch.tensor(positions, device=device)
        """Position of each new token in its text. (tokens,)."""
        self.page = torch.tensor(pages, device=device)
        """The page that each new token is written to. (tokens,)."""
        self.offset = self.positions % page_size
        """The offset of each new token in that page. (tokens,)."""
        ends = list(accumulate(text.new for text in texts))
        self.last = torch.tensor(ends, device=device) - 1
        """The last token of each text in the packed batch. (texts,)."""
        self.prompts = [
            _span(text, end, page_size, device, score_bias)
            for text, end in zip(texts[self.singles :], ends[self.singles :], strict=True)
        ]
        """The texts with several new tokens."""
        self.page_size, self._score_bias = page_size, score_bias
        if self.singles:
            self._arrange(texts[: self.singles], device)

    def _arrange(self, texts: Sequence[PagedText], device: torch.device) -> None:
        """Determine which pages are multiplied with which queries."""
        counts = [text.past // self.page_size + 1 for text in texts]
        owned = [list(text.pages[:count]) for text, count in zip(texts, counts, strict=True)]
        most = self.columns = max(counts)
        page = torch.tensor([number for pages in owned for number in pages])
        row = torch.arange(len(texts)).repeat_interleave(torch.tensor(counts))
        column = torch.cat([torch.arange(count) for count in counts])
        own = page.bincount()[page] == 1
        used = int(page[own].max()) + 1 if bool(own.any()) else 0
        block: Tensor | slice = slice(0, used)
        place = page[own]
        if 2 * len(place) < used:  # computing all pages in between would waste too much
            block, place, used = place, torch.arange(len(place)), len(place)
        shared, group = torch.unique(page[~own], return_inverse=True)
        order = group.argsort(stable=True)
        sizes = group.bincount(minlength=len(shared))
        slot = torch.empty_like(group)
        slot[order] = torch.arange(len(order)) - (sizes.cumsum(0) - sizes)[group[order]]
        owners = int(sizes.max()) if len(sizes) else 0
        pair = torch.empty_like(page)
        pair[own], pair[~own] = place, used + group * owners + slot
        rows = torch.full((used + len(shared) * owners,), len(texts))
        columns = torch.zeros_like(rows)
        rows[pair], columns[pair] = row, column
        table = torch.zeros(len(texts), most, dtype=torch.long)
        table[row, column] = pair

        def there(values: Tensor) -> Tensor:
            return values.to(device)

        self.block: Tensor | slice = block if isinstance(block, slice) else there(block)
        """The pages of one owner: all up to the last of them, or their numbers."""
        self.used = used
        """Number of pages that `block` selects."""
        self.shared = there(shared)
        """The pages with several owners. (shared,)."""
        self.owners = owners
        """Maximum number of owners of a page."""
        self.rows = there(rows)
        """The text of each pair of a page and an owner: those of `block`, then `owners` of each
        shared page; the number of texts if there is no owner. (pairs,)."""
        self.queries = there(rows.clamp(max=len(texts) - 1))
        """The same, with an arbitrary text where there is no owner. (pairs,)."""
        self.page_columns = there(columns)
        """Index of each pair's page in its text. (pairs,)."""
        self.table = there(table)
        """The pair of each text and page index; arbitrary if the text has fewer pages. (texts,
        columns)."""
        places = torch.arange(most * self.page_size, device=device)
        now = self.positions[: self.singles, None]
        self._visible = places <= now
        self._near: dict[int | None, Tensor] = {}
        self.bias = None
        """Position bias of the scores. (texts, heads, 1, columns * page size)."""
        if self._score_bias is not None:
            self.bias = self._score_bias(now, places.clamp(max=self.longest - 1))

    def visible(self, window: int | None) -> Tensor:
        """Return a mask of the keys each text's new token attends to. (texts, 1, 1, keys), bool."""
        if window not in self._near:
            visible = self._visible
            if window is not None:
                places = torch.arange(visible.shape[-1], device=visible.device)
                visible = visible & (places > self.positions[: self.singles, None] - window)
            self._near[window] = visible[:, None, None]
        return self._near[window]


def _span(
    text: PagedText, end: int, page_size: int, device: torch.device, score_bias: ScoreBias | None
) -> PromptSpan:
    total = text.past + text.new
    keys = torch.arange(total, device=device)
    queries = keys[text.past :]
    pages = None
    if text.past:
        pages = torch.tensor(text.pages[: -(-total // page_size)], device=device)
    bias = None if score_bias is None else score_bias(queries, keys)
    visibility = Visibility(causal=True, query_positions=queries, key_positions=keys, bias=bias)
    return PromptSpan(end - text.new, end, pages, visibility)
