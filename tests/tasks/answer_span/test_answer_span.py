"""Answers as spans: SQuAD files and rules, windows, no answer, training and the commands."""

from __future__ import annotations

import gzip
import json
import random
import re
import string
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cli.program import idiolect_program
from idiolect.encoding.encoder import Encoder
from idiolect.errors import ConfigError, InputError
from idiolect.tasks.answer_span.answer_finder import AnswerFinder
from idiolect.tasks.answer_span.sentence_baseline import best_sentences
from idiolect.tasks.answer_span.squad_files import (
    PassageAnswer,
    PassageQuestion,
    read_questions,
)
from idiolect.tasks.answer_span.squad_metrics import (
    best_threshold,
    score_answers,
)
from idiolect.tasks.task_model import task_config
from idiolect.text.answer_match import answer_f1, exact_match
from training import models

WORDS = models.OLD[len(models.SPECIAL) :]


def _questions(count: int, *, seed: int = 0, length: int = 9) -> list[PassageQuestion]:
    """The answer is `w0 w1`; some passages have none."""
    draw, made = random.Random(seed), []
    for number in range(count):
        words = [draw.choice(WORDS[4:]) for _ in range(length)]
        answers: tuple[PassageAnswer, ...] = ()
        if number % 4:
            place = draw.randrange(length)
            words[place:place] = WORDS[:2]
            answers = (PassageAnswer("w0 w1", len(" ".join([*words[:place], ""]))),)
        made.append(PassageQuestion(str(number), WORDS[3], " ".join(words), answers))
    return made


def _as_squad(questions: list[PassageQuestion]) -> dict[str, object]:
    paragraphs = [
        {
            "context": q.context,
            "qas": [
                {
                    "id": q.id,
                    "question": q.question,
                    "is_impossible": not q.answers,
                    "answers": [{"text": a.text, "answer_start": a.start} for a in q.answers or ()],
                }
            ],
        }
        for q in questions
    ]
    return {"version": "v2.0", "data": [{"title": "a", "paragraphs": paragraphs}]}


def _finder(kind: str = "bert", **settings: int | bool) -> AnswerFinder:
    return AnswerFinder(Encoder(models.model(kind, grown=False)), **settings)


# The official script's rules (evaluate-v2.0.py), as published.


def _official_normal(text: str) -> str:
    text = "".join(ch for ch in text.lower() if ch not in set(string.punctuation))
    return " ".join(re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text).split())


def _official_f1(gold: str, found: str) -> float:
    gold_tokens, found_tokens = (_official_normal(t).split() for t in (gold, found))
    same = sum((Counter(gold_tokens) & Counter(found_tokens)).values())
    if not gold_tokens or not found_tokens:
        return int(gold_tokens == found_tokens)
    if same == 0:
        return 0
    precision, recall = same / len(found_tokens), same / len(gold_tokens)
    return (2 * precision * recall) / (precision + recall)


def test_measures_equal_the_official_rules() -> None:
    draw = random.Random(0)
    parts = ["The", "a", "an", "cat", "Cat,", "dog", "dog's", "—", "3.5", "theatre", "", "ÉTÉ"]
    for _ in range(300):
        found, *golds = (" ".join(draw.choices(parts, k=draw.randrange(4))) for _ in range(4))
        right = [gold for gold in golds if _official_normal(gold)] or [""]
        assert answer_f1(found, golds) == pytest.approx(
            max(_official_f1(gold, found) for gold in right), abs=1e-9
        )
        same = [_official_normal(gold) == _official_normal(found) for gold in right]
        assert exact_match(found, golds) == max(same)


def test_scores_by_hand() -> None:
    questions = [
        PassageQuestion("1", "q", "the red house", (PassageAnswer("the red house", 0),)),
        PassageQuestion("2", "q", "x y", (PassageAnswer("x", 0),)),
        PassageQuestion("3", "q", "x y", ()),
        PassageQuestion("4", "q", "x y", ()),
    ]
    found = score_answers(questions, ["red", "x", "", "y"])
    assert found.exact_match == pytest.approx(50)
    assert found.f1 == pytest.approx(100 * (2 / 3 + 1 + 1) / 4)
    assert found.answerable_f1 == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert found.unanswerable_accuracy == 50
    # Without any answer, 2 of 4 are right; with those of a doubt up to 0.3, 0.67 + 1 + 1.
    assert best_threshold(questions, ["red", "x", "y", "y"], [0.1, 0.3, 0.4, 0.2]) == 0.1
    assert best_threshold(questions, ["red", "x", "y", "y"], [0.1, 0.3, 0.4, 0.5]) == 0.3
    assert best_threshold(questions, ["no", "no", "y", "y"], [0.1, 0.3, 0.4, 0.5]) < 0.1


def test_files_are_read_alike(tmp_path: Path) -> None:
    questions = _questions(6)
    (tmp_path / "a.json").write_text(json.dumps(_as_squad(questions)))
    (tmp_path / "a.json.gz").write_bytes(gzip.compress((tmp_path / "a.json").read_bytes()))
    lines = []
    for q in questions:
        answers = {
            "text": [a.text for a in q.answers or ()],
            "answer_start": [a.start for a in q.answers or ()],
        }
        line = {"id": q.id, "question": q.question, "context": q.context, "answers": answers}
        lines.append(json.dumps(line))
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    for name in ("a.json", "a.json.gz", "a.jsonl"):
        assert read_questions(tmp_path / name) == questions


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = {"question": "q", "context": "some words", "answers": "words"}
    path.write_text(json.dumps(good) + "\n" + json.dumps({**good, "answers": "word salad"}))
    with pytest.raises(InputError, match=r"1 an answer that is not in the passage \(a.jsonl line"):
        read_questions(path)
    assert read_questions(path, max_unreadable=0.5)[0].answers == (PassageAnswer("words", 5),)
    moved = {**good, "answers": [{"text": "words", "answer_start": 4}]}
    path.write_text(json.dumps(moved))
    with pytest.raises(InputError, match="not in the passage"):
        read_questions(path)
    path = tmp_path / "b.json"
    path.write_text(json.dumps({"data": [{"paragraphs": [{"text": "x"}]}]}))
    with pytest.raises(InputError, match="is no SQuAD file"):
        read_questions(path)
    with pytest.raises(InputError, match="some questions have no answer"):
        _finder().train(_questions(8), output_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="too few"):
        AnswerFinder(Encoder(models.model("bert", grown=False), max_length=12))


def test_windows_cover_the_passage_and_know_their_answer() -> None:
    encoder = Encoder(models.model("bert", grown=False), max_length=24)
    finder = AnswerFinder(encoder, unanswerable=True, stride=6)
    [question] = _questions(2, length=60)[1:]
    from idiolect.tasks.answer_span.answer_finder import _target

    pieces = finder.read([question])
    assert len(pieces) > 3
    assert {place for p in pieces for place in p.offsets} == set(
        encoder.model.tokenizer.encode_with_offsets([question.context], add_special_tokens=False)[
            0
        ][1]
    )
    targets = [_target(piece, question) for piece in pieces]
    assert any(first for first, _ in targets)
    for piece, (first, last) in zip(pieces, targets, strict=True):
        assert len(piece.ids) <= 24
        if first:
            start, end = piece.offsets[first - 1][0], piece.offsets[last - 1][1]
            assert question.context[start:end] == "w0 w1"


def test_the_best_span_is_the_best_of_all_that_are_allowed() -> None:
    finder = _finder(max_answer_length=3)
    [piece] = finder.read(_questions(1))
    torch.manual_seed(0)
    count = len(piece.offsets)
    scores = torch.randn(2, count + 4)
    by_span = {
        (a, b): float(scores[0, a + 1] + scores[1, b + 1])
        for a in range(count)
        for b in range(a, min(a + 3, count))
    }
    score, first, last = finder._best_span(scores, piece)
    assert (first, last) == max(by_span, key=lambda span: by_span[span])
    assert score == pytest.approx(max(by_span.values()))


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_learns(kind: str, tmp_path: Path) -> None:
    finder = _finder(kind, unanswerable=True)
    config = task_config(batch_size=8, learning_rate=1e-2, learning_rates={"attached": 3e-2})
    finder.train(_questions(96), output_dir=tmp_path, epochs=4, config=config)
    finder.fit_threshold(_questions(24, seed=2))
    test = _questions(40, seed=1)
    found = finder.predict(test)
    scores = score_answers(test, [one.text for one in found])
    assert scores.f1 > 80
    assert scores.unanswerable_accuracy is not None
    assert scores.unanswerable_accuracy > 60
    for question, one in zip(test, found, strict=True):
        assert question.context[one.start : one.start + len(one.best)] == one.best
    finder.save_record(tmp_path / "model")
    loaded = AnswerFinder.load(tmp_path / "model").predict(test)
    assert [one.text for one in loaded] == [one.text for one in found]


def test_baseline_is_the_sentence_with_the_rare_words() -> None:
    passage = "The sun is hot. A penguin lives in the cold. The sun is far."
    questions = [
        PassageQuestion("1", "where does the penguin live", passage, ()),
        PassageQuestion("2", "is the sun hot", "The sun. No penguin.", ()),
    ]
    assert best_sentences(questions)[0] == "A penguin lives in the cold."
    one = PassageQuestion("3", "how tall is the tower", "The tower is 3.5 m tall. It leans.", ())
    assert best_sentences([one]) == ["The tower is 3.5 m tall."]
    assert best_sentences([replace(one, question="塔", context="塔高。山低。")]) == ["塔高。"]


def test_commands(tmp_path: Path) -> None:
    _finder().encoder.save(tmp_path / "base")
    for name, count in (("train", 64), ("dev", 16), ("test", 20)):
        squad = _as_squad(_questions(count, seed=count))
        (tmp_path / f"{name}.json").write_text(json.dumps(squad))
    ran = idiolect_program(
        *("tasks", "answer-span", "train", "train.json", "--encoder", "base", "-o", "run"),
        *("--valid", "dev.json", "--lr", 0.01, "--batch-size", 8, "--epochs", 2),
        folder=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    assert "threshold of no answer" in ran.stdout
    ran = idiolect_program(
        *("tasks", "answer-span", "evaluate", "run/model", "test.json", "--json"),
        *("--errors", "errors.html"),
        folder=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert result["finder"]["questions"] == sum(map(sum, result["confusion"])) == 20
    assert result["no answer"]["unanswerable_accuracy"] == 100
    assert "Worst errors" in (tmp_path / "errors.html").read_text()
    ran = idiolect_program(
        *("tasks", "answer-span", "evaluate", "run/model", "test.json"),
        folder=tmp_path,
        columns=80,
    )
    assert "most similar sentence" in ran.stdout
    assert "…" not in ran.stdout, "no figure is cut off"
    for name in ("out.jsonl", "out.json"):
        ran = idiolect_program(
            *("tasks", "answer-span", "predict", "run/model", "test.json", "-o", name),
            folder=tmp_path,
        )
        assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    by_id = json.loads((tmp_path / "out.json").read_text())
    twice = json.dumps({"id": "1", "question": "w1", "context": "w2 w3"}) + "\n"
    (tmp_path / "twice.jsonl").write_text(twice * 2)
    ran = idiolect_program(
        *("tasks", "answer-span", "predict", "run/model", "twice.jsonl", "-o", "out.json"),
        folder=tmp_path,
    )
    assert "the same id" in ran.stderr
    assert json.loads((tmp_path / "out.json").read_text()) == by_id
    assert by_id == {line["id"]: line["answer"] for line in lines}
