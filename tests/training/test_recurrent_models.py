"""What is done with recurrent language models after they are made: distilled, tuned, killed."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.pairs import Pair
from idiolect.encoding.tune import tune
from idiolect.encoding.tuning_setup import tuning_config
from idiolect.models.language_model import LanguageModel
from idiolect.nn.recurrent import RecurrentNetwork
from idiolect.text.corpus import Corpus
from idiolect.training.averaged_sgd import AveragedSGD
from idiolect.training.data.segment_stream import SegmentStream
from idiolect.training.data.token_file import TokenFile
from idiolect.training.objectives.causal import CausalStream
from idiolect.training.pretrain import pretrain
from idiolect.training.training_config import TrainingConfig
from idiolect.training.validation import validation_loss
from idiolect.vocabulary.extend.extend import extend
from idiolect.vocabulary.rows.distill import distill, distillation_config
from training import models, runs
from vocabulary.conftest import DOMAIN, make

TERMS = ["HbA1c", "metformin", "XR-2000B", "type 2 diabetes"]
FAMILIES = ("lstm", "awd-lstm")
PUBLISHED = {
    "embedding_dropout": 0.1,
    "input_dropout": 0.4,
    "hidden_dropout": 0.25,
    "output_dropout": 0.4,
    "weight_dropout": 0.5,
}


def _base(model_type: str, **fields: Any) -> LanguageModel:
    shape = {"model_type": model_type, "hidden_size": 16, "embedding_size": 16, "num_layers": 2}
    return LanguageModel.new(shape | fields, make("gpt2"))


@pytest.mark.parametrize("model_type", FAMILIES)
def test_added_rows_are_distilled_and_nothing_else_moves(model_type: str) -> None:
    base = _base(model_type)
    grown = extend(base, TERMS)
    before = {name: value.clone() for name, value in grown.network.state_dict().items()}
    plan = replace(distillation_config(grown), learning_rate=0.03)
    result = distill(grown, base, DOMAIN, contexts=20, epochs=2, config=plan)
    assert result.error_after < 0.9 * result.error_before
    assert "tokens.weight.added" in before
    moved = {n for n, v in grown.network.state_dict().items() if not torch.equal(v, before[n])}
    assert "tokens.weight.added" in moved
    assert all(name.endswith(".added") for name in moved)


def test_dropout_of_no_kind_disturbs_distillation() -> None:
    made = []
    for fields in ({}, dict.fromkeys(PUBLISHED, 0.0)):
        base = _base("awd-lstm", **fields)
        assert isinstance(base.network, RecurrentNetwork)
        assert base.network.has_dropout == (not fields)
        grown = extend(base, TERMS)
        distill(grown, base, DOMAIN, contexts=5)
        made.append(grown.network.tokens.added)
    assert torch.equal(*made)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_an_encoder_of_it_learns_pairs(model_type: str, tmp_path: Path) -> None:
    """Queries come closer to their documents than to others, and the original rows stay.

    At a width of 16 the published rates leave nothing to learn from; that on the output may stay,
    since an encoder does not read it.
    """
    awd = model_type == "awd-lstm"
    rates = {name: rate / 8 for name, rate in PUBLISHED.items()} | {"output_dropout": 0.4}
    model = _base(model_type, **(rates if awd else {}))
    rows = model.network.tokens.weight.detach().clone()
    texts = DOMAIN[:64:2]
    pairs = [Pair(text, " ".join(text.split()[::-1])) for text in texts]

    def contrast(encoder: Encoder) -> float:
        queries = encoder.encode([pair.query for pair in pairs])
        documents = encoder.encode([pair.document for pair in pairs])
        scores = torch.from_numpy(queries @ documents.T) / 0.05
        return float(nn.functional.cross_entropy(scores, torch.arange(len(pairs))))

    encoder = Encoder(model)
    before = contrast(encoder)
    config = tuning_config(encoder, batch_size=16, learning_rate=1e-2)
    tuned = tune(encoder, pairs, output_dir=tmp_path, steps=30, config=config)
    assert contrast(tuned) < 0.9 * before
    assert torch.equal(model.network.tokens.weight, rows)
    again = Encoder.load(tmp_path / "model")
    np.testing.assert_allclose(again.encode(texts[:4]), tuned.encode(texts[:4]), atol=1e-6)


STREAM = TrainingConfig(
    max_length=8,
    batch_size=4,
    optimizer="nt-asgd",
    learning_rate=1.0,
    eval_steps=1,
    save_steps=3,
    varied_length=True,
)


def _stream(folder: Path, **changes: Any) -> dict[str, Any]:
    """Save a small AWD-LSTM; return the arguments of a run that trains it on a stream."""
    settings = {"model_type": "awd-lstm", "hidden_size": 16, "embedding_size": 16, "num_layers": 2}
    LanguageModel.new(settings, models.tokenizer(grown=False)).save(folder)
    return {
        "model": folder,
        "train": "all",
        "unfreeze_original_rows": True,
        "config": replace(STREAM, **changes),
        "validation": models.texts(30, seed=1),
    }


def _outcome(out: Path) -> dict[str, bytes]:
    files = [out / "model" / "model.safetensors", *(out / f"checkpoint-{runs.STEPS:08}").iterdir()]
    return {path.name: path.read_bytes() for path in files}


def test_a_killed_stream_ends_as_one_that_was_not(tmp_path: Path) -> None:
    """Its place in the text, its states, its average and its validation losses all return."""
    options = _stream(tmp_path / "model")
    whole, out = tmp_path / "whole", tmp_path / "killed"
    assert runs.finish(runs.start(whole, **options)) == 0
    assert {"carried.safetensors", "weights.safetensors"} <= _outcome(whole).keys()
    process = runs.start(out, **options)
    runs.wait_for((out / "checkpoint-00000006").exists, process)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    runs.finish(process)
    assert not (out / "model").exists()
    assert runs.finish(runs.start(out, **options)) == 0
    assert _outcome(out) == _outcome(whole)


def test_validation_reads_the_average_and_training_goes_on_from_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observe = AveragedSGD.observe
    # Averaging begins at the third validation, whatever the losses are.
    monkeypatch.setattr(
        AveragedSGD,
        "observe",
        lambda self, losses: observe(self, [0.0] * 6 + [1.0]) if len(losses) > 2 else None,
    )
    weights: dict[str, dict[str, Tensor]] = {}
    for optimizer in ("nt-asgd", "sgd"):
        options = _stream(tmp_path / "base", optimizer=optimizer)
        base = LanguageModel.load(options.pop("model"))
        texts = Corpus.from_texts(models.texts())
        trained = pretrain(base, texts, output_dir=tmp_path / optimizer, steps=9, **options)
        last = tmp_path / optimizer / "checkpoint-00000009"
        weights[optimizer] = load_file(last / "weights.safetensors")
        own = dict(trained.network.named_parameters())
        is_average = any(not torch.equal(own[n], v) for n, v in weights[optimizer].items())
        assert is_average == (optimizer == "nt-asgd")
        line = (tmp_path / optimizer / "metrics.jsonl").read_text().splitlines()[-1]
        tokens = TokenFile(tmp_path / optimizer / "validation-tokens", trained.tokenizer)
        template = CausalStream.template(trained.tokenizer)
        source = SegmentStream(tokens, template, length=8, rows=4)
        loss = validation_loss(trained.network, CausalStream(trained.network), source)
        assert json.loads(line)["validation_loss"] == pytest.approx(loss, rel=1e-5)
    # The average never touches the steps: plain SGD walks the same way.
    for name, value in weights["nt-asgd"].items():
        assert torch.equal(value, weights["sgd"][name]), name
