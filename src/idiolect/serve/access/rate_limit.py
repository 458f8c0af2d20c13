"""`RateLimit`: a rate limit per key or address (token buckets)."""

from __future__ import annotations

import time
from collections import OrderedDict

__all__ = ["RateLimit"]

_MAX_SENDERS = 10_000  # bounds memory; the least recent senders are dropped


class RateLimit:
    """Token buckets that refill at a constant rate.

    Args:
        per_minute: Requests per minute; 0 for no limit. The burst size is a tenth of it.
    """

    def __init__(self, per_minute: int) -> None:
        self._rate = per_minute / 60
        self._size = max(1.0, per_minute / 10)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, sender: str, now: float | None = None) -> float:
        """Count a request; return 0 if it is permitted, or else the seconds until it would be."""
        if not self._rate:
            return 0.0
        now = time.monotonic() if now is None else now
        left, last = self._buckets.pop(sender, (self._size, now))
        left = min(self._size, left + (now - last) * self._rate)
        permitted = left >= 1
        self._buckets[sender] = (left - 1 if permitted else left, now)
        if len(self._buckets) > _MAX_SENDERS:
            self._buckets.popitem(last=False)
        return 0.0 if permitted else (1 - left) / self._rate
