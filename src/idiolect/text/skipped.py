"""Count skipped records by reason, with the locations of the first ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from idiolect.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "MAX_UNREADABLE",
    "Fault",
    "Skipped",
    "check_share",
    "readable_rows",
    "shown_places",
    "skip",
    "summary",
]

MAX_UNREADABLE = 0.01
"""Default maximum share of unreadable rows in a file; more raise an error."""
_SHOWN = 3
_SHOWN_REASONS = 5
_MOST_REASONS = 1000
"""Reasons may quote the file, and so be as many as its lines."""
_OTHERS = "for other reasons"
_ADVICE = {
    "bad UTF-8": ", or convert the file to UTF-8",
    "Python dict instead of JSON": " (json.dumps writes JSON, str and print do not)",
}
"""Additional hints for the user, by the reason of a fault."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Placeholder for a row that cannot be read."""

    reason: str
    """The reason, such as `malformed CSV`."""


class Skipped(Counter[str]):
    """Number of skipped records by reason, with the locations of the first ones.

    >>> skipped = Skipped()
    >>> skip(skipped, "empty", "items.csv line 7")
    >>> skipped["empty"], summary(skipped)
    (1, '1 empty (items.csv line 7)')
    """

    def __init__(self, *args: Any, **counts: int) -> None:
        self.places: dict[str, list[str]] = {}
        super().__init__(*args, **counts)

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the locations when copied or pickled."""
        return type(self), (dict(self),), {"places": self.places}

    def update(self, *args: Any, **counts: int) -> None:
        """Add the counts and locations of another."""
        for other in args:
            for reason, places in getattr(other, "places", {}).items():
                own = self.places.setdefault(reason, [])
                own += places[: _SHOWN - len(own)]
        super().update(*args, **counts)

    def clear(self) -> None:
        """Remove all counts and locations."""
        self.places.clear()
        super().clear()


def skip(skipped: Counter[str], reason: str, place: str) -> None:
    """Count a skipped record; a `Skipped` also keeps the first locations for each reason.

    After the first 1,000 reasons, new ones are counted together.
    """
    if reason not in skipped and len(skipped) >= _MOST_REASONS:
        reason = _OTHERS
    skipped[reason] += 1
    if isinstance(skipped, Skipped):
        places = skipped.places.setdefault(reason, [])
        if len(places) < _SHOWN:
            places.append(place)


def summary(skipped: Counter[str]) -> str:
    """Describe the skipped records in one line: counts, reasons and the first locations.

    The five most frequent reasons are named.
    """
    known = [(reason, count) for reason, count in skipped.most_common() if reason != _OTHERS]
    named = known[:_SHOWN_REASONS]
    told = [f"{count:,} {reason}{shown_places(skipped, reason)}" for reason, count in named]
    if rest := skipped.total() - sum(count for _, count in named):
        told.append(f"{rest:,} {_OTHERS}")
    return ", ".join(told)


def shown_places(skipped: Counter[str], reason: str) -> str:
    """Return a reason's first locations in brackets, after a space; empty if there are none."""
    places = skipped.places.get(reason, []) if isinstance(skipped, Skipped) else []
    more = ", …" if places and skipped[reason] > len(places) else ""
    return f" ({', '.join(places)}{more})" if places else ""


def readable_rows(
    rows: Iterator[tuple[int, Any]],
    path: Path,
    unit: str,
    skipped: Counter[str],
    max_unreadable: float,
    kinds: tuple[type, ...],
) -> Iterator[tuple[int, Any]]:
    """Yield the readable rows, and count the others with their locations.

    Args:
        rows: The number and the content of each row, or a `Fault` instead of the content.
        path: The file, for messages.
        unit: What the numbers count: `line` or `row`.
        skipped: Counts the faults by reason.
        max_unreadable: Maximum share of unreadable rows.
        kinds: The types of usable rows.

    Raises:
        InputError: Once the whole file has been read, more rows than that were unreadable.
    """
    read, faults = 0, Skipped()
    for number, row in rows:
        if isinstance(row, kinds):
            read += 1
            yield number, row
        else:
            place = f"{path.name} {unit} {number:,}"
            reason = row.reason if isinstance(row, Fault) else "not an object"
            skip(faults, reason, place)
            skip(skipped, reason, place)
    check_share(path, unit, read, faults, max_unreadable)


def check_share(
    path: str | Path, unit: str, read: int, faults: Skipped, max_unreadable: float
) -> None:
    """Check the share of unreadable rows in a file.

    Args:
        path: The file, for messages.
        unit: What a row is: `line` or `row`.
        read: Number of readable rows.
        faults: Counts of the other rows by reason.
        max_unreadable: Maximum share of unreadable rows.

    Raises:
        InputError: More rows than that were unreadable.
    """
    bad = faults.total()
    if bad > max_unreadable * (read + bad):
        raise InputError(
            f"{path}: {bad:,} of {read + bad:,} {unit}s cannot be read: {summary(faults)}",
            hint=f"correct them{''.join(_ADVICE.get(reason, '') for reason in faults)}, or allow a"
            " larger share: max_unreadable",
        )
