"""Probes: states by layer, linear probes, attention patterns, importance, pruning, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from cli.program import idiolect_program
from idiolect.cli.main import app
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.errors import InputError
from idiolect.models.language_model import LanguageModel
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.tasks.classify.text_classifier import TextClassifier
from idiolect.tasks.probes.anisotropy import measure_anisotropy
from idiolect.tasks.probes.attention_patterns import PATTERNS, attention_patterns
from idiolect.tasks.probes.head_importance import head_importance, prune_heads, pruned
from idiolect.tasks.probes.layer_probes import _align, probe_texts, probe_words
from idiolect.tasks.probes.layer_states import self_attentions, states_by_layer
from idiolect.tasks.probes.linear_probe import LinearProbe
from idiolect.tasks.probes.probe_report import summarize_probes
from idiolect.tasks.probes.probe_run import probe
from idiolect.tasks.probes.pruning_tasks import classifier_task, halves_task, language_task
from idiolect.tasks.probes.tagged_words import TaggedSentence, chunk_tags, read_tagged
from idiolect.text.skipped import Skipped
from training import models


def _encoder(kind: str) -> Encoder:
    if kind == "awd-lstm":
        settings = {"model_type": "awd-lstm", "hidden_size": 24, "embedding_size": 16}
        return Encoder(LanguageModel.new(settings, models.tokenizer(grown=False), seed=0))
    return Encoder(models.model(kind, grown=False))


def _texts(count: int = 60) -> list[str]:
    return [text.replace("n", "w") for text in models.texts(count)]


def _rows(encoder: Encoder, texts: list[str]) -> list[list[int]]:
    return encoder.reader.read(texts, None, EncodingCounts())


@pytest.mark.parametrize("kind", ["bert", "gpt2", "awd-lstm"])
def test_states_are_those_of_the_network_cut_after_the_layer(kind: str) -> None:
    encoder = _encoder(kind)
    rows = _rows(encoder, _texts(9))
    network = encoder.model.network.eval()
    for batch in states_by_layer(encoder, rows):
        assert len(batch.states) == len(network.blocks) + 1
        assert batch.input_ids.tolist() == [rows[i] for i in batch.texts]
        with torch.inference_mode():
            torch.testing.assert_close(batch.states[-1], network.text_states(batch.input_ids))
            if kind == "bert":
                cut = network.first_layers(1).text_states(batch.input_ids)
                torch.testing.assert_close(batch.states[1], cut)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_attention_weights_are_those_the_states_are_made_of(kind: str) -> None:
    """Weights times values, through the output matrix, are the output of the layer's attention."""
    encoder = _encoder(kind)
    attention = self_attentions(encoder)[0]
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    handle = attention.register_forward_hook(lambda m, a, out: seen.append((a[0], out)))
    [batch] = states_by_layer(encoder, _rows(encoder, ["w1 w2 w3 w4 w2"]), attentions=True)
    handle.remove()
    x, expected = seen[0]
    with torch.inference_mode():
        value = attention.value(x).unflatten(-1, (attention.key_heads, -1)).transpose(1, 2)
        mixed = (batch.attentions[0] @ value).transpose(1, 2).flatten(-2)
        torch.testing.assert_close(attention.output(mixed), expected)
    assert attention.observer is None
    if kind != "bert":
        assert not batch.attentions[0].triu(1).any()


def test_linear_probe_is_at_the_minimum() -> None:
    """The loss has no slope there, and it is convex."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(300, 8, generator=generator) * torch.arange(1, 9) + 3
    labels = (features @ torch.randn(8, 3, generator=generator)).argmax(1)
    probe = LinearProbe(features, labels.numpy(), 3, penalty=1e-2)
    standard = (features - features.mean(0)) / features.std(0)
    weight = probe._linear.weight
    loss = nn.functional.cross_entropy(standard @ weight.T + probe._linear.bias, labels)
    [slope] = torch.autograd.grad(loss + 1e-2 * weight.square().sum(), [weight])
    assert float(slope.abs().max()) < 1e-3
    assert probe.accuracy(features, labels.numpy()) > 0.95


def test_a_probe_reads_words_from_the_embedding(tmp_path: Path) -> None:
    tags = {f"w{i}": ("NN", "VB", "IN")[i % 3] for i in range(36)}
    sentences = [
        TaggedSentence(words := tuple(text.split()), tuple(tags[w] for w in words))
        for text in _texts(60)
    ]
    pos, chunk = probe_words(_encoder("bert"), sentences)
    assert (pos.name, chunk.name, pos.classes) == ("pos", "chunk", 3)
    assert pos.by_word == 1.0 > pos.majority
    assert pos.accuracy[0] > pos.majority + 0.15
    assert len(pos.accuracy) == 3
    assert sum(pos.examples) == sum(len(s.words) for s in sentences)


def test_few_long_sentences_and_empty_texts() -> None:
    long = TaggedSentence(tuple(f"w{i % 30}" for i in range(40)), ("NN", "VB") * 20)
    pos, _ = probe_words(_encoder("bert"), [long] * 12, max_words=30)
    assert pos.examples == (7 * 40, 3 * 40), "ten sentences, although the first has enough words"
    with pytest.raises(InputError, match="40 texts with tokens"):
        probe_texts(_encoder("gpt2"), [*_texts(40), *[""] * 30])


def test_a_probe_reads_length_from_positions() -> None:
    texts = _texts(200)
    [length, *_] = probe_texts(_encoder("bert"), texts)
    assert length.name == "length"
    assert max(length.accuracy) > 1.5 * length.majority
    with pytest.raises(InputError, match="3 texts"):
        probe_texts(_encoder("bert"), texts[:3])


def test_a_head_made_to_look_at_the_token_before_is_found() -> None:
    encoder = _encoder("gpt2")
    stack = encoder.model.network.decoder
    table = stack.table.weight
    attention = self_attentions(encoder)[0]
    with torch.no_grad():
        # Position p has its own direction; the query turns it into that of p − 1.
        encoder.model.network.tokens.weight.zero_()
        table.zero_()
        for position in range(8):
            table[position, position] = 20.0
        query, key = attention.query.weight[:8], attention.key.weight[:8]
        query.zero_(), key.zero_()
        for position in range(1, 8):
            query[position - 1, position] = 5.0
            key[position - 1, position - 1] = 5.0
        attention.query.bias.zero_(), attention.key.bias.zero_()
    found = attention_patterns(encoder, ["w1 w2 w3 w4 w5 w6 w7"] * 3)
    assert found is not None
    assert found.strongest("previous")[:2] == (1, 1)
    assert found.shares[PATTERNS.index("previous"), 0, 0] > 0.95
    # Half of a token's uniform attention goes back one place at the second token, a third …
    assert found.uniform[0] == pytest.approx(sum(1 / n for n in range(2, 8)) / 6)
    assert found.shares[PATTERNS.index("next")].max() == 0


def test_importance_is_the_slope_of_the_loss_by_finite_differences() -> None:
    encoder = _encoder("gpt2")
    rows = _rows(encoder, ["w1 w2 w3 w4", "w5 w3 w9 w1"])
    network = encoder.model.network

    def loss(ids: torch.Tensor) -> torch.Tensor:
        scores = network.score_vocabulary(network.text_states(ids)[:, :-1])
        return nn.functional.cross_entropy(
            scores.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum"
        )

    found = head_importance(encoder, [lambda: loss(torch.tensor(rows))])
    expected = np.zeros((2, 2))
    for layer, attention in enumerate(self_attentions(encoder)):
        for head in range(2):
            columns = attention.output.weight[:, head * 8 : head * 8 + 8]
            for row in rows:
                sides = []
                for step in (1e-2, -1e-2):
                    with torch.no_grad():
                        kept = columns.clone()
                        columns.mul_(1 + step)
                        sides.append(float(loss(torch.tensor([row]))))
                        columns.copy_(kept)
                expected[layer, head] += abs(sides[0] - sides[1]) / 2e-2
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_pruning_removes_a_head_and_gives_it_back() -> None:
    encoder = _encoder("bert")
    before = encoder.encode(["w1 w2"])
    attention = self_attentions(encoder)[1]
    with pruned(encoder, [(1, 0)]):
        assert not attention.output.weight[:, :8].any()
        assert attention.output.weight[:, 8:].any()
        assert not np.allclose(encoder.encode(["w1 w2"]), before)
    np.testing.assert_array_equal(encoder.encode(["w1 w2"]), before)
    prune_heads(encoder, [(0, 1)])
    assert not self_attentions(encoder)[0].output.weight[:, 8:].any()
    with pytest.raises(InputError, match="no head 2 in layer 0"):
        prune_heads(encoder, [(0, 2)])


def test_tasks_to_prune_for() -> None:
    encoder, texts = _encoder("bert"), _texts(60)
    masked = language_task(encoder, texts[:30], texts[30:])
    assert masked.measure() == pytest.approx(np.log(40), abs=0.3)
    halves = halves_task(encoder, texts[:40], texts[40:])
    assert 0 < halves.measure() <= 1
    labelled = [LabelledText(text, "ab"[i % 2]) for i, text in enumerate(texts)]
    classifier = TextClassifier(encoder, ["a", "b"])
    task = classifier_task(classifier, labelled[:30], labelled[30:])
    assert 0 <= task.measure() <= 1
    for one in (masked, halves, task):
        assert head_importance(encoder, one.batches).shape == (2, 2)
    with pytest.raises(InputError, match="no attention heads"):
        head_importance(_encoder("awd-lstm"), [])


def test_anisotropy_of_equal_states_is_one() -> None:
    encoder = _encoder("bert")
    equal = measure_anisotropy(encoder, ["w1"] * 12)
    assert equal.tokens == pytest.approx([1, 1, 1], abs=1e-5)
    different = measure_anisotropy(encoder, _texts(60))
    assert abs(different.tokens[0]) < 0.9
    assert abs(different.centered[1]) < 0.1


def test_chunks_and_tagged_files(tmp_path: Path) -> None:
    assert chunk_tags(["NNP", "VBD", "TO", "VB", "DT", "NN", "JJ", "NNS", "RB", "."]) == (
        *("B-NP", "B-VP", "I-VP", "I-VP", "B-NP", "I-NP", "B-NP", "I-NP", "O", "O"),
    )
    path = tmp_path / "a.txt"
    path.write_text('The_DT e_mail_NN\n\nThe/DT cat/NN\nno tag\n{"tokens": ["a"], "tags": ["X"]}\n')
    counted = Skipped()
    assert read_tagged(path, counted) == [
        TaggedSentence(("The", "e_mail"), ("DT", "NN")),
        TaggedSentence(("The", "cat"), ("DT", "NN")),
        TaggedSentence(("a",), ("X",)),
    ]
    assert sum(counted.values()) == 1
    path.write_text("nothing here")
    with pytest.raises(InputError, match="no sentence with tags"):
        read_tagged(path)


def test_command_cuts_tagged_words_at_the_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _encoder("bert").save(tmp_path / "model")
    tagged = tmp_path / "tagged.txt"
    tagged.write_text("\n".join(" ".join(f"w{i}_T" for i in range(20)) for _ in range(12)))
    probed: list[int] = []

    def run(encoder: Encoder, *_: object, tagged: list[TaggedSentence], **__: object) -> None:
        rows, _ = _align(encoder, tagged, 1000)
        probed.append(max(map(len, rows)))
        raise InputError("enough", hint="stop")

    monkeypatch.setattr("idiolect.tasks.probes.probe_run.probe", run)
    arguments = ["probe", str(tmp_path / "model"), "--report", str(tmp_path / "page.html")]
    arguments += ["--tagged", str(tagged), "--max-length", "8"]
    CliRunner().invoke(app, arguments)
    assert probed == [8]


@pytest.mark.slow
def test_summary_of_all_probes() -> None:
    found = probe(_encoder("gpt2"), _texts(100), seeds=1)
    lines = summarize_probes(found)
    assert lines[0].startswith("length: ")
    assert any("with 40% of the heads pruned" in line for line in lines)
    assert json.loads(json.dumps(found.as_dict()))["pruning"]["measure"].startswith("loss of the")
    with pytest.raises(InputError, match="static"):
        probe(Encoder(models.model("bert", grown=False), layers=0), _texts(60))


@pytest.mark.slow  # drawing takes seconds
def test_command_writes_a_page(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    _encoder("bert").save(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("\n".join(_texts(120)))
    (tmp_path / "tagged.txt").write_text(
        "\n".join(" ".join(f"{w}_T{int(w[1:]) % 3}" for w in t.split()) for t in _texts(30))
    )
    ran = idiolect_program(
        *("probe", "model", "--report", "page.html", "--texts", "texts.txt", "--json"),
        *("--tagged", "tagged.txt"),
        folder=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert [one["name"] for one in found["probes"]][:3] == ["pos", "chunk", "length"]
    assert found["pruning"]["shares"] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.6]
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64") == 4
    assert "same word" in page
    (tmp_path / "labelled.jsonl").write_text('{"text": "w1", "label": "a"}\n{"text": "w2"}\n')
    ran = idiolect_program(
        *("probe", "model", "--report", "page.html", "--labelled", "labelled.jsonl"),
        folder=tmp_path,
    )
    assert "1 no label (labelled.jsonl line 2)" in ran.stderr
    assert "no classifier" in ran.stderr
