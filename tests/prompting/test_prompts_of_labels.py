"""Templates, demonstrations, calibration, votes and the search, on tiny models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from idiolect.encoding.encoder import Encoder
from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.generate.generator import Generator
from idiolect.prompting.demonstrations import (
    DiverseDemonstrations,
    FixedDemonstrations,
    NearestDemonstrations,
    RandomDemonstrations,
)
from idiolect.prompting.optimise_prompt import optimise_prompt, propose_instructions
from idiolect.prompting.prompt_classifier import CONTENT_FREE
from idiolect.prompting.prompt_evaluation import choose_demonstrations, evaluate_prompt
from idiolect.prompting.prompt_task import PromptTask
from idiolect.prompting.prompt_template import PromptTemplate
from idiolect.prompting.self_consistency import vote
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.tasks.harness.likelihood import score_endings
from idiolect.tasks.harness.question_evaluation import final_answer
from training import models

TEMPLATE = PromptTemplate("w0 w1", "w2 {text} w3", {"a": "w4", "b": "w5 w6"}, " w7 ")
POOL = [LabelledText(f"w{n} w{n + 1}", "ab"[n % 2]) for n in range(8, 24)]
TASK = PromptTask(TEMPLATE, ("a", "b"))


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(models.model("llama", grown=False))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(models.model("bert", grown=False))


def test_a_prompt_is_instruction_examples_and_text() -> None:
    shown = [LabelledText("w8", "b"), LabelledText("{text} {x}", "a")]
    prompt = TEMPLATE.render(LabelledText("w9"), shown)
    assert prompt == "w0 w1 w7 w2 w8 w3 w5 w6 w7 w2 {text} {x} w3 w4 w7 w2 w9 w3"
    bare = TEMPLATE.with_changes(instruction="", answers={})
    assert bare.render(LabelledText("w9")) == "w2 w9 w3"
    assert (bare.answer("a"), TEMPLATE.answer("b")) == (" a", " w5 w6")
    assert PromptTemplate.from_dict(TEMPLATE.as_dict()) == TEMPLATE
    for wrong, message in (
        ({"example": "no place"}, "no place for the text"),
        ({"answers": {"a": "x", "b": "x"}}, "answers are"),
        ({"answers": ["x"]}, "answers is"),
        ({"instruction": 3}, "instruction is 3"),
        ({"examples": "{text}"}, "unknown setting of a template: examples"),
    ):
        with pytest.raises(ConfigError, match=message):
            PromptTemplate.from_dict(wrong)


def test_random_demonstrations_depend_on_the_seed_alone() -> None:
    first, again = (RandomDemonstrations(POOL, 4, seed=1).examples for _ in range(2))
    assert first == again
    assert len(set(first)) == 4
    assert first != RandomDemonstrations(POOL, 4, seed=2).examples
    with pytest.raises(ConfigError, match="17 demonstrations from a pool of 16"):
        RandomDemonstrations(POOL, 17)
    with pytest.raises(ConfigError, match="no label"):
        RandomDemonstrations([LabelledText("w8")], 1)


def test_nearest_demonstrations_end_with_the_nearest(encoder: Encoder) -> None:
    text = LabelledText(POOL[3].text)
    (chosen,) = NearestDemonstrations(POOL, 3, encoder=encoder).choose([text])
    others = [one for one in POOL if one.text != text.text]
    vectors = encoder.encode([one.text for one in others])
    similarity = vectors @ encoder.encode([text.text])[0]
    expected = [others[int(number)] for number in np.argsort(similarity)[-3:]]
    assert list(chosen) == expected
    assert NearestDemonstrations(POOL, 0, encoder=encoder).choose([text]) == [()]


def test_diverse_demonstrations_come_from_different_clusters() -> None:
    class Corners:
        """Three directions, with a little noise."""

        def encode(self, texts: list[str]) -> Any:
            noise = np.random.default_rng(0).normal(0, 0.01, (len(texts), 3))
            return (np.eye(3)[[int(text[0]) for text in texts]] + noise).astype(np.float32)

    pool = [LabelledText(f"{n % 3} {n}", "a") for n in range(12)]
    for seed in range(5):
        found = DiverseDemonstrations(pool, 3, encoder=Corners(), seed=seed)  # type: ignore[arg-type]
        assert {one.text[0] for one in found.examples} == {"0", "1", "2"}
    alike = [LabelledText("0", "a")] * 4
    assert len(DiverseDemonstrations(alike, 3, encoder=Corners()).examples) == 3  # type: ignore[arg-type]


def test_labels_are_scored_as_endings_and_calibrated(generator: Generator) -> None:
    shown = tuple(POOL[:2])
    texts = [LabelledText(f"w{n}") for n in (20, 21, 22, 23)]

    def scores(of: list[str]) -> Any:
        pairs = [
            (TEMPLATE.render(LabelledText(text), shown), TEMPLATE.answer(label))
            for text in of
            for label in "ab"
        ]
        totals = [one.total for one in score_endings(generator, pairs)]
        return np.array(totals).reshape(-1, 2)

    plain = TASK.classifier(generator, FixedDemonstrations(shown))
    expected = log_softmax(scores([one.text for one in texts]), 1)
    np.testing.assert_allclose(plain.log_probabilities(texts), expected, atol=1e-5)
    assert plain.calls == 4
    # Zhao et al. 2021: W = diag(p)⁻¹ for the mean p over inputs without content.
    prior = softmax(scores(list(CONTENT_FREE)), 1).mean(0)
    calibrated = replace(TASK, calibrated=True).classifier(generator, FixedDemonstrations(shown))
    weighted = np.exp(expected) / prior
    found = calibrated.probabilities(texts)
    np.testing.assert_allclose(found, weighted / weighted.sum(1, keepdims=True), atol=1e-5)
    calibrated.predict(texts)
    assert calibrated.calls == 4 + 4 + len(CONTENT_FREE), "calibration is read once"


def test_evaluation_over_several_choices(generator: Generator) -> None:
    choices = [choose_demonstrations("random", POOL, 2, seed=seed) for seed in range(3)]
    told: list[int] = []
    found = evaluate_prompt(generator, TASK, POOL, choices, advance=told.append)
    assert found.right.shape == (3, 16)
    assert (found.calls, sum(told)) == (48, 48)
    np.testing.assert_allclose(found.accuracies, found.right.mean(1))
    assert found.spread == pytest.approx(found.accuracies.std(ddof=1))
    with pytest.raises(ConfigError, match="nearest demonstrations need an encoder"):
        choose_demonstrations("nearest", POOL, 2)
    with pytest.raises(InputError, match="the label 'c'"):
        evaluate_prompt(generator, TASK, [LabelledText("w8", "c")])


def test_the_search_counts_its_calls_and_repeats_itself(generator: Generator) -> None:
    train, validation = POOL[:6], POOL[6:]
    options: dict[str, Any] = {"instructions": ["w3 w3"], "num_fewshot": 2, "candidates": 6}

    found = optimise_prompt(generator, TASK, train, validation, max_calls=90, seed=3, **options)
    again = optimise_prompt(generator, TASK, train, validation, max_calls=90, seed=3, **options)
    assert (found.best, found.calls, found.trials) == (again.best, again.calls, again.trials)
    assert found.calls <= 90
    assert found.calls == sum(trial["texts"] for trial in found.trials)
    assert found.accuracy >= found.start_accuracy
    # The first prompt is read first, and on all validation texts.
    assert found.trials[0]["texts"] == len(validation)
    shown = {text for trial in found.trials for text, _ in trial["demonstrations"]}
    assert shown <= {one.text for one in train}


def test_the_given_prompt_stays_unless_another_is_better(generator: Generator) -> None:
    train, validation = POOL[:6], POOL[6:]
    best = optimise_prompt(generator, TASK, train, validation, max_calls=200, num_fewshot=2).best
    again = optimise_prompt(
        generator, best, train, validation, max_calls=12, num_fewshot=2, candidates=1
    )
    assert again.best == best
    with pytest.raises(ConfigError, match="9 calls, and the given prompt alone needs 10"):
        optimise_prompt(generator, TASK, train, validation, max_calls=9)
    with pytest.raises(InputError, match="in training and validation"):
        optimise_prompt(generator, TASK, POOL, validation)


def test_pairs_may_share_a_text(generator: Generator) -> None:
    """As in inference, where a premise has several hypotheses."""
    task = replace(TASK, template=PromptTemplate("", "{text} w1 {text_pair} w2"))
    pairs = [LabelledText("w8", "ab"[n % 2], f"w{n}") for n in range(8, 18)]
    found = optimise_prompt(generator, task, pairs[:5], pairs[5:], max_calls=20, num_fewshot=2)
    assert found.calls <= 20
    with pytest.raises(InputError, match="1 texts are in training and validation, such as 'w8'"):
        optimise_prompt(generator, task, pairs[:6], pairs[5:])


def test_proposals_are_calls_of_the_search(generator: Generator) -> None:
    train, validation = POOL[:6], POOL[6:]
    assert (
        optimise_prompt(generator, TASK, train, validation, max_calls=12, proposals=5).calls == 12
    )


def test_the_model_writes_instructions(generator: Generator) -> None:
    written, again = (propose_instructions(generator, TASK, POOL, 3, seed=1) for _ in range(2))
    assert written == again
    assert len(written) == 3
    found = optimise_prompt(
        generator, TASK, POOL[:6], POOL[6:], proposals=3, max_calls=60, candidates=4
    )
    assert found.calls == 3 + sum(trial["texts"] for trial in found.trials)


def test_samples_vote(generator: Generator) -> None:
    def first(text: str) -> str | None:
        words = text.split()
        return words[0] if words and words[0] < "w3" else None

    options: dict[str, Any] = {"samples": 12, "extract": first, "temperature": 3.0, "seed": 5}
    found = vote(generator, ["w8 w9", "w10"], max_new_tokens=2, **options)
    for one in found:
        answers = [first(text) for text in one.texts]
        counts = {a: answers.count(a) for a in answers if a is not None}
        assert one.answer is not None
        assert counts[one.answer] == max(counts.values())
        assert one.share == counts[one.answer] / 12
    assert found == vote(generator, ["w8 w9", "w10"], max_new_tokens=2, **options)
    none = vote(generator, ["w8"], samples=2, max_new_tokens=1)[0]
    assert (none.answer is None) == all(final_answer(text) is None for text in none.texts)
    assert [final_answer(t) for t in ("1,200 - 5.50", "-3.", "none", "10")] == [
        *("5.5", "-3", None, "10")
    ]
    with pytest.raises(ConfigError, match="0 samples"):
        vote(generator, ["w8"], samples=0)


def test_a_text_alone_is_one_prompt(generator: Generator) -> None:
    found = vote(generator, "w8 w9", samples=2, max_new_tokens=2)
    assert found == vote(generator, ["w8 w9"], samples=2, max_new_tokens=2)
    assert len(found) == 1


def test_a_task_survives_its_file(tmp_path: Path) -> None:
    pair = LabelledText("w8", "a", "w9")
    task = PromptTask(TEMPLATE, ("a", "b"), (pair, *POOL[:2]), calibrated=True)
    task.save(tmp_path / "prompt.json")
    assert PromptTask.load(tmp_path / "prompt.json") == task
    (tmp_path / "other.json").write_text('{"labels": ["a"]}')
    with pytest.raises(CheckpointError, match="is no prompt"):
        PromptTask.load(tmp_path / "other.json")
