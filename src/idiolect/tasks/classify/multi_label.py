"""`MultiLabelClassifier`: a text may have several labels or none, each decided separately."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from idiolect.errors import InputError
from idiolect.tasks.classify.classification_baselines import TfidfClassifier
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.tasks.classify.text_classifier import TextClassifier

__all__ = ["MultiLabelClassifier", "load_classifier", "multi_label_baselines"]


class MultiLabelClassifier(TextClassifier):
    """A `TextClassifier` that decides each label independently (binary relevance).

    Args: as for `TextClassifier`. A label is predicted if its probability is above one half.
    """

    name = "multi_label_classifier"

    def targets(self, examples: Sequence[LabelledText]) -> NDArray[Any]:
        """Return which labels each text has. Shape: (texts, labels), float32.

        Raises:
            InputError: There are no examples, or a label is not of this classifier.
        """
        if not examples:
            raise InputError("there are no examples", hint="give at least one")
        known = {label: number for number, label in enumerate(self.labels)}
        found = np.zeros((len(examples), len(self.labels)), np.float32)
        for row, example in enumerate(examples):
            for label in example.labels or ():
                if label not in known:
                    raise InputError(
                        f"text {row + 1:,} has the unknown label {label!r}",
                        hint=f"the classifier knows {', '.join(self.labels[:20])}",
                    )
                found[row, known[label]] = 1
        return found

    def label_weights(self, targets: NDArray[Any]) -> NDArray[np.float64]:
        """Return the ratio of texts without each label to texts with it. Shape: (labels,)."""
        positive = targets.sum(0).clip(1)
        found: NDArray[np.float64] = (len(targets) - positive).clip(1) / positive
        return found

    def loss(self, scores: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the binary cross-entropy, summed; `weights` multiply the positive terms.

        Shape: (texts, labels), a scalar.
        """
        return F.binary_cross_entropy_with_logits(
            scores, targets.to(scores.dtype), pos_weight=weights, reduction="sum"
        )

    def probabilities(self, examples: Sequence[LabelledText]) -> NDArray[np.float64]:
        """Return the calibrated probability of each label. Shape: (texts, labels)."""
        found: NDArray[np.float64] = expit(self._scores(examples) / self.temperature)
        return found

    def predict_labels(self, examples: Sequence[LabelledText]) -> list[tuple[str, ...]]:
        """Return the labels of each text."""
        found = self._scores(examples) > 0
        return [tuple(np.array(self.labels)[row].tolist()) for row in found]


def load_classifier(directory: str | Path, *, device: str | torch.device = "cpu") -> TextClassifier:
    """Load a classifier of one label or of several, whichever the directory holds.

    Raises:
        CheckpointError: Files are missing, damaged or of different models.
    """
    several = (Path(directory) / f"{MultiLabelClassifier.name}.json").exists()
    return (MultiLabelClassifier if several else TextClassifier).load(directory, device=device)


def multi_label_baselines(
    known: Sequence[LabelledText], labels: Sequence[str], examples: Sequence[LabelledText]
) -> dict[str, NDArray[np.float64]]:
    """Predict with TF-IDF logistic regression for each label, and with label frequencies.

    Args:
        known: Training examples.
        labels: The labels, in the order of the columns.
        examples: The texts to predict.

    Returns:
        Probabilities by the name of the system. Shape: (texts, labels).
    """
    shares = [sum(label in (e.labels or ()) for e in known) / len(known) for label in labels]
    columns = []
    for label, share in zip(labels, shares, strict=True):
        if share in (0, 1):
            columns.append(np.full(len(examples), share, np.float64))
            continue
        own = [
            LabelledText(e.text, "yes" if label in (e.labels or ()) else "no", e.text_pair)
            for e in known
        ]
        columns.append(TfidfClassifier(own).probabilities(examples)[:, 1])
    return {
        "TF-IDF + logistic regression": np.stack(columns, 1),
        "shares of the labels": np.tile(np.array(shares), (len(examples), 1)),
    }
