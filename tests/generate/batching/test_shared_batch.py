"""Texts of several calls in one running batch: each as if it were written alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from idiolect.errors import InputError
from idiolect.generate.batching import running_batch
from idiolect.generate.batching.running_batch import PAGE_SIZE, PagedBatch
from idiolect.generate.generation import Generation
from idiolect.generate.generator import Generator
from idiolect.generate.logits_processors import WrittenRow
from idiolect.models.language_model import LanguageModel
from training import models

WAYS: list[dict[str, Any]] = [
    {},
    {"do_sample": True, "temperature": 1.3, "top_k": 12},
    {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
    {"do_sample": True, "mirostat_tau": 2.0},
    {"top_logprobs": 3, "stop": ("w7",)},
    {"do_sample": True, "num_return_sequences": 3},
]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each step has read."""
    seen, step = list[int](), PagedBatch.step

    def counted(self: PagedBatch, tokens: Sequence[int], fresh: Sequence[Any]) -> Tensor:
        seen.append(len(tokens) + len(fresh))
        return step(self, tokens, fresh)

    monkeypatch.setattr(PagedBatch, "step", counted)
    return seen


def _model() -> LanguageModel:
    return models.model("llama", grown=False, max_position_embeddings=256)


def _shared(**settings: Any) -> Generator:
    generator = Generator(_model())
    assert generator.share(**settings)
    return generator


def _prompts(count: int) -> list[list[int]]:
    random = np.random.default_rng(5)
    return [random.integers(4, 40, int(random.integers(1, 70))).tolist() for _ in range(count)]


def _all_at_once(generator: Generator, prompts: Sequence[list[int]]) -> list[list[Generation]]:
    """Write each prompt in a thread of its own, which begin at the same time."""
    gate = threading.Barrier(len(prompts))

    def write(number: int) -> list[Generation]:
        gate.wait()
        options = WAYS[number % len(WAYS)]
        return generator.generate([prompts[number]], max_new_tokens=12, seed=number, **options)

    with ThreadPoolExecutor(len(prompts)) as threads:
        return list(threads.map(write, range(len(prompts))))


@pytest.mark.parametrize("settings", [{}, {"batch_size": 3}, {"tokens": 100}, {"tokens": 1}])
def test_texts_of_many_threads_are_those_of_each_alone(
    settings: dict[str, Any], steps: list[int]
) -> None:
    prompts, alone = _prompts(18), Generator(_model())
    found = _all_at_once(_shared(**settings), prompts)
    together = max(steps)
    for number, texts in enumerate(found):
        options = WAYS[number % len(WAYS)]
        expected = alone.generate([prompts[number]], max_new_tokens=12, seed=number, **options)
        for one, other in zip(texts, expected, strict=True):
            assert (one.ids, one.text, one.finish_reason) == (
                other.ids,
                other.text,
                other.finish_reason,
            )
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
            for own, their in zip(one.top_logprobs, other.top_logprobs, strict=True):
                assert [id for id, _ in own] == [id for id, _ in their]
    most = settings.get("batch_size", 32)
    assert together == 1 if settings.get("tokens") == 1 else 1 < together <= most


def test_texts_wait_for_room(steps: list[int]) -> None:
    generator = _shared(tokens=50)
    prompts = [[5 + n] * 10 for n in range(6)]  # with 10 new ones, 20 tokens each
    generator.generate(prompts, max_new_tokens=10, eos_token_id=())
    assert max(steps) == 2


def test_calls_take_turns() -> None:
    generator, finished, began = _shared(batch_size=2), list[str](), threading.Event()

    def notice(scores: Tensor, rows: Sequence[WrittenRow]) -> Tensor:
        began.set()
        return scores

    def write(name: str, count: int) -> None:
        options: dict[str, Any] = {"max_new_tokens": 30, "eos_token_id": ()}
        generator.generate([[5, 6, 7]] * count, processors=[notice], **options)
        finished.append(name)

    many = threading.Thread(target=write, args=("many", 12))
    many.start()
    assert began.wait(30)
    write("one", 1)
    many.join()
    assert finished == ["one", "many"]


def test_a_call_that_fails_leaves_the_others() -> None:
    generator = _shared()
    expected = Generator(generator.model).generate([[5, 6]], max_new_tokens=40, eos_token_id=())
    started = threading.Event()

    def fail(scores: Tensor, rows: Sequence[WrittenRow]) -> Tensor:
        started.wait(10)
        if len(rows[0].ids) == 3:
            raise InputError("no more", hint="none")
        return scores

    def notice(scores: Tensor, rows: Sequence[WrittenRow]) -> Tensor:
        started.set()
        return scores

    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(
            generator.generate,
            [[5, 6]],
            max_new_tokens=40,
            eos_token_id=(),
            processors=[notice],
        )
        with pytest.raises(InputError, match="no more"):
            generator.generate([[8, 9]] * 3, max_new_tokens=20, processors=[fail])
        assert other.result()[0].ids == expected[0].ids


def test_a_stream_that_is_left_makes_room(steps: list[int]) -> None:
    generator = _shared(batch_size=1)
    stream = generator.stream([5, 6], max_new_tokens=90, eos_token_id=())
    next(stream)
    (writing,) = [one for one in threading.enumerate() if one.name == "language model"]
    assert not writing.daemon  # it would abort a process that ends meanwhile
    del stream
    writing.join(20)
    assert not writing.is_alive()
    found = generator.generate([[7, 8]], max_new_tokens=3, eos_token_id=())
    assert len(found[0].ids) == 3
    assert len(steps) < 60


def test_a_step_that_fails_fails_its_calls_and_no_later_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator, prompt = _shared(), [5 + n % 30 for n in range(70)]
    expected = Generator(generator.model).generate([prompt], max_new_tokens=5)[0].ids

    def fail(self: PagedBatch) -> int:  # the prompt's pages are known, and will not be written
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(PagedBatch, "_capacity", fail)
        with pytest.raises(MemoryError):
            generator.generate([prompt] * 3, max_new_tokens=5)
    assert generator.generate([prompt], max_new_tokens=5)[0].ids == expected


def test_a_conversation_is_read_from_its_new_words_on(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = list[PagedBatch]()
    make = PagedBatch.__init__

    def init(self: PagedBatch, *args: Any, **options: Any) -> None:
        make(self, *args, **options)
        batches.append(self)

    monkeypatch.setattr(running_batch.PagedBatch, "__init__", init)
    generator = _shared()
    batch = batches[-1]
    first = [5 + n % 30 for n in range(40)]
    answer = generator.generate([first], max_new_tokens=40, eos_token_id=())[0].ids
    assert batch.tokens_read == 40 + 39  # the last token of an answer is not read
    second = [*first, *answer, 9, 8, 7]
    found = generator.generate([second], max_new_tokens=2, eos_token_id=())
    assert batch.tokens_read == 79 + len(second) - 79 // PAGE_SIZE * PAGE_SIZE + 1
    alone = Generator(generator.model).generate([second], max_new_tokens=2, eos_token_id=())
    assert found[0].ids == alone[0].ids
    # Other texts between the turns do not push the conversation out.
    for number in range(4):
        generator.generate([[number + 4] * 40], max_new_tokens=2, eos_token_id=())
    before = batch.tokens_read
    generator.generate([second], max_new_tokens=1, eos_token_id=())
    assert batch.tokens_read - before < PAGE_SIZE


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"tokens": 0}, {"batch_size": 1.5}])
def test_room_for_no_text_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"batch_size|tokens"):
        Generator(_model()).share(**wrong)


def test_networks_without_pages_write_as_before() -> None:
    shape = {"model_type": "lstm", "hidden_size": 16, "num_layers": 1}
    generator = Generator(LanguageModel.new(shape, models.tokenizer(grown=False)))
    expected = generator.generate([[5, 6]], max_new_tokens=4)
    assert not generator.share()
    assert generator.generate([[5, 6]], max_new_tokens=4) == expected
