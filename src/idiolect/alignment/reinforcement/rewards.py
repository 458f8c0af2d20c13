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

import hashlib
import importlib.util
import math
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import SourceFileLoader
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

_NUMBER = re.compile(r"(?:(?<!\d)-)?\d[\d,]*(?:\.\d+)?")
"""A number; the line in "3-5" is no minus sign."""
_DEPTH = 10
_SMALLEST = 1e-6
_KINDS = "model:FOLDER, classifier:FOLDER:LABEL, python:FILE.py:FUNCTION, answer, regex:PATTERN"


class Reward(Protocol):
    """Scores completions; higher is better.

    One that needs fields of the records may have a method `check`, which is called with all prompts
    before training and raises an `InputError`.
    """

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
        """Return the function's numbers.

        Raises:
            TrainingError: The function raises an exception.
        """
        texts = [prompt_text(one.prompt) for one in prompts]
        records = [dict(one.record) for one in prompts]
        try:
            return self.function(texts, list(completions), records)
        except Exception as error:
            raise TrainingError(
                f"the reward function raised {_told(error)}",
                hint="it gets the lists of prompts, completions and records",
            ) from error


class AnswerReward:
    """1 for the right answer: compares the last number if the answer is one, otherwise the text."""

    def check(self, prompts: Sequence[PolicyPrompt]) -> None:
        """Check the records before training.

        Raises:
            InputError: A record has no `answer`.
        """
        missing = [one for one in prompts if not _answer(one)]
        if missing:
            raise _incomplete("answer", len(missing), prompts, missing[0], "add a field `answer`")

    def __call__(
        self, prompts: Sequence[PolicyPrompt], completions: Sequence[str]
    ) -> Sequence[float]:
        """Return 0 or 1 for each completion.

        Raises:
            InputError: A record has no `answer`.
        """
        self.check(prompts)
        return [
            float(_is_answer(text, _answer(one)))
            for one, text in zip(prompts, completions, strict=True)
        ]


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

    def check(self, prompts: Sequence[PolicyPrompt]) -> None:
        """Check the records before training.

        Raises:
            InputError: A record has no `relevant` ids.
        """
        missing = [one for one in prompts if not _grades(one.record)]
        if missing:
            hint = 'add a field `relevant`: ["id", …] or {"id": grade, …}'
            raise _incomplete("relevant ids", len(missing), prompts, missing[0], hint)

    def __call__(
        self, prompts: Sequence[PolicyPrompt], completions: Sequence[str]
    ) -> Sequence[float]:
        """Return nDCG@10 of each query's results; an empty query finds nothing.

        Raises:
            InputError: A record has no `relevant` ids.
        """
        self.check(prompts)
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
    *,
    name: str = "reward",
) -> list[float]:
    """Return rewards as floats, after checking them.

    Args:
        values: The rewards.
        prompts: The prompt of each completion.
        completions: The completions.
        name: What the messages call the rewards.

    Raises:
        TrainingError: The number of rewards differs from that of completions, or one is not finite.
    """
    try:
        found = [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise TrainingError(
            f"the {name} is not a list of numbers: {error}", hint="return one for each completion"
        ) from error
    if len(found) != len(completions):
        raise TrainingError(
            f"the {name} has {len(found):,} numbers for {len(completions):,} completions",
            hint="return one for each completion",
        )
    for value, one, text in zip(found, prompts, completions, strict=True):
        if not math.isfinite(value):
            raise TrainingError(
                f"the {name} is {value} for the prompt {prompt_text(one.prompt)[:60]!r} and the "
                f"completion {text[:60]!r}",
                hint=f"every {name} must be a finite number",
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


def _answer(one: PolicyPrompt) -> str:
    """Return the answer of a record; an empty one, which nothing said would equal, is missing."""
    answer = one.record.get("answer")
    return "" if answer is None else str(answer).strip()


def _grades(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the grades of a record's relevant ids; none if it has none that can be read."""
    relevant = record.get("relevant")
    if isinstance(relevant, list):
        return {str(id): 1.0 for id in relevant}
    try:
        return {str(id): float(grade) for id, grade in relevant.items()}  # type: ignore[union-attr]
    except (AttributeError, TypeError, ValueError):
        return {}


def _incomplete(
    what: str, count: int, prompts: Sequence[PolicyPrompt], first: PolicyPrompt, hint: str
) -> InputError:
    return InputError(
        f"the reward needs the {what} of each record, and {count:,} of {len(prompts):,} have none "
        f"(the first: {prompt_text(first.prompt)[:60]!r})",
        hint=hint,
    )


def _told(error: Exception) -> str:
    """Return an exception of a user's file in one line, with the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    # The first frame is our own call.
    place = f" ({Path(frames[-1].filename).name} line {frames[-1].lineno})" if frames[1:] else ""
    if isinstance(error, SyntaxError):
        place = f" ({Path(error.filename or '').name} line {error.lineno})"
        return f"SyntaxError: {error.msg}{place}"
    return f"{type(error).__name__}: {error}{place}"


def _load_function(path: Path, name: str) -> Callable[..., Sequence[float]]:
    if not path.is_file():
        raise InputError(f"there is no file {path}", hint="check the path")
    # A name of its own, which hides no other module; the loader is given for any file ending.
    unique = (
        f"{path.stem}_{hashlib.blake2b(str(path.resolve()).encode(), digest_size=4).hexdigest()}"
    )
    loader = SourceFileLoader(unique, str(path))
    spec = importlib.util.spec_from_file_location(unique, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module  # data classes look their module up
    try:
        loader.exec_module(module)
    except Exception as error:
        del sys.modules[unique]
        raise InputError(f"{path} cannot be loaded: {_told(error)}", hint="correct it") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"{path} has no function {name}", hint="check its name")
    found: Callable[..., Sequence[float]] = function
    return found
