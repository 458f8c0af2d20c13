"""Paired significance tests: is one system better than another on the same queries?

- The paired bootstrap resamples queries with replacement. Its quantiles are a confidence interval
  of the mean difference (Efron 1979; in retrieval Sakai 2006, SIGIR, "Evaluating evaluation metrics
  based on the bootstrap").
- The paired randomization test swaps the two values of a query at random. The p-value is the share
  of draws in which the difference is at least as large (Fisher 1935; recommended for retrieval by
  Smucker et al. 2007, CIKM). It assumes nothing about the distribution of the values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError

__all__ = ["Comparison", "compare", "compare_ratios"]

_AT_ONCE = 4_000_000
"""Random numbers held in memory at once."""


@dataclass(frozen=True)
class Comparison:
    """The difference between two systems, with its significance."""

    queries: int
    """Number of queries."""
    difference: float
    """Mean of the second system minus mean of the first."""
    low: float
    """Lower bound of the 95% bootstrap interval."""
    high: float
    """Upper bound of the 95% bootstrap interval."""
    p_value: float
    """Two-sided p-value of the randomization test."""
    wins: int
    """Queries on which the second system is better."""
    losses: int
    """Queries on which the second system is worse."""


def compare(
    first: Mapping[str, float],
    second: Mapping[str, float],
    *,
    rounds: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare two systems by the values of one metric, query by query.

    With a single query, the interval is its own difference, and p is 1.

    Args:
        first: The value of each query, for the baseline.
        second: The value of each query, for the other system.
        rounds: Number of random draws.
        seed: Random seed.

    Raises:
        InputError: The queries differ, or there are none; a value is not finite; or there are no
            rounds.
    """
    if first.keys() != second.keys() or not first:
        odd = sorted(map(str, first.keys() ^ second.keys()))
        raise InputError(
            f"two systems evaluated on different queries: {', '.join(odd[:5]) or 'none at all'}",
            hint="evaluate both against the same judgements",
        )
    if rounds < 1:
        raise InputError(f"rounds is {rounds}", hint="choose 1 or more, such as 10,000")
    for query in first:
        for value in (first[query], second[query]):
            if isinstance(value, str) or not math.isfinite(value):
                raise InputError(
                    f"the value of query {query!r} is {value!r}", hint="use finite numbers"
                )
    gaps = np.array([float(second[query]) - float(first[query]) for query in first])
    count, observed = len(gaps), float(gaps.mean())
    rng = np.random.default_rng(seed)
    resampled = _rounds(
        rounds,
        count,
        lambda size: gaps[rng.integers(count, size=(size, count))].mean(axis=1),
    )
    swapped = _rounds(
        rounds,
        count,
        lambda size: (rng.integers(2, size=(size, count), dtype=np.int8) * 2 - 1) @ gaps / count,
    )
    return _comparison(observed, resampled, swapped, gaps)


def compare_ratios(
    first: NDArray[np.int64], second: NDArray[np.int64], *, rounds: int = 10_000, seed: int = 0
) -> Comparison:
    """Compare two systems by a ratio of sums over texts, such as accuracy or the F1 of spans.

    The texts are resampled and swapped as the queries are in `compare`, and the ratio is computed
    in every round. `difference` is the ratio of the second system minus that of the first.

    Args:
        first: Numerator and denominator of each text, for the baseline. Shape: (texts, 2).
        second: The same for the other system.
        rounds: Number of random draws.
        seed: Random seed.

    Raises:
        InputError: The systems have different numbers of texts, or none, or nothing to divide by.
    """
    count = len(first)
    if first.shape != second.shape or not count or not (first[:, 1].sum() and second[:, 1].sum()):
        raise InputError(
            f"cannot compare ratios of {count:,} and {len(second):,} texts",
            hint="evaluate both on the same texts",
        )
    both = np.concatenate([first, second], 1).astype(np.float64)
    gaps = both[:, 2:] - both[:, :2]
    rng = np.random.default_rng(seed)

    def resampled(size: int) -> NDArray[np.float64]:
        return _gap(rng.multinomial(count, np.full(count, 1 / count), size) @ both)

    def swapped(size: int) -> NDArray[np.float64]:
        moved = rng.integers(2, size=(size, count), dtype=np.int8) @ gaps
        return _gap(both.sum(0) + np.concatenate([moved, -moved], 1))

    observed = float(_gap(both.sum(0)[None])[0])
    # A text with nothing to find in which nothing was found is right.
    empty = both[:, [1, 3]] == 0
    own = np.where(empty, 1.0, both[:, [0, 2]] / np.maximum(both[:, [1, 3]], 1))
    return _comparison(
        observed,
        _rounds(rounds, count, resampled),
        _rounds(rounds, count, swapped),
        own[:, 1] - own[:, 0],
    )


def _comparison(
    observed: float,
    resampled: NDArray[np.float64],
    swapped: NDArray[np.float64],
    gaps: NDArray[np.float64],
) -> Comparison:
    """Return what the differences of all rounds say about the observed one.

    Args:
        observed: The difference between the systems.
        resampled: The difference in each round of the bootstrap.
        swapped: The difference in each round of the randomization test.
        gaps: By how much the second system is better on each query or text.
    """
    low, high = np.quantile(resampled, [0.025, 0.975])
    # Floating-point sums depend on their order, so allow for rounding errors.
    as_large = int((np.abs(swapped) >= abs(observed) - 1e-12).sum())
    return Comparison(
        queries=len(gaps),
        difference=observed,
        low=float(low),
        high=float(high),
        p_value=(as_large + 1) / (len(swapped) + 1),
        wins=int((gaps > 0).sum()),
        losses=int((gaps < 0).sum()),
    )


def _gap(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the second ratio minus the first. Shape: (rounds, 4), (rounds,)."""
    ratios = sums[:, [0, 2]] / np.maximum(sums[:, [1, 3]], 1)
    gap: NDArray[np.float64] = ratios[:, 1] - ratios[:, 0]
    return gap


def _rounds(
    rounds: int, count: int, means: Callable[[int], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Draw all rounds in chunks that fit into memory."""
    step = max(1, _AT_ONCE // count)
    return np.concatenate([means(min(step, rounds - at)) for at in range(0, rounds, step)])
