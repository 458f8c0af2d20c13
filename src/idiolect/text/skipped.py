"""Records that are left out: counted by reason, and named by their first places."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from idiolect.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["MAX_UNREADABLE", "Fault", "Skipped", "readable_rows", "shown_places", "skip", "summary"]

MAX_UNREADABLE = 0.01
"""Default share of a file's rows that may be unreadable; more of them are an error."""
_SHOWN = 3
_ADVICE = {
    "bad UTF-8": ", or convert the file to UTF-8",
    "Python dict instead of JSON": " (json.dumps writes JSON, str and print do not)",
}
"""What else helps, by the reason of a fault."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Stands for a row that cannot be read."""

    reason: str
    """What is wrong with it, such as `malformed CSV`."""


class Skipped(Counter[str]):
    """Number of records that were left out, by reason, with the places of the first ones.

    >>> skipped = Skipped()
    >>> skip(skipped, "empty", "items.csv line 7")
    >>> skipped["empty"], summary(skipped)
    (1, '1 empty (items.csv line 7)')
    """

    def __init__(self, *args: Any, **counts: int) -> None:
        self.places: dict[str, list[str]] = {}
        super().__init__(*args, **counts)

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the places in copies, also those for other processes."""
        return type(self), (dict(self),), {"places": self.places}

    def update(self, *args: Any, **counts: int) -> None:
        """Add the counts, and the places, of another."""
        for other in args:
            for reason, places in getattr(other, "places", {}).items():
                own = self.places.setdefault(reason, [])
                own += places[: _SHOWN - len(own)]
        super().update(*args, **counts)

    def clear(self) -> None:
        """Forget all."""
        self.places.clear()
        super().clear()


def skip(skipped: Counter[str], reason: str, place: str) -> None:
    """Count a record that is left out; a `Skipped` also keeps the first places of each reason."""
    skipped[reason] += 1
    if isinstance(skipped, Skipped):
        places = skipped.places.setdefault(reason, [])
        if len(places) < _SHOWN:
            places.append(place)


def summary(skipped: Counter[str]) -> str:
    """Describe what was left out in one line: counts, reasons and the first places."""
    return ", ".join(
        f"{count:,} {reason}{shown_places(skipped, reason)}"
        for reason, count in skipped.most_common()
    )


def shown_places(skipped: Counter[str], reason: str) -> str:
    """Return the first places of a reason in brackets, after a space; empty if none are known."""
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
    """Yield the rows that could be read; count and name the others.

    Args:
        rows: The number and the content of each row, or a `Fault` in its place.
        path: The file, for messages.
        unit: What the numbers count: `line` or `row`.
        skipped: Counts the faults by reason.
        max_unreadable: The share of rows that may be unreadable.
        kinds: The types of rows that can be used.

    Raises:
        InputError: At the end of the file, more rows than that cannot be read.
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
    bad = faults.total()
    if bad > max_unreadable * (read + bad):
        raise InputError(
            f"{path}: {bad:,} of {read + bad:,} {unit}s cannot be read: {summary(faults)}",
            hint=f"correct them{''.join(_ADVICE.get(reason, '') for reason in faults)}, or allow a"
            " larger share: --max-unreadable, max_unreadable",
        )
