"""Evaluate a prompt over several choices of its demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from idiolect.encoding.encoder import Encoder
from idiolect.errors import ConfigError, InputError
from idiolect.generate.generator import Generator
from idiolect.prompting.demonstrations import (
    DemonstrationChoice,
    Demonstrations,
    DiverseDemonstrations,
    NearestDemonstrations,
    RandomDemonstrations,
)
from idiolect.prompting.prompt_task import PromptTask
from idiolect.tasks.classify.classification_metrics import ClassificationScores, score_classes
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.training.progress import notice

__all__ = ["PromptScores", "choose_demonstrations", "evaluate_prompt"]


@dataclass(frozen=True)
class PromptScores:
    """Results of a prompt for each choice of demonstrations."""

    each: tuple[ClassificationScores, ...]
    """The metrics of each choice."""
    right: NDArray[np.bool_]
    """Whether each text was classified correctly. Shape: (choices, texts)."""
    calls: int
    """Number of prompts read by the model."""

    @property
    def accuracies(self) -> NDArray[np.float64]:
        """The accuracy of each choice."""
        return np.array([one.accuracy for one in self.each])

    @property
    def mean(self) -> float:
        """Mean accuracy over the choices."""
        return float(self.accuracies.mean())

    @property
    def spread(self) -> float:
        """Standard deviation of the accuracy over the choices; 0 for one choice."""
        return float(self.accuracies.std(ddof=1)) if len(self.each) > 1 else 0.0


def choose_demonstrations(
    choice: DemonstrationChoice,
    pool: Sequence[LabelledText],
    count: int,
    *,
    encoder: Encoder | None = None,
    seed: int = 0,
) -> Demonstrations:
    """Return a strategy for choosing demonstrations, by name.

    Raises:
        ConfigError: The pool has fewer examples, or the choice needs an encoder.
    """
    if choice == "random":
        return RandomDemonstrations(pool, count, seed=seed)
    if encoder is None:
        raise ConfigError(f"{choice} demonstrations need an encoder", hint="such as minilm")
    if choice == "nearest":
        return NearestDemonstrations(pool, count, encoder=encoder)
    if choice == "diverse":
        return DiverseDemonstrations(pool, count, encoder=encoder, seed=seed)
    raise ConfigError(f"demonstrations {choice!r}", hint="random, nearest or diverse")


def evaluate_prompt(
    generator: Generator,
    task: PromptTask,
    texts: Sequence[LabelledText],
    choices: Sequence[Demonstrations | None] = (None,),
    *,
    advance: Callable[[int], None] | None = None,
) -> PromptScores:
    """Classify texts with each choice of demonstrations.

    Prompts that exceed the model's context lose their beginning, instruction and demonstrations
    first. A notice counts them.

    Args:
        generator: The model.
        task: The prompt.
        texts: Texts with labels of the task.
        choices: Strategies for choosing demonstrations; None for those of the task.
        advance: Called with the number of texts that were just classified.

    Raises:
        InputError: No texts, or a label that the task does not have.
    """
    if not texts:
        raise InputError("there are no texts", hint="give at least one")
    for one in texts:
        if one.label not in task.labels:
            raise InputError(
                f"the label {one.label!r}; the task has {', '.join(task.labels)}",
                hint="give texts of this task",
            )
    truth = np.array([task.labels.index(str(one.label)) for one in texts])
    each, right, calls, cut = [], [], 0, 0
    for choice in choices:
        classifier = task.classifier(generator, choice)
        parts = []
        for start in range(0, len(texts), 64):
            part = texts[start : start + 64]
            parts.append(classifier.probabilities(part))
            if advance is not None:
                advance(len(part))
        shares = np.concatenate(parts)
        each.append(score_classes(shares, truth))
        right.append(shares.argmax(1) == truth)
        calls, cut = calls + classifier.calls, cut + classifier.cut
    if cut:
        notice(
            f"{cut:,} of {calls:,} prompts exceed the model's context of "
            f"{generator.context_length} tokens: their beginning (instruction, demonstrations) is "
            "cut"
        )
    return PromptScores(tuple(each), np.array(right), calls)
