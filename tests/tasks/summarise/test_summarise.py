"""Summaries: files, ROUGE and its settings, training, long texts and the commands."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from cli.program import idiolect_program
from idiolect.errors import InputError
from idiolect.models.language_model import LanguageModel
from idiolect.tasks.summarise.extractive_baselines import best_sentence, first_sentence
from idiolect.tasks.summarise.rouge import rouge
from idiolect.tasks.summarise.summarised_texts import (
    SummarisedText,
    read_summarised_texts,
    split_sentences,
)
from idiolect.tasks.summarise.summariser import Summariser, summary_config
from training import models
from training.test_translation import PAIRS, small

WORDS = models.OLD[len(models.SPECIAL) :]
SETTINGS = {"prompt": " w1", "max_length": 40, "max_new_tokens": 4}


def _texts(count: int, *, seed: int = 0) -> list[SummarisedText]:
    """The summary of a text is `w2 w3`."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        words = draw.choices(WORDS[8:], k=draw.randrange(4, 12))
        made.append(SummarisedText(" ".join(words), ("w2 w3",)))
    return made


def test_rouge_is_that_of_rouge_score() -> None:
    scorers = pytest.importorskip("rouge_score.rouge_scorer")
    found = ["The cats sat. They slept.", "a dog", ""]
    references = [["A cat sat down. It was sleeping.", "Cats slept."], ["a dog runs"], ["x"]]
    for use_stemmer in (True, False):
        names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
        theirs = scorers.RougeScorer(names, use_stemmer=use_stemmer)
        ours = rouge(found, references, use_stemmer=use_stemmer)
        for name, value in zip(names, ours.as_dict().values(), strict=False):
            best = [
                max(
                    theirs.score(r.replace(". ", ".\n"), s.replace(". ", ".\n"))[name].fmeasure
                    for r in own
                )
                for s, own in zip(found, references, strict=True)
            ]
            assert value == pytest.approx(100 * sum(best) / 3, abs=1e-9)
        assert f"stemmer {'on' if use_stemmer else 'off'}, best of up to 2" in ours.settings
    assert rouge(["кот"], [["кот"]]).without_words == 1


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="text 2 has an empty reference"):
        rouge(["a", "b"], [["a"], [" "]])
    with pytest.raises(InputError, match="1 summaries and 2 references"):
        rouge(["a"], [["a"], ["b"]])
    path = tmp_path / "a.jsonl"
    rows = [
        {"source": ["One.", "Two."], "target": ["a", ""]},
        {"source": "One.", "target": " "},
        {"source": [], "target": "a"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = read_summarised_texts(path, text="source", summary="target")
    assert found == [SummarisedText("One. Two.", ("a",))]
    with pytest.raises(InputError, match="no record with 'text'"):
        read_summarised_texts(path)
    with pytest.raises(InputError, match="no text has a summary"):
        Summariser(models.model("gpt2"), **SETTINGS)._examples([SummarisedText("w4")])


def test_baselines_by_hand() -> None:
    texts = [SummarisedText("One dog. A cat sat! Why?", ("the cat sat",))]
    assert split_sentences(texts[0].text) == ["One dog.", "A cat sat!", "Why?"]
    assert first_sentence(texts) == ["One dog."]
    assert best_sentence(texts) == ["A cat sat!"]


@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_a_decoder_learns(adaptation: str, tmp_path: Path) -> None:
    model = Summariser(models.model("gpt2", grown=False), **SETTINGS)
    before = model.model.network.tokens.weight.clone()
    config = summary_config(adaptation, learning_rate=2e-2)
    model.train(
        _texts(64), output_dir=tmp_path, adaptation=adaptation, epochs=8, batch_tokens=96,
        config=config,
    )  # fmt: skip
    new = [text.text for text in _texts(8, seed=1)]
    written = model.summarise(new)
    assert adaptation == "lora" or written.count("w2 w3") >= 7
    assert model.model.network.tokens.weight.equal(before), "original rows are unchanged"
    loaded = Summariser.load(tmp_path / "model")
    assert loaded.summarise(new) == written
    assert loaded.summarise(["", new[0]], num_beams=2)[0] == ""


def test_an_encoder_decoder_learns(tmp_path: Path) -> None:
    model = Summariser(small("transformer"), max_length=32, max_new_tokens=8)
    [source], [target] = model._examples([SummarisedText("a h ja", ("yes h a",))])
    assert (source[-1], target[-1]) == (model.end, model.end)
    texts = [SummarisedText(pair.source, ("yes",)) for pair in PAIRS]
    config = summary_config(learning_rate=2e-2)
    model.train(texts, output_dir=tmp_path, epochs=4, batch_tokens=64, config=config)
    [written] = Summariser.load(tmp_path / "model").summarise(["b k ja"])
    assert written.startswith("yes")


def test_only_the_summary_is_learnt() -> None:
    model = Summariser(models.model("gpt2", grown=False), **SETTINGS)
    [source], [target] = model._examples([SummarisedText("w9 w10", ("w2 w3 w4 w5 w6",))])
    ids = model.model.tokenizer.encode
    assert source == ids("w9 w10 w1")
    assert target == [*ids("w2 w3 w4"), model.end], "as many tokens as may be written"
    from idiolect.tasks.summarise.summariser import _Continuation
    from idiolect.training.data.sentence_pairs import PairRows

    batch = _Continuation(0).prepare(PairRows([0], [source], [target]))
    assert batch.labels is not None
    assert batch.labels[0].tolist() == [-100, -100, *target, -100, -100][: batch.labels.shape[1]]
    assert batch.input_ids[0].tolist() == source + target


def test_a_long_text_is_summarised_in_parts() -> None:
    model = Summariser(
        models.model("gpt2", grown=False), prompt=" w1", max_length=12, max_new_tokens=4
    )
    ends = " ".join(f"{word} w7." for word in WORDS[8:16])
    parts = model._parts(ends)
    assert len(parts) > 1
    assert all(len(row) <= 12 for row in parts)
    last = model.model.tokenizer.encode("w1")
    assert all(row[-1:] == last for row in parts)
    inner = [token for row in parts for token in row[:-1]]
    assert inner == model.model.tokenizer.encode(ends), "no token is lost or read twice"
    assert model._parts("w4") == [model.model.tokenizer.encode("w4 w1")]
    assert isinstance(model.summarise([ends * 3])[0], str)


def test_commands(tmp_path: Path) -> None:
    models.model("gpt2", grown=False).save(tmp_path / "base")
    for name, count in (("train", 40), ("test", 8)):
        rows = [{"doc": t.text, "tldr": list(t.summaries)} for t in _texts(count, seed=count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    fields = ("--text", "doc", "--summary", "tldr")
    ran = idiolect_program(
        *("tasks", "summarise", "train", "train.jsonl", "--model", "base", "-o", "run", *fields),
        *("--prompt", " w1", "--max-length", 40, "--max-new-tokens", 4, "--lr", 0.02),
        *("--batch-tokens", 96, "--epochs", 10),
        folder=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    assert LanguageModel.load(tmp_path / "run" / "model").network.kind == "causal"
    ran = idiolect_program(
        *("tasks", "summarise", "evaluate", "run/model", "test.jsonl", "--json", *fields),
        *("--errors", "errors.html"),
        folder=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert result["summariser"]["rouge1"] > 80 > result["first sentence"]["rouge1"]
    assert "Worst summaries" in (tmp_path / "errors.html").read_text()
    ran = idiolect_program(
        *("tasks", "summarise", "predict", "run/model", "test.jsonl", "-o", "out.jsonl"),
        *("--text", "doc"),
        folder=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 8
