"""Agreement of scores with preferences, and whether scores only measure length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import spearmanr

from idiolect.alignment.preference.preferences import Preference, prompt_text
from idiolect.tasks.classify.classification_baselines import TfidfFeatures
from idiolect.tasks.classify.labelled_texts import LabelledText

__all__ = [
    "Band",
    "RewardScores",
    "TfidfReward",
    "evaluate_margins",
    "length_margins",
    "prompt_folds",
]

_STRENGTH = 10.0
"""Inverse regularisation strength, as in the classifiers' baseline."""


@dataclass(frozen=True)
class Band:
    """A range of pairs, and how often scores agree with the preferences there."""

    low: float
    high: float
    """The range of the quantity by which pairs are grouped."""
    count: int
    expected: float
    """Mean confidence: the probability of the answer with the higher score."""
    agreement: float
    """Share of pairs in which the higher score is right."""


@dataclass(frozen=True)
class RewardScores:
    """How well scores agree with preferences."""

    pairs: int
    agreement: float
    """Share of pairs whose chosen answer scores higher; equal scores count half."""
    low: float
    high: float
    """95 % bootstrap interval of the agreement, over prompts."""
    nll: float
    """Mean −log σ(margin)."""
    calibration_error: float
    """Mean distance between confidence and agreement over ten bins (ECE)."""
    longer_wins: float
    """Share of pairs whose longer answer is chosen: a trivial baseline."""
    length_correlation: float
    """Spearman's correlation of margins with differences in length. Near ±1, the scores measure
    little else than length."""
    calibration: list[Band]
    """Agreement by confidence of the scores."""
    by_length: list[Band]
    """Agreement by how many characters longer the chosen answer is."""

    def as_dict(self) -> dict[str, Any]:
        """Return all values, for JSON."""
        return asdict(self)


def length_margins(preferences: Sequence[Preference]) -> NDArray[np.float64]:
    """Return how many characters longer each chosen answer is. Shape: (pairs,)."""
    return np.array([float(len(p.chosen) - len(p.rejected)) for p in preferences])


def evaluate_margins(
    preferences: Sequence[Preference],
    margins: NDArray[np.float64],
    *,
    bands: int = 5,
    samples: int = 1000,
    seed: int = 0,
) -> RewardScores:
    """Compare margins of scores with preferences.

    Args:
        preferences: The pairs.
        margins: By how much each chosen answer scores higher.
        bands: Number of equally large groups of pairs, by length.
        samples: Number of bootstrap samples.
        seed: Random seed of the bootstrap.
    """
    right = np.where(margins == 0, 0.5, margins > 0)
    lengths = length_margins(preferences)
    confidence = expit(np.abs(margins))
    low, high = _interval(preferences, right, samples, seed)
    calibration = [
        _band(confidence, right, confidence, first, last, closed=last == 1)
        for first, last in zip(np.linspace(0.5, 0.95, 10), np.linspace(0.55, 1, 10), strict=True)
    ]
    calibration = [band for band in calibration if band.count]
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, bands + 1)))
    by_length = [
        _band(lengths, right, confidence, first, last, closed=last == edges[-1])
        for first, last in pairwise(edges)
    ]
    varied = len(np.unique(margins)) > 1 and len(np.unique(lengths)) > 1
    return RewardScores(
        pairs=len(margins),
        agreement=float(right.mean()),
        low=low,
        high=high,
        nll=float(np.logaddexp(0, -margins).mean()),
        calibration_error=sum(b.count * abs(b.expected - b.agreement) for b in calibration)
        / len(margins),
        longer_wins=float(np.where(lengths == 0, 0.5, lengths > 0).mean()),
        length_correlation=float(spearmanr(margins, lengths).statistic) if varied else 0.0,
        calibration=calibration,
        by_length=[band for band in by_length if band.count],
    )


class TfidfReward:
    """Baseline: a Bradley-Terry model on TF-IDF of words and word pairs.

    Args:
        preferences: The training pairs.
    """

    def __init__(self, preferences: Sequence[Preference]) -> None:
        sides = [(LabelledText(p.chosen), LabelledText(p.rejected)) for p in preferences]
        self._features = TfidfFeatures([text for pair in sides for text in pair])
        difference = self._difference(preferences)
        transposed = difference.T.tocsr()

        def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            margin = difference @ weights
            value = _STRENGTH * np.logaddexp(0, -margin).sum() + 0.5 * weights @ weights
            return float(value), weights - _STRENGTH * (transposed @ expit(-margin))

        start = np.zeros(difference.shape[1])
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 300})
        self._weights: NDArray[np.float64] = found.x

    def margins(self, preferences: Sequence[Preference]) -> NDArray[np.float64]:
        """Return by how much each chosen answer scores higher. Shape: (pairs,)."""
        found: NDArray[np.float64] = self._difference(preferences) @ self._weights
        return found

    def _difference(self, preferences: Sequence[Preference]) -> Any:
        chosen = self._features([LabelledText(p.chosen) for p in preferences])
        return chosen - self._features([LabelledText(p.rejected) for p in preferences])


def prompt_folds(
    preferences: Sequence[Preference], folds: int, *, seed: int = 0
) -> NDArray[np.int64]:
    """Return the fold of each pair; pairs of a prompt share a fold. Shape: (pairs,)."""
    texts = [prompt_text(p.prompt) for p in preferences]
    unique = sorted(set(texts))
    order = np.random.default_rng(seed).permutation(len(unique))
    fold = {text: int(order[number]) % folds for number, text in enumerate(unique)}
    return np.array([fold[text] for text in texts])


def _band(
    values: NDArray[np.float64],
    right: NDArray[np.float64],
    confidence: NDArray[np.float64],
    low: float,
    high: float,
    *,
    closed: bool,
) -> Band:
    """Return the band from `low` to `high`; only a closed one, the last, includes `high`."""
    own = (values >= low) & ((values <= high) if closed else (values < high))
    count = int(own.sum())
    if not count:
        return Band(float(low), float(high), 0, 0.0, 0.0)
    means = float(confidence[own].mean()), float(right[own].mean())
    return Band(float(low), float(high), count, *means)


def _interval(
    preferences: Sequence[Preference], right: NDArray[np.float64], samples: int, seed: int
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean, over prompts with all their pairs."""
    numbers: dict[str, int] = {}
    prompts = np.array(
        [numbers.setdefault(prompt_text(p.prompt), len(numbers)) for p in preferences]
    )
    sums = np.bincount(prompts, right)
    counts = np.bincount(prompts)
    drawn = np.random.default_rng(seed).integers(len(counts), size=(samples, len(counts)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
