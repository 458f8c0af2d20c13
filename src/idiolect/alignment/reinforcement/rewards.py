"""Rewards of completions: a model, a classifier, a function, a verifier, or a search index.

model:FOLDER               a reward model, trained by `idiolect align reward`
classifier:FOLDER:LABEL    log-odds of a label, by a classifier from `idiolect tasks classify`
python:FILE.py:FUNCTION    a function of prompts, completions and records; returns numbers
answer                     1 if the last number of the completion, or its text, equals the record's
`answer`, otherwise 0
regex:PATTERN              1 if the whole completion matches, otherwise 0
search:FOLDER              nDCG@10 of a lexical search in an index with the completion as query,
against the record's `relevant` ids
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from idiolect.alignment.preference.preferences import prompt_text
from idiolect.alignment.reinforcement.prompts import PolicyPrompt
from idiolect.alignment.reward.reward_model import RewardModel
from idiolect.errors import ConfigError, InputError, TrainingError
from idiolect.ranking.evaluation.metrics import evaluate
from idiolect.search.index import Index
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.tasks.classify.text_classifier import TextClassifier

__all__ = [
    "AnswerReward",
    "ClassifierReward",
    "FunctionReward",
    "ModelReward",
    "PatternReward",
    "Reward",
    "SearchReward",
    "checked_rewards",
    "load_reward",
]

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_DEPTH = 10
_SMALLEST = 1e-6
_KINDS = "model:FOLDER, classifier:FOLDER:LABEL, python:FILE.py:FUNCTION, answer, regex:PATTERN"


class Reward(Protocol):
    """Scores completions; higher is better."""

    def __call__(
        self, prompts: Sequence[PolicyPrompt], completions: Sequence[str]
    ) -> Sequence[float] | NDArray[np.float64]:
        """Return a finite number for each completion."""


class ModelReward:
    """The score of a reward model."""

    def __init__(self, model: RewardModel) -> None:
        self.model = model

    def __call__(
        self, prompts: Sequence[PolicyPrompt], completions: Sequence[str]
    ) -> NDArray[np.float64]:
        """Return the model's score of each completion."""
        pairs = [(p.prompt, text) for p, text in zip(prompts, completions, strict=True)]
        return self.model.score(pairs)


class ClassifierReward:
    """The log-odds of a label for a prompt with its completion.

    Raises:
        ConfigError: The classifier does not know the label.
    """

    def __init__(self, classifier: TextClassifier, label: str) -> None:
        if label not in classifier.labels:
            raise ConfigError(
                f"the classifier has no label {label!r}",
                hint="one of " + ", ".join(classifier.labels[:20]),
            )
        self.classifier, self.column = classifier, classifier.labels.index(label)

    def __call__(
        self, prompts: Sequence[PolicyPrompt], completions: Sequence[str]
    ) -> NDArray[np.float64]:
        """Return the label's log-odds for each completion."""
        texts = [
            LabelledText(_together(one, text))
            for one, text in zip(prompts, completions, strict=True)
        ]
        shares = self.classifier.probabilities(texts)[:, self.column]
        shares = shares.clip(_SMALLEST, 1 - _SMALLEST)
        found: NDArray[np.float64] = np.log(shares) - np.log1p(-shares)
        return found


class FunctionReward:
    """What a function of prompts, completions and records returns."""

    def __init__(self, function: Callable[..., Sequence[float]]) -> None:
        self.function = function

    def __call__(
        self, prompts: Sequence[PolicyPrompt], completions: Sequence[str]
    ) -> Sequence[float]:
        """Return the function's numbers."""
        texts = [prompt_text(one.prompt) for one in prompts]
        return self.function(texts, list(completions), [dict(one.record) for one in prompts])


class AnswerReward:
    """1 for the right answer: compares the last number if the answer is one, otherwise the text."""

    def __call__(
        self, prompts: Sequence[PolicyPrompt], completions: Sequence[str]
    ) -> Sequence[float]:
        """Return 0 or 1 for each completion.

        Raises:
            InputError: A record has no `answer`.
        """
        found = []
        for one, text in zip(prompts, completions, strict=True):
            answer = one.record.get("answer")
            if answer is None:
                raise InputError(
                    "the reward `answer` needs an answer in each record",
                    hint="add a field `answer`, or choose another reward",
                )
            found.append(float(_is_answer(text, str(answer))))
        return found


class PatternReward:
    """1 if the whole completion matches a regular expression, otherwise 0.

    Raises:
        InputError: The pattern is no valid regular expression.
    """

    def __init__(self, pattern: str) -> None:
        try:
            self.pattern = re.compile(pattern, re.DOTALL)
        except re.error as error:
            raise InputError(
                f"{pattern!r} is no regular expression: {error}", hint="see Python's module re"
            ) from error

    def __call__(
        self, prompts: Sequence[PolicyPrompt], completions: Sequence[str]
    ) -> Sequence[float]:
        """Return 0 or 1 for each completion."""
        return [float(self.pattern.fullmatch(text.strip()) is not None) for text in completions]


class SearchReward:
    """nDCG@10 of a search with the completion as query, against the prompt's `relevant` ids.

    Args:
        search: Returns the ids found for each query, best first.
    """

    def __init__(self, search: Callable[[Sequence[str]], Sequence[Sequence[str]]]) -> None:
        self.search = search

    @classmethod
    def of_index(cls, index: Index) -> SearchReward:
        """Return the reward of a lexical search in an index."""
        return cls(
            lambda queries: [
                [hit.id for hit in hits] for hits in index.search_many(queries, _DEPTH, "lexical")
            ]
        )

    def __call__(
        self, prompts: Sequence[PolicyPrompt], completions: Sequence[str]
    ) -> Sequence[float]:
        """Return nDCG@10 of each query's results; an empty query finds nothing.

        Raises:
            InputError: A record has no `relevant` ids.
        """
        written = [number for number, text in enumerate(completions) if text.strip()]
        found = self.search([completions[number] for number in written]) if written else []
        results = dict(zip(written, found, strict=True))
        run = {
            str(number): {
                id: float(_DEPTH - rank) for rank, id in enumerate(results.get(number, ()))
            }
            for number in range(len(completions))
        }
        qrels = {str(number): _grades(one.record) for number, one in enumerate(prompts)}
        values = evaluate(qrels, run, metrics=[f"ndcg@{_DEPTH}"]).per_query[f"ndcg@{_DEPTH}"]
        return [values.get(str(number), 0.0) for number in range(len(completions))]


def load_reward(text: str, *, device: str = "cpu") -> Reward:
    """Return the reward that a text specifies; see the top of this module.

    Raises:
        ConfigError: The kind of reward is unknown.
        InputError: Its file, folder or function does not exist.
    """
    kind, _, rest = text.partition(":")
    if kind == "answer" and not rest:
        return AnswerReward()
    if kind == "regex" and rest:
        return PatternReward(rest)
    if kind == "model" and rest:
        return ModelReward(RewardModel.load(rest, device=device))
    if kind == "search" and rest:
        return SearchReward.of_index(Index.open(rest))
    folder, _, name = rest.rpartition(":")
    if kind == "classifier" and folder:
        return ClassifierReward(TextClassifier.load(folder, device=device), name)
    if kind == "python" and folder:
        return FunctionReward(_load_function(Path(folder), name))
    raise ConfigError(f"unknown reward {text!r}", hint=f"one of {_KINDS}, search:FOLDER")


def checked_rewards(
    values: Sequence[float] | NDArray[np.float64],
    prompts: Sequence[PolicyPrompt],
    completions: Sequence[str],
) -> list[float]:
    """Return rewards as floats, after checking them.

    Raises:
        TrainingError: The number of rewards differs from that of completions, or one is not finite.
    """
    try:
        found = [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise TrainingError(
            f"the reward is not a list of numbers: {error}", hint="return one for each completion"
        ) from error
    if len(found) != len(completions):
        raise TrainingError(
            f"{len(found):,} rewards of {len(completions):,} completions",
            hint="return one for each completion",
        )
    for value, one, text in zip(found, prompts, completions, strict=True):
        if not math.isfinite(value):
            raise TrainingError(
                f"the reward is {value} for the prompt {prompt_text(one.prompt)[:60]!r} and the "
                f"completion {text[:60]!r}",
                hint="every reward must be a finite number",
            )
    return found


def _together(one: PolicyPrompt, completion: str) -> str:
    """Return a classifier's input: a plain prompt with its completion, or a chat's answer alone."""
    return one.prompt + completion if isinstance(one.prompt, str) else completion


def _is_answer(text: str, answer: str) -> bool:
    answer = answer.rpartition("####")[2].strip()  # GSM8K's format
    if _NUMBER.fullmatch(answer):
        numbers = _NUMBER.findall(text)
        return bool(numbers) and _as_number(numbers[-1]) == _as_number(answer)
    return text.strip().casefold() == answer.casefold()


def _as_number(text: str) -> float:
    return float(text.replace(",", ""))


def _grades(record: Mapping[str, Any]) -> dict[str, float]:
    relevant = record.get("relevant")
    if isinstance(relevant, Mapping):
        return {str(id): float(grade) for id, grade in relevant.items()}
    if isinstance(relevant, list) and relevant:
        return {str(id): 1.0 for id in relevant}
    raise InputError(
        "the reward `search` needs the relevant ids of each record",
        hint='add a field `relevant`: ["id", …] or {"id": grade, …}',
    )


def _load_function(path: Path, name: str) -> Callable[..., Sequence[float]]:
    if not path.is_file():
        raise InputError(f"there is no file {path}", hint="check the path")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"{path} has no function {name}", hint="check its name")
    found: Callable[..., Sequence[float]] = function
    return found
