"""Is one system better than another, or was it the choice of queries? Two paired answers.

- The bootstrap draws the queries anew, with replacement, and gives the interval in which the mean
  difference falls (Efron 1979; in retrieval Sakai 2006, SIGIR, "Evaluating evaluation metrics based
  on the bootstrap").
- The randomisation test exchanges the two systems' values of a query at random and asks how often
  a difference this large comes about so (Fisher 1935; recommended for retrieval by Smucker et al.
  2007, CIKM). It assumes nothing about the distribution of the values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError

__all__ = ["Comparison", "compare"]

_AT_ONCE = 4_000_000
"""Numbers drawn at once."""


@dataclass(frozen=True)
class Comparison:
    """What the difference between two systems is worth."""

    queries: int
    """How many queries both were evaluated on."""
    difference: float
    """The mean of the second system less that of the first."""
    low: float
    """Lower end of the 95% interval, by the bootstrap."""
    high: float
    """Upper end of it."""
    p_value: float
    """How probable a difference at least as large is between equals: two-sided randomisation."""
    wins: int
    """Queries on which the second system is better."""
    losses: int
    """Queries on which it is worse."""


def compare(
    first: Mapping[str, float],
    second: Mapping[str, float],
    *,
    rounds: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare two systems' values of one measure, query by query.

    Args:
        first: The value of each query, for the system that is compared with.
        second: The same queries' values for the other system.
        rounds: How often to draw.
        seed: Where chance begins; the same seed gives the same numbers.

    Raises:
        InputError: The queries are not the same, or there are none.
    """
    if first.keys() != second.keys() or not first:
        odd = sorted(first.keys() ^ second.keys())
        raise InputError(
            f"two systems evaluated on different queries: {', '.join(odd[:5]) or 'none at all'}",
            hint="evaluate both against the same judgements",
        )
    gain = np.array([second[query] - first[query] for query in first])
    count, observed = len(gain), float(gain.mean())
    draw = np.random.default_rng(seed)
    resampled = _rounds(
        rounds, count, lambda size: gain[draw.integers(count, size=(size, count))].mean(axis=1)
    )
    exchanged = _rounds(
        rounds,
        count,
        lambda size: (draw.integers(2, size=(size, count), dtype=np.int8) * 2 - 1) @ gain / count,
    )
    low, high = np.quantile(resampled, [0.025, 0.975])
    # Sums of the same numbers in another order differ in their last bits.
    as_large = int((np.abs(exchanged) >= abs(observed) - 1e-12).sum())
    return Comparison(
        queries=count,
        difference=observed,
        low=float(low),
        high=float(high),
        p_value=(as_large + 1) / (rounds + 1),
        wins=int((gain > 0).sum()),
        losses=int((gain < 0).sum()),
    )


def _rounds(
    rounds: int, count: int, means: Callable[[int], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Draw all rounds, as many at once as memory allows."""
    step = max(1, _AT_ONCE // count)
    return np.concatenate([means(min(step, rounds - at)) for at in range(0, rounds, step)])
