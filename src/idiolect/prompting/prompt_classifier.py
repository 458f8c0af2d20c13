"""`PromptClassifier`: classify by the likelihood of each label's answer after a prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from idiolect.errors import ConfigError
from idiolect.generate.generator import Generator
from idiolect.prompting.demonstrations import Demonstrations, FixedDemonstrations
from idiolect.prompting.prompt_template import PromptTemplate
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.tasks.harness.likelihood import score_endings

__all__ = ["CONTENT_FREE", "PromptClassifier"]

CONTENT_FREE = ("N/A", "", "[MASK]")
"""Content-free inputs, for which a prompt should prefer no label (Zhao et al. 2021)."""


class PromptClassifier:
    """Chooses the label whose answer is most likely after a prompt.

    >>> classifier = PromptClassifier(generator, template, ["0", "1"])   # doctest: +SKIP
    >>> classifier.predict([LabelledText("a fine film")])                # doctest: +SKIP
    ['1']

    Args:
        generator: The model; its virtual tokens, if any, precede the prompt.
        template: The prompt template.
        labels: The labels, at least two.
        demonstrations: Chooses the solved examples; by default there are none.
        calibrated: Divide the probabilities by those of content-free inputs, for each choice of
            demonstrations (contextual calibration, Zhao et al. 2021, 2102.09690).

    Raises:
        ConfigError: Fewer than two labels, duplicates, or two labels with the same answer.
    """

    def __init__(
        self,
        generator: Generator,
        template: PromptTemplate,
        labels: Sequence[str],
        demonstrations: Demonstrations | None = None,
        *,
        calibrated: bool = False,
    ) -> None:
        self.generator, self.template, self.labels = generator, template, tuple(labels)
        answers = {template.answer(label) for label in self.labels}
        if len(answers) < len(labels) or len(labels) < 2:
            raise ConfigError(
                f"the labels are {list(labels)[:20]}, with {len(answers)} answers",
                hint="at least two, each with an answer of its own",
            )
        self.demonstrations = demonstrations or FixedDemonstrations()
        self.calibrated = calibrated
        self.calls = 0
        """Number of prompts read by the model, including calibration."""
        self.cut = 0
        """Those of them that exceed the model's context, so that their beginning is not read."""
        self._shifts: dict[tuple[LabelledText, ...], NDArray[np.float64]] = {}

    def log_probabilities(self, texts: Sequence[LabelledText]) -> NDArray[np.float64]:
        """Return the log-probability of each label among the labels. Shape: (texts, labels)."""
        found = np.zeros((len(texts), len(self.labels)))
        chosen = self.demonstrations.choose(texts)
        alike: dict[tuple[LabelledText, ...], list[int]] = {}
        for number, examples in enumerate(chosen):
            alike.setdefault(examples, []).append(number)
        for examples, numbers in alike.items():
            scores = self._scores([texts[number] for number in numbers], examples)
            found[numbers] = scores - self._shift(examples)
        normalized: NDArray[np.float64] = log_softmax(found, axis=1)
        return normalized

    def probabilities(self, texts: Sequence[LabelledText]) -> NDArray[np.float64]:
        """Return the probability of each label. Shape: (texts, labels)."""
        shares: NDArray[np.float64] = np.exp(self.log_probabilities(texts))
        return shares

    def predict(self, texts: Sequence[LabelledText]) -> list[str]:
        """Return the likeliest label of each text."""
        return [self.labels[number] for number in self.log_probabilities(texts).argmax(1)]

    def _shift(self, examples: tuple[LabelledText, ...]) -> NDArray[np.float64]:
        """Return the logarithm of the mean probabilities for content-free inputs."""
        if not self.calibrated:
            return np.zeros(len(self.labels))
        if examples not in self._shifts:
            pair = "" if "{text_pair}" in self.template.example else None
            empty = [LabelledText(text, text_pair=pair and text) for text in CONTENT_FREE]
            shares = np.exp(log_softmax(self._scores(empty, examples), axis=1))
            self._shifts[examples] = np.log(shares.mean(0))
        return self._shifts[examples]

    def _scores(
        self, texts: Sequence[LabelledText], examples: tuple[LabelledText, ...]
    ) -> NDArray[np.float64]:
        """Return the log-likelihood of each label's answer. Shape: (texts, labels)."""
        prompts = [self.template.render(text, examples) for text in texts]
        answers = [self.template.answer(label) for label in self.labels]
        self.calls += len(prompts)
        pairs = [(prompt, answer) for prompt in prompts for answer in answers]
        found = score_endings(self.generator, pairs)
        is_cut = np.array([one.is_cut for one in found]).reshape(len(texts), len(answers))
        self.cut += int(is_cut.any(1).sum())
        return np.array([one.total for one in found]).reshape(len(texts), len(answers))
