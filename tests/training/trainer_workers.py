"""Distillation and rankers, as one process or two train them in `test_distributed`."""

from __future__ import annotations

from pathlib import Path

from idiolect.encoding.encoder import Encoder
from idiolect.models.language_model import LanguageModel
from idiolect.ranking.cross_encoder import CrossEncoder
from idiolect.ranking.two_tower import TwoTower
from idiolect.training.training_config import TrainingConfig
from idiolect.vocabulary.extend.extend import extend
from idiolect.vocabulary.rows.distill import distill
from ranking import small
from vocabulary.conftest import DOMAIN
from vocabulary.rows.test_grow import TERMS, build

CONFIG = TrainingConfig(
    max_length=32, batch_size=4, micro_batch_size=1, learning_rate=3e-3, save_steps=1000
)
KINDS = ("gpt2", "bert")
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def prepare(folder: Path) -> None:
    """Save the models that all processes start from.

    Each process would otherwise learn a WordPiece vocabulary, and not always the same one.
    """
    for kind in KINDS:
        base = build(kind)
        base.save(folder / f"base {kind}")
        extend(base, TERMS).save(folder / f"grown {kind}")


def train(folder: Path) -> None:
    """Train all but `pretrain` and `tune`, without dropout, which differs between processes."""
    for kind in KINDS:
        base, grown = (
            LanguageModel.load(folder.parent / f"{name} {kind}") for name in ("base", "grown")
        )
        config = TrainingConfig(max_length=32, batch_size=4, learning_rate=1e-2, weight_decay=0.0)
        distill(
            grown, base, DOMAIN, contexts=4, config=config, output_dir=folder / f"distill {kind}"
        )
    ranker = CrossEncoder.of(small.model(**WITHOUT_DROPOUT))
    ranker.train(small.groups(12), output_dir=folder / "cross-encoder", config=CONFIG)
    query, document = (Encoder(small.model(**WITHOUT_DROPOUT)) for _ in range(2))
    TwoTower(query, document).train(
        small.groups(12), output_dir=folder / "two towers", config=CONFIG
    )
