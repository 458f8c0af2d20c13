"""An encoder with new tokens learns the vectors it had with the old pieces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoding import tuning
from encoding.models import minilm
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.objectives.imitation import Imitation
from idiolect.encoding.tune_on_text import tune_on_text
from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.training.data.shuffled_epochs import EpochSample
from idiolect.training.training_config import TrainingConfig
from idiolect.vocabulary.extend.extend import extend
from idiolect.vocabulary.terms import Term, Terms
from training import models

PLAN = TrainingConfig(batch_size=10, learning_rate=1e-2, save_steps=3, min_lr_ratio=0.0)


def _distance(one: Encoder, other: Encoder, texts: list[str]) -> float:
    vectors = (encoder.encode(texts) for encoder in (one, other))
    return float(1 - np.mean(np.sum(np.multiply(*vectors), axis=1)))


def test_vectors_of_held_out_texts_approach_the_teachers(tmp_path: Path) -> None:
    student, teacher = tuning.pupil(), tuning.teacher()
    texts, others = models.texts(60), models.texts(20, seed=3)
    known, before = teacher.fingerprint, _distance(student, teacher, others)
    rows = student.model.network.tokens.weight.original.detach().clone()  # type: ignore[union-attr]
    tune_on_text(
        student,
        texts,
        output_dir=tmp_path,
        objective="imitate",
        teacher=teacher,
        epochs=20,
        config=PLAN,
    )
    assert before > 0.005
    assert _distance(student, teacher, others) < before / 4
    assert teacher.fingerprint == known
    assert (student.model.network.tokens.weight.original == rows).all()  # type: ignore[union-attr]
    assert Encoder.load(tmp_path / "model").fingerprint == student.fingerprint


def test_the_loss_is_the_squared_distance(tmp_path: Path) -> None:
    """A text of the minimum length is always read whole, so the first loss is known."""
    student, teacher = tuning.pupil(), tuning.teacher()
    text = ["w3 n1 w5 n4"]
    vectors = [encoder.encode(text)[0] for encoder in (student, teacher)]
    expected = float(np.sum((vectors[0] - vectors[1]) ** 2))
    tune_on_text(
        student,
        text,
        output_dir=tmp_path,
        objective="imitate",
        teacher=teacher,
        steps=1,
        config=PLAN,
    )
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line["loss"] == pytest.approx(expected, rel=1e-4)


def test_passages_are_of_all_lengths_and_places() -> None:
    student, teacher = tuning.pupil(max_length=20), tuning.teacher()
    words = [f"w{i}" for i in range(36)]
    objective = Imitation(student, teacher, [" ".join(words), "w1 w2"])
    drawn = [objective.prepare(EpochSample([0, 1], number)) for number in range(300)]
    ids = dict(zip(words, student.model.tokenizer.encode(" ".join(words))[1:-1], strict=True))
    passages = [batch.rows[0][1:-1] for batch in drawn]
    assert {len(passage) for passage in passages} == set(range(4, 19)), (
        "18 and two special tokens fit"
    )
    assert {id_ for passage in passages for id_ in passage} == set(ids.values())
    for passage in passages:
        assert passage == list(range(passage[0], passage[0] + len(passage))), "words in their order"
    assert all(batch.rows[1][1:-1] == [ids["w1"], ids["w2"]] for batch in drawn)
    again = objective.prepare(EpochSample([0], 7))
    assert again.rows[0][1:-1] == passages[7], "the passage follows from the epoch"


def test_student_and_teacher_read_the_same_text() -> None:
    """A passage that the teacher would truncate, since it has more tokens, is shortened."""
    student, teacher = tuning.pupil(max_length=20), tuning.teacher(max_length=12)
    objective = Imitation(student, teacher, [" ".join(models.NEW * 6)])
    for number in range(100):
        batch = objective.prepare(EpochSample([0], number))
        assert 0 < len(batch.teacher_rows[0]) - 2 == 2 * (len(batch.rows[0]) - 2)


def test_another_teacher_is_another_run(tmp_path: Path) -> None:
    def run(teacher: Encoder) -> None:
        tune_on_text(
            tuning.pupil(),
            models.texts(20),
            output_dir=tmp_path,
            objective="imitate",
            teacher=teacher,
            steps=1,
            config=PLAN,
        )

    run(tuning.teacher())
    with pytest.raises(CheckpointError, match="texts was"):
        run(tuning.teacher(pooling="first"))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"objective": "imitate"}, ConfigError, "'imitate' needs a teacher"),
        ({"objective": "tsdae", "teacher": True}, ConfigError, "'tsdae' has no teacher"),
        ({"objective": "imitate", "teacher": True, "whiten": True}, ConfigError, "whitened"),
        ({"objective": "imitate", "teacher": True, "texts": []}, InputError, "no text"),
    ],
)
def test_bad_arguments(tmp_path: Path, options: Any, error: Any, words: str) -> None:
    if options.get("teacher"):
        options = options | {"teacher": tuning.teacher()}
    texts = options.pop("texts", models.texts(4))
    with pytest.raises(error, match=words):
        tune_on_text(tuning.pupil(), texts, output_dir=tmp_path, **options)


def test_a_teacher_of_another_width(tmp_path: Path) -> None:
    teacher = Encoder(models.model("bert", grown=False, hidden_size=8))
    with pytest.raises(ConfigError, match="8 dimensions and the encoder's 16"):
        tune_on_text(
            tuning.pupil(),
            ["w1"],
            output_dir=tmp_path,
            objective="imitate",
            teacher=teacher,
            steps=1,
        )


@pytest.mark.slow
def test_a_published_encoder_learns_real_terms(tmp_path: Path) -> None:
    """MiniLM with three new tokens approaches the vectors of MiniLM."""
    base = minilm()
    teacher = Encoder.load(base)
    terms = Terms(Term(word, (word,)) for word in ("metformin", "hyperglycemia", "thrombosis"))
    student = teacher.with_changes(model=extend(LanguageModel.load(base), terms))
    drugs = ["metformin", "hyperglycemia", "thrombosis"]
    texts = [f"{one} was seen in {n} patients with {two}" for n in range(9) for one in drugs
             for two in drugs]  # fmt: skip
    asked = ["does metformin help?", "a case of thrombosis", "acute hyperglycemia in children"]
    before = _distance(student, teacher, asked)
    plan = TrainingConfig(batch_size=8, max_length=32, learning_rate=2e-4)
    tune_on_text(
        student,
        texts,
        output_dir=tmp_path,
        objective="imitate",
        teacher=teacher,
        steps=8,
        config=plan,
    )
    after = _distance(student, teacher, asked)
    assert after < 0.7 * before
