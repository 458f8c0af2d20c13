"""Truncated back-propagation on a stream: its order, its carried state, and its optimizers."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from idiolect.encoding.encoder import Encoder
from idiolect.errors import ConfigError, InputError, TrainingError
from idiolect.generate.strategies import greedy
from idiolect.models.language_model import LanguageModel
from idiolect.nn.embedding import ExtendedRows
from idiolect.nn.recurrent import RecurrentCache
from idiolect.text.corpus import Corpus
from idiolect.text.templates.text_template import TextTemplate
from idiolect.training.averaged_sgd import AveragedSGD
from idiolect.training.data.packed_documents import PackedDocuments
from idiolect.training.data.segment_stream import SegmentStream
from idiolect.training.data.token_file import TokenFile
from idiolect.training.objectives.causal import Causal, CausalStream, language_loss
from idiolect.training.pretrain import pretrain
from idiolect.training.training_config import TrainingConfig
from idiolect.training.validation import validation_loss
from training import models

FAMILIES = ("rnn", "lstm", "gru", "awd-lstm")
CONFIG = TrainingConfig(max_length=8, batch_size=4, learning_rate=1e-2, save_steps=4)


def _model(model_type: str = "lstm", *, grown: bool = False, **fields: Any) -> LanguageModel:
    settings = {"model_type": model_type, "hidden_size": 16, "num_layers": 2, **fields}
    base = LanguageModel.new(settings, models.tokenizer(grown=False))
    if not grown:
        return base
    models.grow(base.network)
    return LanguageModel(base.network, models.tokenizer(), base.settings)


def _tokens(folder: Path, texts: list[str]) -> TokenFile:
    return TokenFile.write(folder, texts, models.tokenizer(grown=False))


def _pretrain(model: LanguageModel, out: Path, **changes: Any) -> LanguageModel:
    settings: dict[str, Any] = {"steps": 12, "train": "all", "config": CONFIG}
    settings["unfreeze_original_rows"] = True
    corpus = Corpus.from_texts(models.texts())
    return pretrain(model, corpus, output_dir=out, **settings | changes)


def test_rows_continue_from_step_to_step(tmp_path: Path) -> None:
    texts = [" ".join(f"w{(5 * n + i) % 36}" for i in range(5)) for n in range(20)]
    tokens = _tokens(tmp_path / "tokens", texts)
    template = TextTemplate(before=(2,), after=(2,))
    flat = [id_ for n in range(20) for id_ in (*tokens[n].tolist(), 2)]
    source = SegmentStream(tokens, template, length=7, rows=3)
    part = (len(flat) - 1) // 3
    read: list[list[int]] = [[], [], []]
    restarts = []
    while not source.position.epochs:
        segments = source.take()
        restarts.append(segments.restarts)
        assert torch.equal(segments.input_ids[:, 1:], segments.labels[:, :-1])
        for row, ids in zip(read, segments.input_ids.tolist(), strict=True):
            row += ids
    assert read == [flat[row * part : (row + 1) * part] for row in range(3)]
    assert segments.labels[2, -1] == flat[3 * part]
    assert restarts == [True] + [False] * (len(restarts) - 1)
    assert source.take().restarts, "the next epoch begins anew"


def test_a_stream_shorter_than_a_segment_is_refused(tmp_path: Path) -> None:
    tokens = _tokens(tmp_path / "tokens", ["w1 w2 w3", "", "w4"])
    with pytest.raises(InputError, match=r"the corpus has 7 tokens.*1 for each of 4 rows"):
        SegmentStream(tokens, TextTemplate((2,), (2,)), length=5, rows=4)
    assert SegmentStream(tokens, TextTemplate((2,), (2,)), length=6, rows=1).part == 6


def test_lengths_vary_as_published_and_the_rate_follows(tmp_path: Path) -> None:
    tokens = _tokens(tmp_path / "tokens", [" ".join(["w1"] * 20000)])
    source = SegmentStream(tokens, TextTemplate((), (2,)), length=70, rows=1, varies=True)
    lengths = np.array([source._draw(number) for number in range(3000)])
    short = (lengths < 52).mean()
    assert 0.03 < short < 0.07
    assert abs(lengths[lengths > 52].mean() - 70) < 0.5
    assert abs(lengths[lengths > 52].std() - 5) < 0.5
    segments = source.take()
    assert segments.rate_factor == segments.input_ids.shape[1] / 70
    again = SegmentStream(tokens, TextTemplate((), (2,)), length=70, rows=1, varies=True)
    again.restore(asdict(source.position))
    assert torch.equal(again.take().input_ids, source.take().input_ids)


def test_the_loss_of_segments_is_that_of_the_whole_text(tmp_path: Path) -> None:
    """Values are carried within an epoch, gradients are not; micro-batches change nothing."""
    model = _model()
    tokens = _tokens(tmp_path / "tokens", [" ".join(f"w{i % 36}" for i in range(97))])
    template = TextTemplate((), (2,))
    whole = SegmentStream(tokens, template, length=24, rows=4)
    objective = CausalStream(model.network)
    expected = language_loss(
        model.network, objective.prepare(whole.take()), model.network.new_cache()
    )
    for size in (4, 2):
        source = SegmentStream(tokens, template, length=6, rows=4)
        objective = CausalStream(model.network)
        for _ in range(2):  # epochs
            total = 0.0
            for _ in range(4):
                batch = objective.prepare(source.take())
                for start in range(0, 4, size):
                    part = batch.part(slice(start, start + size))
                    total += float(objective.loss(model.network, part).detach())
            assert total == pytest.approx(float(expected.detach()), rel=1e-5)
        assert not any(part.requires_grad for part in objective.carried().values())
    states = RecurrentCache.from_tensors(objective.carried()).states
    assert [len(state) for state in states] == [2, 2]


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_family_goes_through_the_pipeline(model_type: str, tmp_path: Path) -> None:
    model = _model(model_type, grown=True)
    rows = model.network.tokens.weight
    assert isinstance(rows, ExtendedRows)
    original, added = rows.original.clone(), rows.added.detach().clone()
    _pretrain(model, tmp_path / "run", unfreeze_original_rows=False, steps=4)
    assert torch.equal(rows.original, original)
    assert not torch.equal(rows.added, added)
    loaded = LanguageModel.load(tmp_path / "run" / "model")
    ids = torch.arange(4, 20)[None]
    torch.testing.assert_close(loaded.network(ids).logits, model.network(ids).logits)
    encoder = Encoder(loaded)
    texts = ["w1 w2 n1", "w3", "w4 w5 w6 w7"]
    vectors = encoder.encode(texts)
    assert vectors.shape == (3, 16)
    np.testing.assert_allclose(vectors[1], encoder.encode(texts[1:2])[0], atol=1e-5)
    assert Encoder(loaded, layers=0).encode(texts).shape == (3, 16)
    longer = greedy(loaded.network, ids[:, :3], max_new_tokens=4)
    one = greedy(loaded.network, torch.cat([ids[:, :3], longer[:, :2]], 1), max_new_tokens=2)
    assert torch.equal(longer[:, 2:], one)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "nt-asgd", "learning_rate": 1.0, "eval_steps": 1, "varied_length": True},
    ],
    ids=["adamw", "nt-asgd"],
)
def test_a_resumed_run_ends_bit_identical(changes: dict[str, Any], tmp_path: Path) -> None:
    config = replace(CONFIG, micro_batch_size=2, **changes)
    options: dict[str, Any] = {"config": config, "steps": 14}
    if changes:
        options["validation"] = Corpus.from_texts(models.texts(30))
    whole = _pretrain(_model("awd-lstm"), tmp_path / "whole", **options)
    _pretrain(_model("awd-lstm"), tmp_path / "other", **options)
    shutil.rmtree(tmp_path / "other" / "checkpoint-00000014")
    shutil.rmtree(tmp_path / "other" / "model")
    resumed = _pretrain(_model("awd-lstm"), tmp_path / "other", **options)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_a_failed_step_leaves_the_states_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _pretrain(_model(), tmp_path / "whole")
    calls = iter(range(100))

    def breaks(*given: Any) -> torch.Tensor:
        return language_loss(*given) * (float("nan") if next(calls) == 5 else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr("idiolect.training.objectives.causal.language_loss", breaks)
        with pytest.raises(TrainingError, match="nan"):
            _pretrain(_model(), tmp_path / "failed")
    resumed = _pretrain(_model(), tmp_path / "failed")
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_averages_are_the_mean_of_the_weights_since_validation_rose() -> None:
    parameter = torch.nn.Parameter(torch.tensor([4.0]))
    optimizer = AveragedSGD([{"params": [parameter]}], averages=True, lr=0.5)
    losses = [3.0, 5.0, 4.0, 4.0, 4.0, 4.0, 3.5]
    for count in range(1, 7):
        optimizer.observe(losses[:count])
    assert not optimizer.averaging, "the last is not above the best of those six or more ago"
    optimizer.observe(losses)
    assert optimizer.averaging
    seen = []
    for _ in range(3):
        parameter.grad = parameter.detach().clone()
        optimizer.step()
        seen.append(parameter.item())
    assert seen == [2.0, 1.0, 0.5]
    with optimizer.averaged_weights():
        assert parameter.item() == pytest.approx(3.5 / 3)
    assert parameter.item() == 0.5
    optimizer.finish()
    assert parameter.item() == pytest.approx(3.5 / 3)


def test_validation_is_measured_and_averages_are_published(tmp_path: Path) -> None:
    config = replace(CONFIG, optimizer="nt-asgd", learning_rate=2.0, eval_steps=1)
    held_out = Corpus.from_texts(models.texts(30))
    model = _pretrain(_model(), tmp_path, config=config, validation=held_out, steps=20)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["validation_loss"] for line in lines]
    assert len(losses) == 20
    template = TextTemplate.of(model.tokenizer, causal=True)
    tokens = TokenFile(tmp_path / "validation-tokens", model.tokenizer)
    source = SegmentStream(tokens, template, length=8, rows=4)
    objective, total, count = CausalStream(model.network), 0.0, 0
    while not source.position.epochs:
        batch = objective.prepare(source.take())
        total += float(objective.loss(model.network, batch).detach())
        count += batch.count
    assert losses[-1] == pytest.approx(total / count, rel=1e-4)


def test_every_evaluation_reads_the_same_rows(tmp_path: Path) -> None:
    """Packed documents have another order in each epoch, so the source returns to its start."""
    network = models.model("gpt2").network.eval()
    tokens = _tokens(tmp_path / "tokens", models.texts(30))
    source = PackedDocuments(tokens, TextTemplate((), (2,)), length=8, rows=4)
    start = source.state()
    first = validation_loss(network, Causal(network), source)
    assert source.state() == start
    assert validation_loss(network, Causal(network), source) == first


def test_settings_of_sgd(tmp_path: Path) -> None:
    assert TrainingConfig(optimizer="sgd").max_learning_rate == 20
    assert TrainingConfig(optimizer="sgd").decay == 0
    assert TrainingConfig().decay == 0.1
    with pytest.raises(ConfigError, match="one of adamw, sgd, nt-asgd"):
        TrainingConfig(optimizer="adam")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a learning rate of 20"):
        TrainingConfig(learning_rate=20.0)
    with pytest.raises(InputError, match="the validation text has 6 tokens"):
        _pretrain(_model(), tmp_path, validation=Corpus.from_texts(["w1 w2 w3 w4"]))
    with pytest.raises(ConfigError, match="no validation text"):
        _pretrain(_model(), tmp_path, config=replace(CONFIG, optimizer="nt-asgd"))
    falling = TrainingConfig(schedule="exponential", min_lr_ratio=0.01, warmup_ratio=0.0)
    rates = [falling.learning_rate_at(step, 100, maximum=1.0) for step in (0, 30, 65, 100)]
    assert rates == pytest.approx([1.0, 1.0, 0.1, 0.01])
    steady = TrainingConfig(schedule="constant", warmup_ratio=0.0)
    assert math.isclose(steady.learning_rate_at(99, 100, maximum=1.0), 1.0)


def test_a_run_is_diagnosed(tmp_path: Path) -> None:
    _pretrain(_model("rnn", dropout=0.3), tmp_path, diagnose=True, steps=6)
    lines = [json.loads(line) for line in (tmp_path / "gradients.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [len(own) for own in lines[-1]["layers"]] == [8, 8]
    page = (tmp_path / "report.html").read_text()
    assert "Layer 2, at the end of the run" in page
    assert "a factor of" in page
    assert (tmp_path / "gradients.png").stat().st_size > 1000
    plain = _pretrain(_model("rnn", dropout=0.3), tmp_path / "plain", steps=6)
    whole = LanguageModel.load(tmp_path / "model").network.state_dict()
    for name, value in plain.network.state_dict().items():
        assert torch.equal(value, whole[name]), "measuring changes nothing"
