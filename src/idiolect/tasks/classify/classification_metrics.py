"""Metrics of a classifier: accuracy, macro-F1, confusion matrix and calibration."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ClassificationScores", "calibration_error", "score_classes"]

_BINS = 15


@dataclass(frozen=True)
class ClassificationScores:
    """Metrics of single-label classification."""

    accuracy: float
    """Share of right predictions."""
    macro_f1: float
    """Mean F1 of the labels that occur as truth or prediction, as in scikit-learn."""
    nll: float
    """Mean negative log-likelihood of the true label, in nats."""
    ece: float
    """Expected calibration error in 15 bins of equal width (Guo et al. 2017, 1706.04599)."""
    confusion: tuple[tuple[int, ...], ...]
    """Counts: a row for each true label, a column for each predicted one."""

    def as_dict(self) -> dict[str, Any]:
        """Return the metrics by name."""
        return asdict(self)


def score_classes(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64]
) -> ClassificationScores:
    """Measure predictions.

    Args:
        probabilities: Of each class. Shape: (texts, labels).
        truth: Numbers of the true classes. Shape: (texts,).
    """
    count, labels = probabilities.shape
    predicted = probabilities.argmax(1)
    confusion = np.zeros((labels, labels), np.int64)
    np.add.at(confusion, (truth, predicted), 1)
    hits = confusion.diagonal()
    both = confusion.sum(0) + confusion.sum(1)
    f1 = 2 * hits[both > 0] / both[both > 0]
    chosen = probabilities[np.arange(count), truth]
    return ClassificationScores(
        accuracy=float((predicted == truth).mean()),
        macro_f1=float(f1.mean()),
        nll=float(-np.log(chosen.clip(1e-12)).mean()),
        ece=calibration_error(probabilities.max(1), predicted == truth),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error in 15 bins of equal width.

    Args:
        confidence: Probability of the prediction. Shape: (decisions,).
        right: Whether the prediction is right. Shape: (decisions,).
    """
    places = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(places, weights=right - confidence, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(confidence))
