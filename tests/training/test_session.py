"""What every trainer gets from the session: bfloat16, frozen rows, rates for single parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from encoding import tuning
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.tune import tune
from idiolect.encoding.tune_on_text import tune_on_text
from idiolect.errors import CheckpointError, ConfigError, InputError, VerificationError
from idiolect.models.language_model import LanguageModel
from idiolect.nn.network import Network
from idiolect.ranking.cross_encoder import CrossEncoder
from idiolect.ranking.two_tower import TwoTower
from idiolect.text.corpus import Corpus
from idiolect.training.checkpoint import Checkpoint
from idiolect.training.data.packed_documents import PackedDocuments
from idiolect.training.data.token_file import TokenFile
from idiolect.training.objectives.causal import Causal
from idiolect.training.optim import choose_parameters, parameter_groups
from idiolect.training.pretrain import pretrain
from idiolect.training.session import TrainingSession
from idiolect.training.training_config import TrainingConfig
from idiolect.vocabulary.extend.extend import extend
from idiolect.vocabulary.rows.distill import distill
from ranking import small
from training import models
from vocabulary.conftest import DOMAIN
from vocabulary.rows.test_grow import TERMS, build

CONFIG = TrainingConfig(
    max_length=32, batch_size=8, learning_rate=1e-4, weight_decay=0.0, save_steps=50
)
"""A rate so small that bfloat16, which keeps 8 bits of a number, would round its steps away."""


def _pretrain(model: LanguageModel, out: Path, train: Any = "all") -> LanguageModel:
    corpus = Corpus.from_texts(models.texts())
    return pretrain(model, corpus, output_dir=out, steps=3, train=train, config=CONFIG)


def _tune(model: LanguageModel, out: Path) -> LanguageModel:
    return tune(Encoder(model), tuning.pairs(), output_dir=out, steps=3, config=CONFIG).model


def _tune_on_text(objective: str) -> Callable[[LanguageModel, Path], LanguageModel]:
    def train(model: LanguageModel, out: Path) -> LanguageModel:
        teacher = tuning.teacher() if objective == "imitate" else None
        encoder = Encoder(model)
        options: dict[str, Any] = {"objective": objective, "teacher": teacher, "config": CONFIG}
        return tune_on_text(encoder, models.texts(20), output_dir=out, steps=3, **options).model

    return train


def _cross_encoder(model: LanguageModel, out: Path) -> LanguageModel:
    ranker = CrossEncoder.of(model)
    return ranker.train(small.groups(24), output_dir=out, epochs=1, config=CONFIG).model


def _two_tower(model: LanguageModel, out: Path) -> LanguageModel:
    towers = TwoTower(Encoder(model))
    towers.train(small.groups(24), output_dir=out, epochs=1, config=CONFIG)
    assert len(towers.encode(["w1 w2"], prompt_name="document")) == 1
    return model


TRAINERS: dict[str, tuple[Callable[[LanguageModel, Path], LanguageModel], str, dict[str, Any]]] = {
    "pretrain causal": (_pretrain, "llama", {}),
    "pretrain masked": (_pretrain, "bert", {}),
    "tune on pairs": (_tune, "bert", {}),
    "simcse": (_tune_on_text("simcse"), "bert", {"hidden_dropout_prob": 0.1}),
    "tsdae": (_tune_on_text("tsdae"), "bert", {}),
    "imitate": (_tune_on_text("imitate"), "bert", {}),
    "cross-encoder": (_cross_encoder, "bert", {}),
    "two towers": (_two_tower, "bert", {}),
}


@pytest.mark.parametrize("name", TRAINERS)
def test_bfloat16_weights_learn_as_float32_ones(name: str, tmp_path: Path) -> None:
    """A similar share of the weights changes, and the model keeps its own format."""
    train, model_type, fields = TRAINERS[name]
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = models.model(model_type, grown=False, **fields)
        model.network.to(dtype)
        # Small values, so that the step of a bfloat16 number is below the learning rate.
        with torch.no_grad():
            for parameter in model.network.parameters():
                parameter.mul_(0.05)
        before = {n: p.detach().clone() for n, p in model.network.named_parameters()}
        after = train(model, tmp_path / str(dtype)).network
        moved[dtype] = _share_moved(before, after)
        assert {p.dtype for p in after.parameters()} == {dtype}
    assert moved[torch.bfloat16] > 0.5 * moved[torch.float32] > 0.1


def _share_moved(before: dict[str, Tensor], network: Network) -> float:
    """Return the share of the weights of inner layers that have changed."""
    pairs = [
        (before[n], p) for n, p in network.named_parameters() if n in before and ".layers." in n
    ]
    return float(torch.cat([(old != new).flatten() for old, new in pairs]).float().mean())


def test_distilled_bfloat16_rows_learn_as_float32_ones(tmp_path: Path) -> None:
    errors = {}
    for dtype in (torch.float32, torch.bfloat16):
        base = build("gpt2")
        base.network.to(dtype)
        grown = extend(base, TERMS)
        result = distill(grown, base, DOMAIN, contexts=8, epochs=4)
        errors[dtype] = result.error_after / result.error_before
    assert errors[torch.float32] < 0.995
    assert errors[torch.bfloat16] == pytest.approx(errors[torch.float32], abs=0.01)


@pytest.mark.parametrize("train", ["rows", "rows+lora", "body", "all"])
def test_bfloat16_weights_train_beside_frozen_ones(train: str, tmp_path: Path) -> None:
    """Trained weights are float32 during training, next to frozen bfloat16 ones."""
    model = models.model(grown=False)
    model.network.bfloat16()
    models.grow(model.network)
    model = LanguageModel(model.network, models.tokenizer(), model.settings)
    before = {n: p.detach().clone() for n, p in model.network.named_parameters()}
    network = _pretrain(model, tmp_path, train).network
    moved = {n for n, p in network.named_parameters() if not torch.equal(p, before[n])}
    assert any(n.endswith(".added") for n in moved) == (train != "body")
    assert any(".layers." in n for n in moved) == (train != "rows")
    assert not any(n.endswith(".original") for n in moved)


def _session(tmp_path: Path, model: LanguageModel, **options: Any) -> TrainingSession:
    config = options.pop("config", CONFIG)
    session = TrainingSession(model, out=tmp_path, config=config, steps=3, **options)
    session.begin({"what": "a test"})
    return session


def _source(tmp_path: Path, model: LanguageModel) -> PackedDocuments:
    tokens = TokenFile.write(tmp_path / "tokens", models.texts(), model.tokenizer)
    return PackedDocuments(tokens, Causal.template(model.tokenizer), length=32, rows=8)


def test_another_run_is_refused(tmp_path: Path) -> None:
    session = _session(tmp_path, models.model())
    _session(tmp_path, models.model())
    session.folder.save(Checkpoint(1, {}, {}, {}))
    with pytest.raises(CheckpointError, match="another run"):
        _session(tmp_path, models.model(), train="rows")


def test_changed_rows_are_detected(tmp_path: Path) -> None:
    """A write into frozen rows by anything but the optimizer ends the run."""
    model = models.model()
    session = _session(tmp_path, model)

    class Meddling(Causal):
        def loss(self, network: Network, batch: Any) -> Tensor:
            with torch.no_grad():
                network.tokens.weight.original[3].add_(1)
            return super().loss(network, batch)

    with pytest.raises(VerificationError, match="moved although"):
        session.train(Meddling(model.network), _source(tmp_path, model))


def test_attached_modules_train_and_leave(tmp_path: Path) -> None:
    """They train with the network, are in its checkpoints, and are removed afterwards."""
    model = models.model()
    extra = torch.nn.Linear(16, 1)
    before = extra.weight.detach().clone()
    session = _session(tmp_path, model, modules={"extra": extra})

    class WithExtra(Causal):
        def loss(self, network: Network, batch: Any) -> Tensor:
            states = network(
                batch.input_ids, batch.attention_mask, return_logits=False
            ).hidden_states
            return super().loss(network, batch) + extra(states).square().sum()

    session.train(WithExtra(model.network), _source(tmp_path, model))
    checkpoint = session.folder.latest()
    assert checkpoint is not None
    assert {"attached.extra.weight", "attached.extra.bias"} <= set(checkpoint.weights)
    assert not torch.equal(extra.weight, before)
    assert not hasattr(model.network, "attached")
    assert not any("extra" in name for name in model.network.state_dict())


def test_a_part_of_the_network_may_have_a_rate_of_its_own(tmp_path: Path) -> None:
    """With a tiny rate for the body, only the new rows move noticeably."""
    model = models.model()
    config = TrainingConfig(
        max_length=32,
        batch_size=8,
        learning_rate=1e-2,
        learning_rates={"body": 1e-9},
        weight_decay=0.0,
    )
    before = {n: p.detach().clone() for n, p in model.network.named_parameters()}
    session = _session(tmp_path, model, config=config)
    session.train(Causal(model.network), _source(tmp_path, model))
    for name, parameter in model.network.named_parameters():
        change = float((parameter.detach() - before[name]).abs().max())
        if name.endswith(".added"):
            assert change > 5e-3, name
        else:
            assert change < 1e-6, name


def test_unknown_parts_are_refused() -> None:
    with pytest.raises(ConfigError, match="learning_rates names 'neck'"):
        TrainingConfig(learning_rates={"neck": 1e-3})
    with pytest.raises(ConfigError, match="a learning rate of 7 for rows"):
        TrainingConfig(learning_rates={"rows": 7})


def test_parts_cover_what_trains() -> None:
    network = models.model("bert").network
    chosen = choose_parameters(network, "all")
    groups = parameter_groups(network, {"rows": 1e-3})
    assert sorted(name for group in groups for name in group.names) == sorted(chosen)
    assert {g.part: g.learning_rate for g in groups} == {"rows": 1e-3, "body": None, "heads": None}


def test_nothing_to_train(tmp_path: Path) -> None:
    model = models.model(grown=False)
    session = _session(tmp_path, model, train="rows")
    with pytest.raises(InputError, match="no added rows"):
        session.train(Causal(model.network), _source(tmp_path, model))
