"""The systems that an evaluation measures, and which of them are compared.

Each stage declares the systems it contributes. The controls show where a gain comes from: `plain`
had the same training budget without new tokens, `random` learned terms chosen at random, and
`untrained` has the new tokens with their initial rows. For an encoder without a language-model head
the `plain` control is the base, tuned in the same way, because imitation would train it to
reproduce itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

__all__ = ["MeasuredSystem", "PairedDifference", "pairs_to_compare"]


class PairedDifference(TypedDict):
    """The difference between two systems over the same queries or cases."""

    first: str
    second: str
    """Names of systems; the difference is the mean of the second minus that of the first."""
    difference: float
    low: float
    high: float
    """Ends of the 95% interval, by paired bootstrap."""
    p_value: float
    """Two-sided paired randomization test."""
    wins: int
    losses: int


@dataclass(frozen=True, kw_only=True)
class MeasuredSystem:
    """A system to evaluate."""

    name: str
    label: str
    """For display."""
    by: Literal["vectors", "bm25", "lexical", "hybrid"] = "vectors"
    """Ranking method: exact search over vectors, BM25, or a mode of the finished index."""
    of_base: bool = False
    """Whether it needs no stage: the base itself, or BM25."""
    stage: str = ""
    """The stage that contributes it, filled in later; empty for a system that needs none."""
    control: bool = False
    """Whether it serves only for comparison."""
    ranks: bool = True
    """Whether it is evaluated on search and similar items."""
    predicts: bool = False
    """Whether bits per byte of its model are measured."""
    finished: bool = False
    """Whether its model is a saved encoder that is used unchanged."""
    against: tuple[str, ...] = ()
    """Names of the systems that it is compared with."""


def pairs_to_compare(systems: Sequence[MeasuredSystem]) -> Iterator[tuple[str, str]]:
    """Yield pairs of names to compare, the second against the first; controls come last."""
    known = {system.name: system for system in systems}
    for control in (False, True):
        for system in systems:
            for other in system.against:
                if other in known and known[other].control == control:
                    yield other, system.name
