"""Which text owns which page of a paged cache, and which pages hold what others begin with.

Only numbers are kept here; keys and values are in `idiolect.nn.paging`. A full page is known by its
tokens and by the page before it, so a prompt that begins alike finds it; so does one that begins
with a text that has left, such as the next turn of a conversation. Pages whose last owner has left
remain known until their space is needed; the one that has been unused for longest goes first.
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
    """Pages by number, counted from 0; the pool grows when all are owned.

    Args:
        page_size: Tokens in a page.
        least: Up to this size, the pool grows rather than forget a page that nobody owns.
    """

    def __init__(self, page_size: int, *, least: int = 0) -> None:
        self.page_size, self._least = page_size, least
        self.size = 0
        """Number of pages, and so the cache's size: at most `least`, or as many as were ever owned
        at the same time."""
        self.reused = 0
        """Number of pages that a text found instead of computing them."""
        self._free: list[int] = []
        self._owners: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._known: dict[_Key, int] = {}
        self._keys: dict[int, _Key] = {}
        self._serials: dict[int, int] = {}
        self._next_serial = _START + 1

    @property
    def owned(self) -> int:
        """Number of pages that texts own now."""
        return len(self._owners)

    def open(self, ids: Sequence[int]) -> tuple[list[int], int]:
        """Give pages to a prompt; return them, and how many of its tokens need not be read.

        At least the last token must be read, since its state predicts the next one. The prompt's
        other full pages become known at once: a pass writes all keys before any is read, so a
        prompt of the same pass may already use them.
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
            # A full page that was known, but whose last token must be read, is not known again.
            before = self._serials.get(page, -1)
        return pages, past

    def take(self) -> int:
        """Give an empty page, with one owner."""
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
        """Take pages from one of their owners, and know them by the tokens that they hold."""
        self._know(pages, ids)
        # The last page first: it is of no use without those before it, so it is forgotten earlier.
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
            # Of two pages with the same content, the one that is known leads to the next.
            before = self._serials[self._known.get(key, page)]

    def _remember(self, page: int, key: _Key) -> None:
        self._known[key], self._keys[page] = page, key
        self._serials[page] = self._next_serial
        self._next_serial += 1

    def _own(self, page: int) -> None:
        self._idle.pop(page, None)
        self._owners[page] = self._owners.get(page, 0) + 1
