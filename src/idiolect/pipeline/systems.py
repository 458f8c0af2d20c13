"""Which systems a run is measured by, and which of them are compared.

What is notable:

- The controls: `plain` had the same budget of training and no new tokens, but for an encoder that
  could only imitate itself and is tuned alike; `random` learnt terms chosen at random; `untrained`
  has the new tokens with their first rows.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["COMPARISONS", "SYSTEMS", "MeasuredSystem"]


@dataclass(frozen=True)
class MeasuredSystem:
    """A system that may be measured."""

    name: str
    label: str
    step: str = ""
    """The step whose model it is; the base itself, or no model, where there is none."""
    control: bool = False
    ranks: bool = True
    """Whether it answers the tests of rankings; else only its bits per byte are measured."""


SYSTEMS = (
    MeasuredSystem("bm25", "BM25"),
    MeasuredSystem("base", "base"),
    MeasuredSystem("vocabulary", "+ vocabulary", "distill"),
    MeasuredSystem("pretraining", "+ pre-training", "adapt"),
    MeasuredSystem("tuning", "+ tuning", "tune"),
    MeasuredSystem("words", "the index, words only", "index"),
    MeasuredSystem("hybrid", "hybrid", "index"),
    MeasuredSystem("untrained", "untrained tokens", "extend", True),
    MeasuredSystem("plain.pretraining", "no new tokens, adapted", "plain.adapt", True, ranks=False),
    MeasuredSystem("plain.tuning", "no new tokens, tuned", "plain.tune", True),
    MeasuredSystem(
        "random.pretraining", "random tokens, adapted", "random.adapt", True, ranks=False
    ),
    MeasuredSystem("random.tuning", "random tokens, tuned", "random.tune", True),
)
"""In the order they are told."""

COMPARISONS = (
    ("base", "vocabulary"),
    ("vocabulary", "pretraining"),
    ("pretraining", "tuning"),
    ("base", "tuning"),
    ("bm25", "tuning"),
    ("bm25", "hybrid"),
    ("words", "hybrid"),
    ("untrained", "vocabulary"),
    ("plain.tuning", "tuning"),
    ("random.tuning", "tuning"),
)
"""Which differences are tested: of each pair the second against the first."""
