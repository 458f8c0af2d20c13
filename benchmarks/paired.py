"""Time two sides in one process, alternating: medians, and the median of the paired ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Pair", "compare"]


@dataclass(frozen=True)
class Pair:
    """The times of both sides, in seconds."""

    ours: list[float]
    theirs: list[float]

    @property
    def ratio(self) -> float:
        """Speed-up of ours over theirs: the median over the pairs."""
        return statistics.median(b / a for a, b in zip(self.ours, self.theirs, strict=True))

    def line(self, name: str, target: float) -> str:
        """One row of a report."""
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        low = min(b / a for a, b in zip(self.ours, self.theirs, strict=True))
        high = max(b / a for a, b in zip(self.ours, self.theirs, strict=True))
        verdict = "reached" if self.ratio >= target else "missed"
        return (
            f"{name:<46} ours {ours:8.4f} s  theirs {theirs:8.4f} s  ratio {self.ratio:5.2f} "
            f"({low:.2f}-{high:.2f})  target {target:.2f} {verdict}"
        )


def compare(
    ours: Callable[[], object], theirs: Callable[[], object], *, pairs: int = 7, warm: int = 1
) -> Pair:
    """Time both sides. The order alternates, since the second side finds warm caches."""
    for _ in range(warm):
        ours()
        theirs()
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(pairs):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        for side in order:
            begin = time.perf_counter()
            (ours, theirs)[side]()
            times[side].append(time.perf_counter() - begin)
    return Pair(*times)
