"""Metrics of multi-label classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idiolect.tasks.classify.classification_metrics import calibration_error
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.tasks.html_report import html_page, html_table

__all__ = ["MultiLabelScores", "multi_label_page", "score_multi_label"]


@dataclass(frozen=True)
class MultiLabelScores:
    """Metrics of multi-label classification."""

    micro_f1: float
    """F1 over all decisions, as in scikit-learn."""
    macro_f1: float
    """Mean F1 of the labels; 0 for a label that neither occurs nor is predicted."""
    subset_accuracy: float
    """Share of texts with exactly the right labels."""
    nll: float
    """Mean negative log-likelihood of a decision, in nats."""
    ece: float
    """Expected calibration error of the decisions, in 15 bins of equal width."""
    confusion: tuple[tuple[int, int, int, int], ...]
    """For each label: true positives, false positives, false negatives, true negatives."""

    def as_dict(self) -> dict[str, Any]:
        """Return the metrics by name."""
        return asdict(self)


def score_multi_label(probabilities: NDArray[np.float64], truth: NDArray[Any]) -> MultiLabelScores:
    """Score predictions; a label is predicted if its probability is above one half.

    Args:
        probabilities: Of each label. Shape: (texts, labels).
        truth: 1 for the labels of a text. Shape: (texts, labels).
    """
    found, true = probabilities > 0.5, truth > 0.5
    counts = [(found & true), (found & ~true), (~found & true), (~found & ~true)]
    hits, wrong, missed, out = (one.sum(0) for one in counts)
    chosen = np.where(true, probabilities, 1 - probabilities)
    total = 2 * hits + wrong + missed
    sure = np.maximum(probabilities, 1 - probabilities).ravel()
    return MultiLabelScores(
        micro_f1=float(2 * hits.sum() / max(total.sum(), 1)),
        macro_f1=float((2 * hits / total.clip(1)).mean()),
        subset_accuracy=float((found == true).all(1).mean()),
        nll=float(-np.log(chosen.clip(1e-12)).mean()),
        ece=calibration_error(sure, (found == true).ravel()),
        confusion=tuple(zip(*(one.tolist() for one in (hits, wrong, missed, out)), strict=True)),
    )


def multi_label_page(
    scores: Mapping[str, MultiLabelScores],
    labels: Sequence[str],
    examples: Sequence[LabelledText],
    probabilities: NDArray[np.float64],
    truth: NDArray[Any],
    *,
    shown: int = 50,
) -> str:
    """Return an HTML page: metrics, a confusion matrix of each label, and the worst errors.

    Args:
        scores: Metrics by system name; the confusion matrices are those of the first.
        labels: The labels.
        examples: The texts.
        probabilities: The first system's. Shape: (texts, labels).
        truth: 1 for the labels of a text. Shape: (texts, labels).
        shown: How many texts to show, those with the least probable labels first.
    """
    measures = html_table(
        ["system", "micro-F1", "macro-F1", "all right", "NLL", "ECE"],
        [
            [n, *(f"{v:.4f}" for v in (s.micro_f1, s.macro_f1, s.subset_accuracy, s.nll, s.ece))]
            for n, s in scores.items()
        ],
    )
    first = next(iter(scores.values()))
    confusion = html_table(
        ["label", "found", "wrongly found", "missed", "left out"],
        [[n, *map(str, row)] for n, row in zip(labels, first.confusion, strict=True)],
    )
    found, true = probabilities > 0.5, truth > 0.5
    chosen = np.where(true, probabilities, 1 - probabilities).clip(1e-12)
    order = np.argsort(np.log(chosen).sum(1), kind="stable")
    wrong = [int(i) for i in order if (found[i] != true[i]).any()]
    names = np.array(labels)
    errors = html_table(
        ["missed", "wrongly found", "text"],
        [
            [
                ", ".join(names[true[i] & ~found[i]]),
                ", ".join(names[found[i] & ~true[i]]),
                " ‖ ".join(t for t in (examples[i].text, examples[i].text_pair) if t is not None),
            ]
            for i in wrong[:shown]
        ],
    )
    return html_page(
        f"Labels of {len(examples):,} texts",
        {
            "Measures": measures,
            "Confusion": confusion,
            f"Worst errors ({min(shown, len(wrong)):,} of {len(wrong):,})": errors,
        },
    )
