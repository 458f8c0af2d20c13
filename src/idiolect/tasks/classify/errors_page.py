"""HTML page with a classifier's metrics, its confusion matrix and its worst errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from idiolect.tasks.classify.classification_metrics import ClassificationScores
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.tasks.html_report import confusion_table, html_page, html_table

__all__ = ["errors_page"]


def errors_page(
    scores: Mapping[str, ClassificationScores],
    labels: Sequence[str],
    examples: Sequence[LabelledText],
    probabilities: NDArray[np.float64],
    *,
    shown: int = 50,
) -> str:
    """Return an HTML page.

    Args:
        scores: Metrics by system name; the confusion matrix is of the first.
        labels: The labels, in the order of the matrix.
        examples: The texts with their true labels.
        probabilities: The first system's. Shape: (texts, labels).
        shown: How many errors to show, those with the least probable true label first.
    """
    number = {label: i for i, label in enumerate(labels)}
    truth = np.array([number[str(example.label)] for example in examples])
    guess = probabilities.argmax(1)
    chosen = probabilities[np.arange(len(truth)), truth]
    wrong = [int(i) for i in np.argsort(chosen, kind="stable") if guess[i] != truth[i]]
    measures = html_table(
        ["system", "accuracy", "macro-F1", "NLL", "ECE"],
        [
            [name, *(f"{v:.4f}" for v in (s.accuracy, s.macro_f1, s.nll, s.ece))]
            for name, s in scores.items()
        ],
    )
    matrix = next(iter(scores.values())).confusion
    confusion = confusion_table(labels, matrix)
    errors = html_table(
        ["true", "predicted", "p(true)", "p(predicted)", "text"],
        [
            [
                labels[truth[i]],
                labels[guess[i]],
                f"{chosen[i]:.3f}",
                f"{probabilities[i, guess[i]]:.3f}",
                " ‖ ".join(t for t in (examples[i].text, examples[i].text_pair) if t is not None),
            ]
            for i in wrong[:shown]
        ],
    )
    return html_page(
        f"Classification of {len(examples):,} texts",
        {
            "Measures": measures,
            "Confusion matrix": confusion,
            f"Worst errors ({min(shown, len(wrong)):,} of {len(wrong):,})": errors,
        },
    )
