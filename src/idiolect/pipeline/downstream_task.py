"""A task that judges models: texts with labels or labelled spans, and heads trained on them.

    train, test ──► DownstreamTask ──► fit(encoder) ──► right and judged, for each text of the test

Accuracy and the micro-averaged F1 of spans are both a ratio of sums over texts, so one paired test
serves both (`compare_ratios`).
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from idiolect.encoding.encoder import Encoder
from idiolect.errors import InputError
from idiolect.tasks.classify.classification_baselines import (
    TfidfClassifier,
    majority_probabilities,
)
from idiolect.tasks.classify.labelled_texts import (
    LabelledText,
    labels_of,
    read_labelled_texts,
)
from idiolect.tasks.classify.text_classifier import TextClassifier
from idiolect.tasks.finetuning.text_states import concat_pooling_by_default
from idiolect.tasks.tag.tagged_texts import (
    TaggedText,
    TextSpan,
    read_tagged_texts,
    span_labels,
)
from idiolect.tasks.tag.text_tagger import TextTagger
from idiolect.tasks.tag.training_dictionary import TrainingDictionary
from idiolect.tasks.task_model import Adaptation
from idiolect.text.records import has_fields, read_records
from idiolect.text.skipped import Skipped, summary
from idiolect.training.training_config import TrainingConfig

__all__ = ["DownstreamTask", "TextCounts", "read_task"]

TextCounts: TypeAlias = NDArray[np.int64]
"""For each text of the test, the two numbers whose sums have the measure as their ratio.

Shape: (texts, 2). For accuracy: right, 1. For F1: twice the right spans, true and found spans.
"""


@dataclass(frozen=True)
class DownstreamTask(ABC):
    """Texts to train heads on, and texts to test them on."""

    train: Sequence[Any]
    test: Sequence[Any]
    labels: tuple[str, ...]

    name: ClassVar[str]
    """As in `idiolect tasks NAME`."""
    measure: ClassVar[str]

    @property
    def repeated(self) -> int:
        """Number of texts of the test that are also in the training file."""
        known = {one.text for one in self.train}
        return sum(one.text in known for one in self.test)

    def drawn(self, count: int | None, seed: int) -> DownstreamTask:
        """Return the task with at most so many training texts, drawn at random.

        Texts with a label that no other text has brought yet come first, so that a rare label is
        not lost while there is room for it.
        """
        if count is None or count >= len(self.train):
            return self
        known: set[str] = set()
        first, rest = list[Any](), list[Any]()
        for one in random.Random(seed).sample(list(self.train), len(self.train)):
            labels = self._labels(one)
            (rest if labels <= known else first).append(one)
            known |= labels
        return replace(self, train=[*first, *rest][:count])

    def fit(
        self,
        encoder: Encoder,
        *,
        output_dir: Path,
        adaptation: Adaptation,
        epochs: int,
        config: TrainingConfig,
    ) -> TextCounts:
        """Train a head, with the encoder unless it is frozen, and test it. See `TaskModel.fit`."""
        model = self._model(encoder, adaptation, config.seed)
        model.train(
            self.train, output_dir=output_dir, adaptation=adaptation, epochs=epochs, config=config
        )
        return self._count(self._found(model))

    @abstractmethod
    def baselines(self) -> dict[str, TextCounts]:
        """Test what reads no language model, by name."""

    @abstractmethod
    def _labels(self, one: Any) -> set[str]:
        """Return the labels of a text."""

    @abstractmethod
    def _model(self, encoder: Encoder, adaptation: Adaptation, seed: int) -> Any:
        """Return an untrained head on an encoder."""

    @abstractmethod
    def _found(self, model: Any) -> Sequence[Any]:
        """Return what a trained head finds in the texts of the test."""

    @abstractmethod
    def _count(self, found: Sequence[Any]) -> TextCounts:
        """Compare what was found with the truth."""


class _Classification(DownstreamTask):
    name, measure = "classify", "accuracy"

    def baselines(self) -> dict[str, TextCounts]:
        tfidf = TfidfClassifier(self.train)  # its labels are those of the drawn texts
        majority = majority_probabilities(self.train, self.labels, len(self.test))
        shares = {
            "TF-IDF + logistic regression": (tfidf.labels, tfidf.probabilities(self.test)),
            "majority label": (self.labels, majority),
        }
        return {
            name: self._count([labels[number] for number in found.argmax(1)])
            for name, (labels, found) in shares.items()
        }

    def _labels(self, one: LabelledText) -> set[str]:
        return {str(one.label)}

    def _model(self, encoder: Encoder, adaptation: Adaptation, seed: int) -> TextClassifier:
        concat = concat_pooling_by_default(encoder, adaptation, pairs=False)
        return TextClassifier(encoder, self.labels, concat_pooling=concat, seed=seed)

    def _found(self, model: TextClassifier) -> Sequence[str]:
        return model.predict(self.test)

    def _count(self, found: Sequence[str]) -> TextCounts:
        right = [one.label == label for one, label in zip(self.test, found, strict=True)]
        return np.stack([np.array(right, np.int64), np.ones(len(right), np.int64)], 1)


class _Tagging(DownstreamTask):
    name, measure = "tag", "F1 of spans"

    def baselines(self) -> dict[str, TextCounts]:
        return {"training dictionary": self._count(TrainingDictionary(self.train).tag(self.test))}

    def _labels(self, one: TaggedText) -> set[str]:
        return {span.label for span in one.spans or ()}

    def _model(self, encoder: Encoder, adaptation: Adaptation, seed: int) -> TextTagger:
        return TextTagger(encoder, self.labels, seed=seed)

    def _found(self, model: TextTagger) -> Sequence[Iterable[TextSpan]]:
        return [one.spans for one in model.predict(self.test)]

    def _count(self, found: Sequence[Iterable[TextSpan]]) -> TextCounts:
        pairs = zip((one.spans or () for one in self.test), found, strict=True)
        sides = [(set(true), set(own)) for true, own in pairs]
        return np.array([(2 * len(a & b), len(a) + len(b)) for a, b in sides], np.int64)


def read_task(
    train: Sequence[Path], test: Sequence[Path], *, max_unreadable: float, skipped: Skipped
) -> DownstreamTask:
    """Read a task: tagging of CoNLL files and of records with `spans`, else classification.

    Args:
        train: Files of texts to train heads on: `text` and `label`, `text` and `spans`, or CoNLL.
        test: Files of texts to test them on.
        max_unreadable: The share of a file's texts that may be unreadable or without label.
        skipped: Counts the texts that are left out, by reason.

    Raises:
        InputError: A file cannot be read, or a label of the test is not in the training texts; or
            the test has no spans, so that nothing can be measured.
    """
    first = train[0]
    tagged = not has_fields(first) or "spans" in next(iter(read_records(first, Skipped())), {})
    read: Callable[..., list[Any]] = _read_tagged if tagged else _read_labelled
    texts, tests = (
        [one for path in paths for one in read(path, max_unreadable, skipped)]
        for paths in (train, test)
    )
    task: DownstreamTask = (
        _Tagging(texts, tests, span_labels(texts))
        if tagged
        else _Classification(texts, tests, labels_of(texts))
    )
    names = [", ".join(map(str, paths)) for paths in (train, test)]
    tested = {label for one in tests for label in task._labels(one)}
    if not tested:
        raise InputError(
            f"{names[1]} has no spans", hint="a tagger is tested on texts, some of which have spans"
        )
    if unknown := sorted(tested - set(task.labels)):
        raise InputError(
            f"{names[1]} has the label {unknown[0]!r}, which {names[0]} has not",
            hint=f"labels to train on: {', '.join(task.labels[:20])}",
        )
    return task


def _read_tagged(path: Path, max_unreadable: float, skipped: Skipped) -> list[TaggedText]:
    return read_tagged_texts(path, max_unreadable=max_unreadable, skipped=skipped)


def _read_labelled(path: Path, max_unreadable: float, skipped: Skipped) -> list[LabelledText]:
    """Read labelled texts, after a check that few of a file's records lack a text or a label."""
    own = Skipped()
    found = read_labelled_texts(path, max_unreadable=max_unreadable, skipped=own)
    bad = own.total()
    if bad > max_unreadable * (len(found) + bad):
        raise InputError(
            f"{path}: {bad:,} of {len(found) + bad:,} texts cannot be used: {summary(own)}",
            hint="a label is a text or an integer; or allow a larger share: max_unreadable",
        )
    skipped.update(own)
    return found
