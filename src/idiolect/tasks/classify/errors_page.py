"""A page with a classifier's measures, its confusion matrix and its worst errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from idiolect.tasks.classify.classification_metrics import ClassificationScores
from idiolect.tasks.classify.labelled_texts import LabelledText

__all__ = ["errors_page"]

_STYLE = (
    "body{font-family:sans-serif;max-width:60em;margin:2em auto}table{border-collapse:collapse}"
    "td,th{border:1px solid #bbb;padding:.3em .6em;text-align:left}td.n{text-align:right}"
)


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
        scores: Measures by the name of the system; the confusion matrix is of the first.
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
    measures = _table(
        ["system", "accuracy", "macro-F1", "NLL", "ECE"],
        [
            [name, *(f"{v:.4f}" for v in (s.accuracy, s.macro_f1, s.nll, s.ece))]
            for name, s in scores.items()
        ],
    )
    matrix = next(iter(scores.values())).confusion
    confusion = _table(
        ["true \\ predicted", *labels],
        [[label, *map(str, row)] for label, row in zip(labels, matrix, strict=True)],
    )
    errors = _table(
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
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Errors</title>"
        f"<style>{_STYLE}</style><h1>Classification of {len(examples):,} texts</h1>{measures}"
        f"<h2>Confusion matrix</h2>{confusion}"
        f"<h2>Worst errors ({min(shown, len(wrong)):,} of {len(wrong):,})</h2>{errors}</html>\n"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"
