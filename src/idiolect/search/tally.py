"""`Tally`: count the items of an input by outcome, and report duplicates and skipped fields."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from idiolect.search.items import Item

__all__ = ["Tally"]

_LOG = logging.getLogger(__name__)
_SHOWN = 5  # ids or fields in a message


class Tally:
    """Counts items by outcome. An id counts once, with the outcome of its last item.

    It needs about 80 bytes of memory per item, to recognise repeated ids.
    """

    def __init__(self) -> None:
        self.counts = Counter[str]()
        """Number of items by outcome, and of `duplicate` items."""
        self.left_out = Counter[str]()
        """Metadata fields that were left out, as `field: problem`."""
        self._outcomes: dict[int, str] = {}  # by the 64-bit hash of an id
        self._repeated: dict[str, None] = {}

    def distinct(self, batch: Iterable[Item]) -> list[Item]:
        """Return the last item of each id, and count the others as duplicates."""
        last: dict[str, Item] = {}
        for item in batch:
            if item.id in last:
                self._repeat(item.id)
            last[item.id] = item
        return list(last.values())

    def record(self, id: str, outcome: str) -> None:
        """Count the outcome of an item. It replaces the outcome of an earlier item of this id."""
        key = hash(id)
        earlier = self._outcomes.get(key)
        if earlier is not None:
            self._repeat(id)
            if outcome == "unchanged":  # equal to the earlier item of this input
                return
            self.counts[earlier] -= 1
        self._outcomes[key] = outcome
        self.counts[outcome] += 1

    def finish(self) -> Counter[str]:
        """Log duplicates and left-out fields, and return the counts above zero."""
        if count := self.counts["duplicate"]:
            more = ", …" if len(self._repeated) > _SHOWN else ""
            ids = ", ".join(map(repr, [*self._repeated][:_SHOWN])) + more
            _LOG.warning("%s items had the id of an earlier one and replaced it: %s", count, ids)
        if count := sum(self.left_out.values()):
            self.counts["left_out"] = count
            shown = [f"{what} ({n:,})" for what, n in self.left_out.most_common(_SHOWN)]
            more = "; …" if len(self.left_out) > _SHOWN else ""
            _LOG.warning(
                "left out %s metadata fields that cannot be stored: %s",
                count,
                "; ".join(shown) + more,
            )
        return +self.counts

    def _repeat(self, id: str) -> None:
        self.counts["duplicate"] += 1
        if len(self._repeated) <= _SHOWN:
            self._repeated[id] = None
