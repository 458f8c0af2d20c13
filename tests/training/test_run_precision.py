"""A run records the precision it computes in, and keeps it when it resumes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from idiolect.errors import CheckpointError, ConfigError
from idiolect.nn.matrix_precision import autocast
from idiolect.nn.network import Network
from idiolect.text.corpus import Corpus
from idiolect.training import session
from idiolect.training.loop import Trainer
from idiolect.training.pretrain import pretrain
from idiolect.training.text_evaluation import compare, score
from idiolect.training.training_config import TrainingConfig
from training import models

CONFIG = TrainingConfig(max_length=32, batch_size=4, learning_rate=1e-2, save_steps=2)


def _machine(monkeypatch: pytest.MonkeyPatch, chosen: str) -> None:
    """Pretend that a measurement finds this precision to be the fastest."""
    monkeypatch.setattr(
        session,
        "choose_precision",
        lambda network, asked, **_: chosen if asked == "auto" else asked,
    )


def _train(out: Path, config: TrainingConfig = CONFIG) -> bytes:
    corpus = Corpus.from_texts(models.texts())
    pretrain(models.model("llama"), corpus, output_dir=out, steps=6, train="all", config=config)
    return (out / "model" / "model.safetensors").read_bytes()


def _killed_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Trainer._advance

    def advance(self: Trainer, *rest: object) -> bool:
        if self.done == steps:
            raise KeyboardInterrupt
        return real(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_advance", advance)


def test_a_resumed_run_keeps_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _machine(monkeypatch, "bf16")
    whole = _train(tmp_path / "whole")
    with monkeypatch.context() as patched:
        _killed_after(3, patched)
        with pytest.raises(KeyboardInterrupt):
            _train(tmp_path / "run")
    _machine(monkeypatch, "fp32")
    assert _train(tmp_path / "run") == whole
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["config"]["precision"], record["chosen_precision"]) == ("auto", "bf16")
    # Otherwise the comparison above would show nothing.
    assert _train(tmp_path / "exact") != whole


def test_the_matrix_of_the_vocabulary_is_measured_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def choose(network: Network, asked: str, *, also: Iterable[tuple[int, int]]) -> str:
        measured.extend(also)
        return "fp32"

    monkeypatch.setattr(session, "choose_precision", choose)
    _train(tmp_path / "run")
    config = models.model("llama").network.config
    assert measured == [(config.vocab_size, config.hidden_size)]


def test_a_named_precision_is_taken_and_not_changed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _machine(monkeypatch, "bf16")
    exact = _train(tmp_path / "fp32", replace(CONFIG, precision="fp32"))
    assert json.loads((tmp_path / "fp32" / "run.json").read_text())["chosen_precision"] == "fp32"
    assert exact != _train(tmp_path / "bf16", replace(CONFIG, precision="bf16"))
    with pytest.raises(CheckpointError, match="precision was 'bf16' and is 'fp32'"):
        _train(tmp_path / "bf16", replace(CONFIG, precision="fp32"))


@pytest.mark.parametrize(
    ("precision", "message"), [("int8", "encoding only"), ("half", "unknown precision 'half'")]
)
def test_other_precisions_are_refused(precision: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingConfig.from_dict({"precision": precision})
    with pytest.raises(ConfigError, match="precision is 16"):
        TrainingConfig.from_dict({"precision": 16})


def test_text_is_scored_in_bf16_with_vocabulary_scores_in_float32() -> None:
    model, text = models.model("llama"), models.texts(1)[0]
    exact, found = (score(model, [text], precision=one) for one in ("fp32", "bf16"))  # type: ignore[arg-type]
    assert found.nll != exact.nll
    assert found.nll == pytest.approx(exact.nll, rel=1e-3)
    ids = torch.tensor([[1, *model.tokenizer.encode(text, add_special_tokens=False)]])
    with torch.no_grad():
        with autocast("bf16", ids.device):
            hidden = model.network(ids, return_logits=False).hidden_states[0]
        logits = model.network.score_vocabulary(hidden)[:-1, : len(model.tokenizer)]
    by_hand = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
    assert found.nll == pytest.approx(float(by_hand), rel=1e-6)
    figures = compare(model, model, domain=[text], precision="bf16")
    assert figures["precision"] == "bf16"
    assert figures["domain"]["after"]["nll"] == pytest.approx(found.nll)
