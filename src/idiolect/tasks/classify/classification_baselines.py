"""Baselines for a classifier: the majority class, and logistic regression on TF-IDF."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import log_softmax, softmax

from idiolect.tasks.classify.labelled_texts import LabelledText, labels_of

__all__ = ["TfidfClassifier", "TfidfFeatures", "majority_probabilities"]

_STRENGTH = 10.0
"""Inverse regularisation strength (C in scikit-learn)."""


class TfidfFeatures:
    """TF-IDF of words and pairs of adjacent words, fitted to examples; rows have L2 norm 1.

    Args:
        examples: Texts; their n-grams are the columns.
    """

    def __init__(self, examples: Sequence[LabelledText]) -> None:
        frequency = Counter(gram for example in examples for gram in _counts(example))
        self._column = {gram: column for column, gram in enumerate(sorted(frequency))}
        documents = np.array([frequency[gram] for gram in self._column], np.float64)
        self._idf = np.log((1 + len(examples)) / (1 + documents)) + 1

    def __call__(self, examples: Sequence[LabelledText]) -> csr_matrix:
        """Return the features of texts; unknown n-grams are ignored. Shape: (texts, n-grams)."""
        counted = [_counts(example) for example in examples]
        values: list[float] = []
        columns: list[int] = []
        ends = [0]
        for counts in counted:
            own = [self._column[gram] for gram in counts if gram in self._column]
            times = np.array([n for gram, n in counts.items() if gram in self._column], np.float64)
            row = (1 + np.log(times)) * self._idf[own] if own else times
            values += (row / max(float(np.linalg.norm(row)), 1e-12)).tolist()
            columns += own
            ends.append(len(columns))
        return csr_matrix((values, columns, ends), shape=(len(counted), len(self._column)))


class TfidfClassifier:
    r"""Multinomial logistic regression on TF-IDF of words and pairs of adjacent words.

    As scikit-learn's `TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True,
    token_pattern=r"\w+")` and `LogisticRegression(C=10)`, except that the penalty is scaled
    differently with two labels. The words of a pair's second text are separate features.

    Args:
        examples: Texts with labels.

    Raises:
        InputError: There are fewer than two labels.
    """

    def __init__(self, examples: Sequence[LabelledText]) -> None:
        self.labels = labels_of(examples)
        self._features = TfidfFeatures(examples)
        number = {label: i for i, label in enumerate(self.labels)}
        truth = np.array([number[str(example.label)] for example in examples])
        self._weights = _regress(self._features(examples), truth, len(self.labels))

    def probabilities(self, examples: Sequence[LabelledText]) -> NDArray[np.float64]:
        """Return the probability of each label. Shape: (texts, labels)."""
        scores = self._features(examples) @ self._weights[:-1] + self._weights[-1]
        found: NDArray[np.float64] = softmax(scores, axis=1)
        return found


def majority_probabilities(
    examples: Sequence[LabelledText], labels: Sequence[str], count: int
) -> NDArray[np.float64]:
    """Predict each label's share of the examples for every text. Shape: (count, labels)."""
    counts = Counter(example.label for example in examples)
    shares = np.array([counts[label] / len(examples) for label in labels])
    return np.tile(shares, (count, 1))


def _counts(example: LabelledText) -> Counter[str]:
    found: Counter[str] = Counter()
    for prefix, text in (("", example.text), ("\t", example.text_pair or "")):
        words = _words(text)
        found.update(prefix + word for word in words)
        found.update(f"{prefix}{a} {b}" for a, b in itertools.pairwise(words))
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _regress(features: csr_matrix, truth: NDArray[np.int64], labels: int) -> NDArray[np.float64]:
    """Fit the weights; the last row holds the biases. Shape: (features + 1, labels)."""
    count, width = features.shape
    goal = np.eye(labels)[truth]
    transposed = features.T.tocsr()

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(width + 1, labels)
        scores = log_softmax(features @ weights[:-1] + weights[-1], axis=1)
        wrong = np.exp(scores) - goal
        slope = np.vstack(
            [_STRENGTH * (transposed @ wrong) + weights[:-1], _STRENGTH * wrong.sum(0)]
        )
        value = -_STRENGTH * scores[np.arange(count), truth].sum() + 0.5 * (weights[:-1] ** 2).sum()
        return float(value), slope.ravel()

    start = np.zeros((width + 1) * labels)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 300})
    fitted: NDArray[np.float64] = found.x.reshape(width + 1, labels)
    return fitted
