"""Page allocation of a paged KV cache, with prefix sharing.

Only page numbers are managed here; keys and values are in `idiolect.nn.paging`. A full page is
identified by its tokens and the page before it, so prompts with the same prefix share pages. This
includes the pages of finished sequences, such as the previous turns of a conversation. Pages
without an owner are cached until their space is needed; the least recently used is evicted first.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Sequence

__all__ = ["PagePool"]

_Key = tuple[int, tuple[int, ...]]
"""The serial number of the content before a page, and the page's tokens."""
_START = 0


class PagePool:
    """Allocates pages, numbered from 0; the pool grows when all pages are owned.

    Args:
        page_size: Tokens per page.
        least: Up to this size, the pool grows instead of evicting a page without an owner.
    """

    def __init__(self, page_size: int, *, least: int = 0) -> None:
        self.page_size, self._least = page_size, least
        self.size = 0
        """Number of pages, which is the size of the cache: at most `least`, or the maximum number
        of pages that were ever owned at the same time."""
        self.reused = 0
        """Number of cache hits: pages that were reused instead of computed."""
        self._free: list[int] = []
        self._owners: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._known: dict[_Key, int] = {}
        self._keys: dict[int, _Key] = {}
        self._serials: dict[int, int] = {}
        self._next_serial = _START + 1

    @property
    def owned(self) -> int:
        """Number of pages that have an owner now."""
        return len(self._owners)

    def open(self, ids: Sequence[int]) -> tuple[list[int], int]:
        """Allocate pages for a prompt; return them, and the number of its tokens that are cached.

        At least the last token must be computed, since its hidden state predicts the next one. The
        prompt's other full pages can be shared at once: a forward pass writes all keys before it
        reads any, so another prompt in the same pass may already use them.
        """
        pages, size, before, found = list[int](), self.page_size, _START, True
        past = 0
        for start in range(0, len(ids), size):
            tokens = tuple(ids[start : start + size])
            key = before, tokens
            page = self._known.get(key) if found and start + size < len(ids) else None
            if page is not None:
                self._own(page)
                self.reused += 1
                past = start + size
            else:
                found = False
                page = self.take()
                if len(tokens) == size and key not in self._known:
                    self._remember(page, key)
            pages.append(page)
            # A full page is not registered twice if it is cached but its last token is recomputed.
            before = self._serials.get(page, -1)
        return pages, past

    def take(self) -> int:
        """Allocate an empty page with one owner."""
        if self._free:
            page = heapq.heappop(self._free)
        elif self._idle and self.size >= self._least:
            page, _ = self._idle.popitem(last=False)
            del self._known[self._keys.pop(page)], self._serials[page]
        else:
            page, self.size = self.size, self.size + 1
        self._owners[page] = 1
        return page

    def release(self, pages: Sequence[int], ids: Sequence[int]) -> None:
        """Remove one owner of pages, and register full pages by their tokens for reuse."""
        self._know(pages, ids)
        # Last page first: it is useless without the pages before it, so it is evicted earlier.
        for page in reversed(pages):
            self._owners[page] -= 1
            if self._owners[page]:
                continue
            del self._owners[page]
            if page in self._keys:
                self._idle[page] = None
            else:
                heapq.heappush(self._free, page)

    def _know(self, pages: Sequence[int], ids: Sequence[int]) -> None:
        before, size = _START, self.page_size
        for number, page in enumerate(pages[: len(ids) // size]):
            key = before, tuple(ids[number * size : (number + 1) * size])
            if key not in self._known and page not in self._keys:
                self._remember(page, key)
            # Of two pages with the same content, the registered one is the parent of the next page.
            before = self._serials[self._known.get(key, page)]

    def _remember(self, page: int, key: _Key) -> None:
        self._known[key], self._keys[page] = page, key
        self._serials[page] = self._next_serial
        self._next_serial += 1

    def _own(self, page: int) -> None:
        self._idle.pop(page, None)
        self._owners[page] = self._owners.get(page, 0) + 1
