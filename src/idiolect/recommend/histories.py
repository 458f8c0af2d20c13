"""`Histories`: the interactions of each user, in order; and k-core filtering.

Users and items are numbered in order of first occurrence. All events are in one array, grouped by
user, so that a user's history is a slice of it.

>>> shop = Histories.of({"ann": ["pen", "ink"], "bob": ["ink"]})
>>> shop.items, shop.of_user(0).tolist()
(('pen', 'ink'), [0, 1])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError
from idiolect.text.arguments import check_whole

__all__ = ["Histories", "k_core"]

_REPEATS = 0.01
"""Share of repeated events at which recommending items of the history is part of the task."""


@dataclass(frozen=True)
class Histories:
    """The events of all users.

    Shape: offsets (users + 1,), events and times (events,).
    """

    users: tuple[str, ...]
    """Ids of the users."""
    items: tuple[str, ...]
    """Ids of the items; some may occur in no event."""
    offsets: NDArray[np.int64]
    """Offset of the first event of each user; the last element is the number of events."""
    events: NDArray[np.int64]
    """The item number of each event."""
    times: NDArray[np.float64] | None = None
    """Seconds since 1970 of each event, if they are known."""

    @classmethod
    def of(cls, histories: Mapping[str, Sequence[str]]) -> Self:
        """Make histories of ids, oldest first.

        Args:
            histories: The items of each user.
        """
        items: dict[str, int] = {}
        rows = [[items.setdefault(id, len(items)) for id in row] for row in histories.values()]
        return cls.of_numbers(tuple(histories), tuple(items), rows)

    @classmethod
    def of_numbers(
        cls,
        users: tuple[str, ...],
        items: tuple[str, ...],
        rows: Sequence[Sequence[int] | NDArray[np.int64]],
        times: Sequence[NDArray[np.float64]] | None = None,
    ) -> Self:
        """Make histories of item numbers, oldest first."""
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        events = np.concatenate([np.zeros(0, np.int64), *(np.asarray(r, np.int64) for r in rows)])
        joined = None if times is None else np.concatenate([np.zeros(0), *times])
        return cls(users, items, offsets, events, joined)

    def __len__(self) -> int:
        return len(self.users)

    def of_user(self, number: int) -> NDArray[np.int64]:
        """Return the item numbers of a user, oldest first."""
        return self.events[self.offsets[number] : self.offsets[number + 1]]

    @property
    def rows(self) -> list[NDArray[np.int64]]:
        """The item numbers of every user."""
        return [self.of_user(number) for number in range(len(self))]

    @property
    def owners(self) -> NDArray[np.int64]:
        """The user number of each event. Shape: (events,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def counts(self) -> NDArray[np.int64]:
        """How often each item occurs. Shape: (items,)."""
        return np.bincount(self.events, minlength=len(self.items))

    def keep(self, kept: NDArray[np.bool_]) -> Histories:
        """Keep some events; users and items keep their numbers. Shape: kept (events,)."""
        lengths = np.bincount(self.owners[kept], minlength=len(self))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        times = None if self.times is None else self.times[kept]
        return Histories(self.users, self.items, offsets, self.events[kept], times)

    def without_unused(self) -> Histories:
        """Remove users and items without events, and renumber the others."""
        used = np.flatnonzero(self.counts)
        number = np.full(len(self.items), -1)
        number[used] = np.arange(len(used))
        filled = np.flatnonzero(np.diff(self.offsets))
        offsets = np.concatenate([[0], np.cumsum(np.diff(self.offsets)[filled])])
        return Histories(
            tuple(self.users[i] for i in filled),
            tuple(self.items[i] for i in used),
            offsets,
            number[self.events],
            self.times,
        )

    @property
    def repeats(self) -> float:
        """Share of events whose item already occurred in the user's history."""
        if not len(self.events):
            return 0.0
        pairs = self.owners * len(self.items) + self.events
        return 1 - len(np.unique(pairs)) / len(pairs)

    @property
    def repeats_are_rare(self) -> bool:
        """Whether repeats are so rare that items of the history should not be recommended."""
        return self.repeats < _REPEATS

    def numbers_of(self, ids: Iterable[str]) -> tuple[list[int], list[str]]:
        """Return the numbers of known ids, and the unknown ids."""
        known = {id: number for number, id in enumerate(self.items)}
        ids = list(ids)
        return [known[id] for id in ids if id in known], [id for id in ids if id not in known]


def k_core(histories: Histories, k: int) -> Histories:
    """Repeatedly remove users and items with fewer than k events, until all have at least k.

    Raises:
        InputError: Nothing remains.
    """
    check_whole(k, "k_core", 1)
    while True:
        users, items = np.diff(histories.offsets), histories.counts
        kept = (users[histories.owners] >= k) & (items[histories.events] >= k)
        if kept.all():
            return histories
        if not kept.any():
            raise InputError(
                f"no user and item have {k} events each", hint="choose a smaller k_core"
            )
        histories = histories.keep(kept).without_unused()
