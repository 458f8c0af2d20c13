"""Pre-training of every published family: trained by its default objective, or refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from idiolect.models.language_model import LanguageModel
from idiolect.models.registry import FAMILIES
from idiolect.text.corpus import Corpus
from idiolect.training.optim import original_rows
from idiolect.training.pretrain import pretrain
from idiolect.training.training_config import TrainingConfig
from parity.reference import known_settings
from training import models

_HEADLESS = {"model2vec"}
"""Families without a language-model head."""

_WIDTHS = ("hidden_size", "emb_dim", "n_embd", "d_model", "dim")
_LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "num_decoder_layers")
_LAYERS += ("encoder_layers", "decoder_layers")
_HEADS = ("num_attention_heads", "n_heads", "n_head", "num_heads", "attention_heads")
_HEADS += ("encoder_attention_heads", "decoder_attention_heads", "num_key_value_heads")
_INNER = ("intermediate_size", "d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim")
_INNER += ("hidden_dim",)
_SHAPE: dict[str, Any] = {
    **dict.fromkeys(_WIDTHS, 16),
    **dict.fromkeys(_LAYERS, 1),
    **dict.fromkeys(_HEADS, 2),
    **dict.fromkeys(_INNER, 24),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("head_dim", "d_kv"), 8),
    "pad_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
"""The sizes under the names of all families; each reads its own."""


def _model(model_type: str) -> LanguageModel:
    """A tiny model with a language-model head and five added rows."""
    architecture = next(
        name for name, one in FAMILIES[model_type].architectures.items() if "language" in one.tasks
    )
    settings = {
        "model_type": model_type,
        "architectures": [architecture],
        **known_settings(model_type, _SHAPE),
    }
    base = LanguageModel.new(settings, models.tokenizer(grown=False))
    models.grow(base.network)
    return LanguageModel(base.network, models.tokenizer(), base.settings)


def _train(model: LanguageModel, out: Path) -> None:
    config = TrainingConfig(max_length=16, batch_size=2, learning_rate=1e-2)
    pretrain(
        model,
        # A line break ends a sentence, which BART's objective permutes.
        Corpus.from_texts([text.replace(" ", "\n", 1) for text in models.texts(8)]),
        output_dir=out,
        steps=2,
        train="all",
        config=config,
    )


@pytest.mark.parametrize("model_type", sorted(FAMILIES.keys() - _HEADLESS))
def test_family_is_pretrained(model_type: str, tmp_path: Path) -> None:
    model = _model(model_type)
    before = {name: rows.detach().clone() for name, rows in original_rows(model.network).items()}
    body = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    _train(model, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert all(math.isfinite(line["loss"]) and line["loss"] > 0 for line in lines)
    after = dict(model.network.named_parameters())
    for name, rows in before.items():
        assert torch.equal(rows, after[name]), name
    moved = {name for name, p in after.items() if not torch.equal(p, body[name])}
    assert any(name.endswith("weight.added") for name in moved)
    assert any("layers" in name or "decoder" in name for name in moved)
