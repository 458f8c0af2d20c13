"""Split histories into training, validation and test events, and report leakage.

    time            events before a cutoff are for training; each user's first later event is a
                    target; events of one time stay together
    leave-one-out   each user's last event is for the test, the one before it for validation
    user            some users are for training; the last events of the others are targets

Leave-one-out lets a model learn from other users' events that happened after the target, which a
deployed recommender cannot (Ji et al. 2023; 2507.16289). `Split.leaked` is the share of the
training events that are later than the first test target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import ConfigError, InputError
from idiolect.recommend.histories import Histories
from idiolect.recommend.model_kinds import SplitKind, Target

__all__ = ["Cases", "Split", "split"]


@dataclass(frozen=True)
class Cases:
    """Prediction tasks: histories and their targets, the next item or the items of a basket."""

    users: tuple[int, ...]
    """Numbers of the users."""
    contexts: Sequence[NDArray[np.int64]]
    """The items before the target, oldest first."""
    targets: NDArray[np.int64]
    """The target items, grouped by case. Shape: (targets,)."""
    owners: NDArray[np.int64]
    """The case of each target. Shape: (targets,)."""

    @classmethod
    def of(
        cls,
        users: Sequence[int],
        contexts: Sequence[NDArray[np.int64]],
        targets: NDArray[np.int64],
    ) -> Cases:
        """Make cases with one target each. Shape: targets (cases,)."""
        return cls(tuple(users), contexts, targets, np.arange(len(targets)))

    def __len__(self) -> int:
        return len(self.contexts)

    def some(self, count: int, seed: int = 0) -> Cases:
        """Return a random sample of the cases, if there are more than `count`."""
        return self.part(np.random.default_rng(seed).permutation(len(self))[:count])

    def part(self, numbers: NDArray[np.int64]) -> Cases:
        """Return the cases with the given numbers, in that order."""
        place = np.full(len(self), -1)
        place[numbers] = np.arange(len(numbers))
        owners = place[self.owners]
        order = np.flatnonzero(owners >= 0)
        order = order[np.argsort(owners[order], kind="stable")]
        return Cases(
            tuple(self.users[n] for n in numbers),
            [self.contexts[n] for n in numbers],
            self.targets[order],
            owners[order],
        )


@dataclass(frozen=True)
class Split:
    """Training events, and cases for validation and test."""

    kind: SplitKind
    """The kind of split."""
    train: Histories
    """Training events; users and items keep their numbers."""
    valid: Cases
    """Validation cases, for choosing settings."""
    test: Cases
    """Test cases, for reported results."""
    leaked: float | None
    """Share of the training events that are later than the first test target; None without
    times."""

    def report(self) -> str:
        """Describe the split in one line."""
        text = (
            f"split by {self.kind}: {len(self.train.events):,} training events,"
            f" {len(self.valid):,} validation and {len(self.test):,} test cases"
        )
        if self.leaked is None:
            return f"{text}; without times, leakage cannot be measured"
        if self.leaked == 0:
            return f"{text}; no training event is later than a test target"
        return (
            f"{text}; LEAK: {self.leaked:.1%} of the training events are later than the first test"
            " target"
        )


def split(
    histories: Histories, kind: SplitKind | None = None, target: Target = "next-item"
) -> Split:
    """Split histories into training events, validation cases and test cases.

    Args:
        histories: The events.
        kind: The kind of split; by default `time` if times are known, or else `leave-one-out`.
        target: Predict the next item, or all items of the user's next basket (events with the same
            time).

    Raises:
        ConfigError: The kind is unknown, or needs times that are not known.
        InputError: There are no test cases.
    """
    kind = kind or ("leave-one-out" if histories.times is None else "time")
    if kind not in get_args(SplitKind):
        raise ConfigError(f"split is {kind!r}", hint="one of " + ", ".join(get_args(SplitKind)))
    if target not in get_args(Target):
        raise ConfigError(f"target is {target!r}", hint="one of " + ", ".join(get_args(Target)))
    if target == "next-basket" and kind != "time":
        raise ConfigError("the next basket needs a split by time", hint="give events a time")
    if kind == "time":
        if histories.times is None:
            raise ConfigError("a split by time needs times", hint="split by leave-one-out")
        first, second = _cutoffs(histories.times)
        training = histories.times < first
        valid = _first_after(histories, first, second)
        test = _first_after(histories, second, np.inf)
    else:
        lengths = np.diff(histories.offsets)
        from_end = histories.offsets[1:][histories.owners] - np.arange(len(histories.events))
        asked = lengths >= 3
        if kind == "user":
            asked &= np.random.default_rng(0).permutation(len(histories)) % 5 == 0
            training = ~asked[histories.owners]
        else:
            training = ~asked[histories.owners] | (from_end > 2)
        users = np.flatnonzero(asked)
        valid = histories.offsets[1:][users] - 2
        test = histories.offsets[1:][users] - 1
    if not len(test) or not training.any():
        raise InputError(
            f"a split by {kind} leaves no {'test case' if training.any() else 'training event'}",
            hint="short sessions lie before or after the split: use leave-one-out or user"
            if kind == "time"
            else "a user needs 3 events",
        )
    leaked = None
    if histories.times is not None:
        leaked = float((histories.times[training] >= histories.times[test].min()).mean())
    make = _baskets if target == "next-basket" else _cases
    return Split(
        kind, histories.keep(training), make(histories, valid), make(histories, test), leaked
    )


def _cutoffs(times: NDArray[np.float64]) -> tuple[float, float]:
    """Return when the events for validation begin, and those for the test.

    Many events may have one time, such as those of a day. If no event is between the cutoffs for
    that reason, the last time before the test is for validation, unless it is also the first.
    """
    first, second = np.quantile(times, [0.8, 0.9])
    before = times[times < second]
    if not (before >= first).any() and len(before) and before.min() < before.max():
        first = before.max()
    return float(first), float(second)


def _first_after(histories: Histories, start: float, end: float) -> NDArray[np.int64]:
    """Return the first event in a period of each user with an earlier event."""
    assert histories.times is not None
    inside = np.flatnonzero((histories.times >= start) & (histories.times < end))
    _, first = np.unique(histories.owners[inside], return_index=True)
    places = inside[first]
    return places[places > histories.offsets[histories.owners[places]]]


def _cases(histories: Histories, places: NDArray[np.int64]) -> Cases:
    """Return cases whose targets are the events at `places`, with the events before them."""
    users = histories.owners[places]
    starts = histories.offsets[users]
    contexts = [histories.events[a:b] for a, b in zip(starts, places, strict=True)]
    return Cases.of(users.tolist(), contexts, histories.events[places])


def _baskets(histories: Histories, places: NDArray[np.int64]) -> Cases:
    """Return cases whose targets are all events of the baskets that start at `places`."""
    assert histories.times is not None
    first = _cases(histories, places)
    ends = histories.offsets[histories.owners[places] + 1]
    targets = []
    for place, end in zip(places, ends, strict=True):
        same = histories.times[place:end] == histories.times[place]
        targets.append(np.unique(histories.events[place:end][same]))
    owners = np.repeat(np.arange(len(targets)), [len(one) for one in targets])
    joined = np.concatenate([*targets, np.zeros(0, np.int64)]).astype(np.int64)
    return Cases(first.users, first.contexts, joined, owners)
