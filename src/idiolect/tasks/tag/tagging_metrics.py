"""Metrics of a tagger: span precision, recall and F1, and a confusion matrix of words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from idiolect.tasks.tag.tagged_texts import TaggedText, TextSpan

__all__ = ["SpanScores", "TaggingScores", "confuse_words", "score_spans"]


@dataclass(frozen=True)
class SpanScores:
    """Metrics of the spans of one label, or of all."""

    precision: float
    recall: float
    f1: float
    support: int
    """Number of true spans."""


@dataclass(frozen=True)
class TaggingScores:
    """Span metrics: a span is right if both its ends and its label are right.

    Equal to seqeval's strict mode on valid tags (`average="micro"`, and each label's).
    """

    micro: SpanScores
    """Over all spans."""
    macro_f1: float
    """Mean F1 of the labels that occur."""
    labels: dict[str, SpanScores] = field(default_factory=dict)
    """By label."""

    def as_dict(self) -> dict[str, Any]:
        """Return the metrics by name."""
        return asdict(self)


def score_spans(
    truth: Sequence[Iterable[TextSpan]], found: Sequence[Iterable[TextSpan]]
) -> TaggingScores:
    """Compare the spans of texts.

    Args:
        truth: The true spans of each text.
        found: The predicted ones.
    """
    true = {(i, span) for i, spans in enumerate(truth) for span in spans}
    guessed = {(i, span) for i, spans in enumerate(found) for span in spans}
    names = sorted({span.label for _, span in true | guessed})
    by_label = {
        name: _scores(*({one for one in all_ if one[1].label == name} for all_ in (true, guessed)))
        for name in names
    }
    macro = float(np.mean([scores.f1 for scores in by_label.values()])) if by_label else 0.0
    return TaggingScores(_scores(true, guessed), macro, by_label)


def _scores(true: set[Any], guessed: set[Any]) -> SpanScores:
    hits = len(true & guessed)
    precision = hits / len(guessed) if guessed else 0.0
    recall = hits / len(true) if true else 0.0
    both = len(true) + len(guessed)
    return SpanScores(precision, recall, 2 * hits / both if both else 0.0, len(true))


def confuse_words(
    texts: Sequence[TaggedText], found: Sequence[Iterable[TextSpan]], labels: Sequence[str]
) -> list[list[int]]:
    """Count words by true and predicted label. The last row and column are words without one.

    Args:
        texts: The texts with their true spans.
        found: The predicted spans.
        labels: The labels, in the order of the rows.
    """
    number = {label: i for i, label in enumerate(labels)}
    counts = np.zeros((len(labels) + 1, len(labels) + 1), np.int64)
    for text, spans in zip(texts, found, strict=True):
        sides = np.full((2, len(text.words)), len(labels))
        for side, own in enumerate((text.spans or (), tuple(spans))):
            for start, end, label in TaggedText(text.text, text.words, tuple(own)).word_spans():
                sides[side, start:end] = number[label]
        np.add.at(counts, (sides[0], sides[1]), 1)
    listed: list[list[int]] = counts.tolist()
    return listed
