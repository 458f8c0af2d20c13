"""What tuning on pairs and on texts have in common: default settings, whitening, truncation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.projection import Projection
from idiolect.errors import ConfigError
from idiolect.training.optim import Train, row_rate
from idiolect.training.session import TrainingSession
from idiolect.training.training_config import TrainingConfig

__all__ = ["check_trainable", "complete_config", "project_once", "truncating", "tuning_config"]

_RATES: dict[Train, float] = {"rows+lora": 2e-4, "body": 2e-5, "all": 2e-5}


def tuning_config(encoder: Encoder, train: Train = "all", **values: Any) -> TrainingConfig:
    """Return the default settings: 32 pairs per step, and a small rate that falls to zero.

    The rate is 2e-5 for published weights and 2e-4 for adapters; for rows that train alone, see
    `row_rate`. A static encoder trains on 512 pairs per step at a rate of 1e-2.

    Args:
        encoder: The encoder to train.
        train: What trains; see `Train`.
        values: Fields of `TrainingConfig` that differ.
    """
    usual = {"batch_size": 32, "min_lr_ratio": 0.0, "weight_decay": 0.01}
    if encoder.model.network.context_free:
        usual |= {"batch_size": 512, "learning_rate": 1e-2}
    else:
        usual["learning_rate"] = _RATES.get(train) or row_rate(encoder.model.network)
    return TrainingConfig.from_dict(usual | values)


def complete_config(
    encoder: Encoder, train: Train, config: TrainingConfig | Mapping[str, Any] | None
) -> TrainingConfig:
    """Return settings as they are, or those of `tuning_config` with the ones that a dict names."""
    if config is None or isinstance(config, Mapping):
        return tuning_config(encoder, train, **(config or {}))
    return TrainingConfig.of(config)


def check_trainable(encoder: Encoder) -> Encoder:
    """Return the encoder if it can be trained.

    Raises:
        ConfigError: Its layers are 8-bit.
    """
    if encoder.precision == "int8":
        raise ConfigError("8-bit layers cannot be trained", hint="load the encoder in fp32")
    return encoder


def project_once(
    session: TrainingSession, encoder: Encoder, texts: Sequence[str], *, whiten: bool
) -> None:
    """Fit a projection once and store it, so that a resumed run finds the same axes."""
    path = session.folder.path / "projection.safetensors"

    def fit() -> None:
        if not path.exists():
            encoder.fit_projection(texts, whiten=whiten).save(path)

    session.on_first(fit)
    encoder.use_projection(Projection.load(path))


def truncating(encoder: Encoder, length: int) -> Encoder:
    """Return the encoder, truncating texts at `length` tokens if that is shorter than its own."""
    return encoder if length >= encoder.max_length else encoder.with_changes(max_length=length)
