"""Search for the instruction and the demonstrations with the best accuracy.

The data has three parts: demonstrations come from the training part, prompts are compared on the
validation part, and a test part, which the search never sees, measures the winner. The best of many
prompts on the validation part is partly there by luck.

    1  Measure the given prompt on all validation texts: it wins unless another one is better.
    2  Successive halving (Jamieson & Talwalkar 2016, 1502.07943): all candidates read a few texts,
       the better half reads twice as many, and so on until all texts are read.
    3  Vary the best one while calls are left: another example, another order, another
       instruction. A variant that is behind halfway is abandoned.

A call is one prompt read by the model. The search is deterministic for a given seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from idiolect.errors import ConfigError, InputError
from idiolect.generate.generator import Generator
from idiolect.prompting.prompt_classifier import CONTENT_FREE, PromptClassifier
from idiolect.prompting.prompt_task import PromptTask
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.training.seeds import derive_seed

__all__ = ["PromptSearch", "optimise_prompt", "propose_instructions"]

_FIRST_TEXTS = 8
_MOST_VARIANTS = 10_000


@dataclass
class PromptSearch:
    """The result of a search."""

    best: PromptTask
    """The prompt with the best validation accuracy."""
    calls: int = 0
    """Prompts read by the model, including calibration and proposals."""
    start_accuracy: float = 0.0
    """Validation accuracy of the given prompt."""
    accuracy: float = 0.0
    """Validation accuracy of the best prompt: optimistic, since it was selected on it."""
    trials: list[dict[str, Any]] = field(default_factory=list)
    """All prompts that were tried, with the number of texts read and the accuracy on them."""


def optimise_prompt(
    generator: Generator,
    task: PromptTask,
    train: Sequence[LabelledText],
    validation: Sequence[LabelledText],
    *,
    instructions: Sequence[str] = (),
    num_fewshot: int = 4,
    candidates: int = 16,
    proposals: int = 0,
    max_calls: int = 3000,
    seed: int = 0,
) -> PromptSearch:
    """Search for a better prompt than a given one.

    Args:
        generator: The model.
        task: The prompt to start from; its format, answers and calibration are kept.
        train: Examples that demonstrations are drawn from.
        validation: Examples that prompts are compared on.
        instructions: Other instructions to try.
        num_fewshot: Demonstrations of a candidate.
        candidates: Number of initial prompts, in addition to the given one.
        proposals: Instructions that the model itself writes; see `propose_instructions`.
        max_calls: Maximum number of prompts that the model reads.
        seed: Random seed.

    Raises:
        ConfigError: `max_calls` is too small for the given prompt, or a number is out of its range.
        InputError: A text has no label of the task, or is in both parts.
    """
    _check(task, train, validation, num_fewshot, candidates)
    random = np.random.default_rng(derive_seed(seed, len(train), len(validation)))
    order = random.permutation(len(validation))
    race = _Race(generator, [validation[int(number)] for number in order], max_calls)
    if not race.affords(task, len(validation)):
        raise ConfigError(
            f"{max_calls} calls, and the given prompt alone needs {len(validation)}"
            + (f" + {len(CONTENT_FREE)}" if task.calibrated else ""),
            hint="raise max_calls or give fewer validation texts",
        )
    start = race.score(task, len(validation))
    texts = list(dict.fromkeys((task.template.instruction, *instructions)))
    proposals = min(proposals, max_calls - race.calls)
    if proposals:
        race.proposals = proposals
        texts += [
            text
            for text in propose_instructions(generator, task, train, proposals, seed=seed)
            if text not in texts
        ]
    pool = [
        replace(
            task,
            template=task.template.with_changes(instruction=texts[number % len(texts)]),
            demonstrations=_draw(train, num_fewshot, random),
        )
        for number in range(candidates)
    ]
    best = _halve(race, pool)
    if best is None or race.score(best, len(validation)) <= start:
        best = task
    best = _climb(race, best, train, texts, random, max(num_fewshot, len(best.demonstrations)))
    found = race.score(best, len(validation))
    return PromptSearch(best, race.calls, start[0], found[0], race.trials())


def propose_instructions(
    generator: Generator,
    task: PromptTask,
    examples: Sequence[LabelledText],
    count: int,
    *,
    seed: int = 0,
) -> list[str]:
    """Let the model write instructions that fit solved examples.

    As in "Large Language Models Are Human-Level Prompt Engineers" (Zhou et al. 2022, 2211.01910).

    Args:
        generator: The model.
        task: Its template shows the examples.
        examples: Solved examples; a few are shown each time.
        count: How many texts to generate; duplicates are returned once.
        seed: Random seed.
    """
    random = np.random.default_rng(derive_seed(seed, count))
    prompts = []
    for _ in range(count):
        shown = _draw(examples, min(4, len(examples)), random)
        solved = [
            task.template.with_changes(instruction="").render(one)
            + task.template.answer(str(one.label))
            for one in shown
        ]
        prompts.append("\n\n".join([*solved, "The instruction for these examples was:"]))
    written = generator.generate(
        prompts, max_new_tokens=32, do_sample=True, temperature=0.8, stop=["\n\n"], seed=seed
    )
    lines = (" ".join(one.text.strip().strip('"').split()) for one in written)
    return list(dict.fromkeys(line for line in lines if line))


@dataclass
class _Runner:
    """A prompt in the search, with its results so far."""

    task: PromptTask
    classifier: PromptClassifier
    hits: list[bool] = field(default_factory=list)
    logs: list[float] = field(default_factory=list)


class _Race:
    """Evaluates prompts on the first validation texts, and counts the calls."""

    def __init__(self, generator: Generator, texts: Sequence[LabelledText], max_calls: int) -> None:
        self.generator, self.texts, self.max_calls = generator, texts, max_calls
        self.proposals = 0
        self._runners: dict[str, _Runner] = {}

    @property
    def calls(self) -> int:
        """Prompts that the model has read or continued."""
        return self.proposals + sum(one.classifier.calls for one in self._runners.values())

    def affords(self, task: PromptTask, count: int) -> bool:
        """Return whether enough calls are left to measure a prompt on the first texts."""
        known = self._runners.get(_key(task))
        if known is not None:
            return self.calls + max(0, count - len(known.hits)) <= self.max_calls
        return self.calls + count + len(CONTENT_FREE) * task.calibrated <= self.max_calls

    def score(self, task: PromptTask, count: int) -> tuple[float, float]:
        """Return accuracy and mean log-probability of the right label on the first texts."""
        runner = self._runners.get(_key(task))
        if runner is None:
            runner = self._runners[_key(task)] = _Runner(task, task.classifier(self.generator))
        if rest := self.texts[len(runner.hits) : count]:
            found = runner.classifier.log_probabilities(rest)
            truth = [task.labels.index(str(one.label)) for one in rest]
            runner.hits += (found.argmax(1) == truth).tolist()
            runner.logs += found[np.arange(len(rest)), truth].tolist()
        return float(np.mean(runner.hits[:count])), float(np.mean(runner.logs[:count]))

    def trials(self) -> list[dict[str, Any]]:
        """Return all measurements, for a report."""
        return [
            {
                "instruction": one.task.template.instruction,
                "demonstrations": [[shown.text, shown.label] for shown in one.task.demonstrations],
                "texts": len(one.hits),
                "accuracy": float(np.mean(one.hits)),
                "log_probability": float(np.mean(one.logs)),
            }
            for one in self._runners.values()
        ]


def _halve(race: _Race, pool: Sequence[PromptTask]) -> PromptTask | None:
    """Return the winner of successive halving; None if there are too few calls."""
    count = min(_FIRST_TEXTS, len(race.texts))
    left = list({_key(task): task for task in pool}.values())
    while left:
        measured = []
        for task in left:
            if not race.affords(task, count):
                break
            measured.append((race.score(task, count), task))
        if not measured:
            return None
        measured.sort(key=lambda one: one[0], reverse=True)
        if count == len(race.texts):
            return measured[0][1]
        left = [task for _, task in measured[: max(1, len(measured) // 2)]]
        count = min(2 * count, len(race.texts))
    return None


def _climb(
    race: _Race,
    best: PromptTask,
    train: Sequence[LabelledText],
    instructions: Sequence[str],
    random: np.random.Generator,
    num_fewshot: int,
) -> PromptTask:
    """Vary a prompt while calls are left, and keep variants that are better on all texts."""
    whole, half = len(race.texts), -(-len(race.texts) // 2)
    tried = 0
    # Variants that were tried before cost no calls; a small training part has few variants.
    while tried < _MOST_VARIANTS:
        tried += 1
        variant = _vary(best, train, instructions, random, num_fewshot)
        if not race.affords(variant, whole):
            break
        if race.score(variant, half) < race.score(best, half):
            continue
        if race.score(variant, whole) > race.score(best, whole):
            best = variant
    return best


def _vary(
    task: PromptTask,
    train: Sequence[LabelledText],
    instructions: Sequence[str],
    random: np.random.Generator,
    num_fewshot: int,
) -> PromptTask:
    """Return a prompt with an example replaced or added, another order, or another instruction."""
    shown = list(task.demonstrations)
    change = random.choice(["example", "order", "instruction"])
    if change == "instruction" and len(instructions) > 1:
        text = instructions[int(random.integers(len(instructions)))]
        return replace(task, template=task.template.with_changes(instruction=text))
    if change == "order" and len(shown) > 1:
        order = random.permutation(len(shown))
        return replace(task, demonstrations=tuple(shown[int(number)] for number in order))
    fresh = train[int(random.integers(len(train)))]
    if not num_fewshot or fresh in shown:
        return task
    if len(shown) < num_fewshot:
        return replace(task, demonstrations=(*shown, fresh))
    shown[int(random.integers(len(shown)))] = fresh
    return replace(task, demonstrations=tuple(shown))


def _draw(
    train: Sequence[LabelledText], count: int, random: np.random.Generator
) -> tuple[LabelledText, ...]:
    chosen = random.permutation(len(train))[:count]
    return tuple(train[int(number)] for number in chosen)


def _key(task: PromptTask) -> str:
    """Return a key that identifies a prompt within a search."""
    return repr((task.template.instruction, task.demonstrations))


def _check(
    task: PromptTask,
    train: Sequence[LabelledText],
    validation: Sequence[LabelledText],
    num_fewshot: int,
    candidates: int,
) -> None:
    if candidates < 1 or not 0 <= num_fewshot <= len(train):
        raise ConfigError(
            f"{candidates} candidates with {num_fewshot} of {len(train)} examples",
            hint="at least 1 candidate, and no more demonstrations than training examples",
        )
    if not validation:
        raise InputError("there are no validation texts", hint="give at least one")
    for one in (*train, *validation):
        if one.label not in task.labels:
            raise InputError(
                f"the label {one.label!r}; the task has {', '.join(task.labels)}",
                hint="give examples of this task",
            )
    # Texts of pairs, such as premises, may have several second texts.
    known = {(one.text, one.text_pair) for one in train}
    both = [one.text for one in validation if (one.text, one.text_pair) in known]
    if both:
        raise InputError(
            f"{len(both)} texts are in training and validation, such as {min(both)[:60]!r}",
            hint="a prompt that shows a text is not measured by it",
        )
