"""Shared parts of tuning on pairs and on texts: settings, whitening, truncation, the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.projection import Projection
from idiolect.encoding.trained_projection import TrainedProjection, new_matrix
from idiolect.errors import ConfigError
from idiolect.models.shallow import kept_rows
from idiolect.nn.lora import LoraConfig
from idiolect.training.objectives.objective import BatchSource, Objective
from idiolect.training.optim import Train, row_rate
from idiolect.training.session import TrainingSession
from idiolect.training.training_config import TrainingConfig

__all__ = ["TuningRun", "check_trainable", "complete_config", "truncating", "tuning_config"]

_RATES: dict[Train, float] = {"rows+lora": 2e-4, "body": 2e-5, "all": 2e-5}


def tuning_config(encoder: Encoder, train: Train = "all", **values: Any) -> TrainingConfig:
    """Return the default settings: 32 pairs per step, and a learning rate that decays to zero.

    The learning rate is 2e-5 for published weights and 2e-4 for adapters; if only rows are trained,
    see `row_rate`. A static encoder trains on 512 pairs per step with a learning rate of 1e-2.

    Args:
        encoder: The encoder to train.
        train: Which parameters to train; see `Train`.
        values: Fields of `TrainingConfig` that differ.
    """
    usual: dict[str, Any] = {"batch_size": 32, "min_lr_ratio": 0.0, "weight_decay": 0.01}
    if encoder.model.network.context_free:
        usual |= {"batch_size": 512, "learning_rate": 1e-2}
        if train == "rows":
            usual["learning_rates"] = {"rows": row_rate(encoder.model.network)}
    else:
        usual["learning_rate"] = _RATES.get(train) or row_rate(encoder.model.network)
    return TrainingConfig.from_dict(usual | values)


def complete_config(
    encoder: Encoder, train: Train, config: TrainingConfig | Mapping[str, Any] | None
) -> TrainingConfig:
    """Return a `TrainingConfig` unchanged; a dict or None changes the one of `tuning_config`."""
    if config is None or isinstance(config, Mapping):
        return tuning_config(encoder, train, **(config or {}))
    return TrainingConfig.of(config)


def check_trainable(encoder: Encoder) -> Encoder:
    """Return the encoder if it can be trained.

    Raises:
        ConfigError: Its layers are quantized to 8 bits.
    """
    if encoder.precision == "int8":
        raise ConfigError("8-bit layers cannot be trained", hint="load the encoder in fp32")
    return encoder


def truncating(encoder: Encoder, length: int) -> Encoder:
    """Return the encoder, with its maximum length reduced to `length` tokens if that is shorter."""
    return encoder if length >= encoder.max_length else encoder.with_changes(max_length=length)


class TuningRun:
    """A tuning run, apart from its objective.

    A static encoder that is trained with `rows` keeps the rows of its language model frozen. Its
    added rows, the token weights and a projection are trained instead.

    Args:
        encoder: The encoder, whose network is changed in place.
        output_dir: The run's folder.
        config: Training settings.
        steps: Steps of the whole run.
        train: Which parameters to train; see `Train`.
        lora: Rank and targets of the adapters.
        unfreeze_original_rows: Also train the original rows.
        modules: Modules that are trained with the network but are not part of the model.
        tensorboard: Write TensorBoard events.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        output_dir: str | Path,
        config: TrainingConfig,
        steps: int,
        train: Train,
        lora: LoraConfig | None,
        unfreeze_original_rows: bool,
        modules: Mapping[str, nn.Module] | None = None,
        tensorboard: bool,
    ) -> None:
        self.encoder = encoder
        self._keeps_rows = train == "rows" and encoder.model.network.context_free
        modules = dict(modules or {})
        if self._keeps_rows:
            self._learnt = new_matrix(encoder.dimensions, encoder.model.network.device)
            modules["projection"] = self._learnt
        self.session = TrainingSession(
            encoder.model,
            out=output_dir,
            config=config,
            steps=steps,
            # `all` keeps the original rows of an extended vocabulary frozen.
            train="all" if self._keeps_rows else train,
            lora=lora,
            unfreeze_original_rows=unfreeze_original_rows,
            modules=modules,
            heads=False,
            tensorboard=tensorboard,
        )

    def begin(
        self, record: Mapping[str, Any], texts: Sequence[str], *, whiten: bool, rotate: bool = False
    ) -> None:
        """Record the run, and whiten or rotate the vectors.

        Args:
            record: Everything that determines the result, apart from the arguments of the session.
            texts: Texts to fit the projection to.
            whiten: Whether vectors are whitened.
            rotate: Whether vectors are rotated to their principal axes.
        """
        encoder = self.encoder
        own = {"keeps_rows": True} if self._keeps_rows else {}
        self.session.begin({"encoder": encoder.fingerprint, "whiten": whiten, **own, **record})
        if whiten or rotate:
            fitted = self._fit_once(texts, whiten=whiten)
            if self._keeps_rows:
                encoder.projection = fitted.to(encoder.model.network.device)
            else:
                encoder.use_projection(fitted)
        if self._keeps_rows:
            encoder.projection = TrainedProjection.of(encoder.projection, self._learnt["matrix"])

    def train(self, objective: Objective, source: BatchSource) -> None:
        """Train; see `TrainingSession.train`."""
        with kept_rows(self.encoder.model) if self._keeps_rows else nullcontext():
            self.session.train(objective, source)
        if isinstance(self.encoder.projection, TrainedProjection):
            self.encoder.projection = self.encoder.projection.folded()

    def publish(self) -> None:
        """Write the finished encoder to the run's folder."""
        self.session.publish(self.encoder.save)

    def _fit_once(self, texts: Sequence[str], *, whiten: bool) -> Projection:
        """Fit a projection and store it, so that a resumed run uses the same one."""
        path = self.session.folder.path / "projection.safetensors"

        def fit() -> None:
            if not path.exists():
                self.encoder.fit_projection(texts, whiten=whiten).save(path)

        self.session.on_first(fit)
        return Projection.load(path)
