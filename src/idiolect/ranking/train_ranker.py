"""Train any ranking model on query groups, in one training session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from idiolect.errors import ConfigError
from idiolect.models.language_model import LanguageModel
from idiolect.ranking.groups import QueryGroup, check_groups, fingerprint_groups
from idiolect.training.data.shuffled_epochs import ShuffledEpochs
from idiolect.training.objectives.objective import Objective
from idiolect.training.session import TrainingSession
from idiolect.training.training_config import TrainingConfig

__all__ = ["ranking_config", "train_ranker"]


def ranking_config(**values: Any) -> TrainingConfig:
    """Return the default training settings: 16 groups per step, a learning rate from 2e-5 to zero.

    Args:
        values: Fields of `TrainingConfig` to override.
    """
    usual = {"batch_size": 16, "learning_rate": 2e-5, "min_lr_ratio": 0.0, "weight_decay": 0.01}
    return TrainingConfig.from_dict(usual | values)


def train_ranker(
    model: LanguageModel,
    objective: Callable[[Sequence[QueryGroup]], Objective],
    groups: Iterable[QueryGroup],
    *,
    record: Mapping[str, Any],
    save: Callable[[Path], None],
    output_dir: str | Path,
    epochs: int,
    config: TrainingConfig | None,
    modules: Mapping[str, nn.Module] | None = None,
    heads: bool = True,
    tensorboard: bool = False,
) -> None:
    """Train a model on query groups. Run it again to resume.

    Args:
        model: The model whose network the loop trains.
        objective: A function that returns the objective for the checked groups.
        groups: Queries with documents and labels; a row of a batch is a group.
        record: Everything else that determines the result, to be compared on resuming.
        save: A function that writes the finished model into a directory.
        output_dir: The run's folder; see `RunFolder`.
        epochs: Number of passes over the groups.
        config: Training settings, by default `ranking_config()`.
        modules: Modules trained together with the network.
        heads: Whether the network's task heads train.
        tensorboard: Write TensorBoard events to `output_dir/events`.

    Raises:
        InputError: There are no groups, or their labels are invalid.
        ConfigError: Fewer than one epoch.
        CheckpointError: `output_dir` holds another run, or its checkpoint is damaged.
        TrainingError: The loss is not finite or explodes.
        VerificationError: Original embedding rows changed.
    """
    checked = check_groups(groups)
    if epochs < 1:
        raise ConfigError(f"epochs is {epochs}", hint="choose at least 1")
    config = config or ranking_config()
    source = ShuffledEpochs(len(checked), rows=config.batch_size, seed=config.seed)
    session = TrainingSession(
        model,
        out=output_dir,
        config=config,
        steps=epochs * source.steps,
        modules=modules,
        heads=heads,
        tensorboard=tensorboard,
    )
    session.begin({"groups": fingerprint_groups(checked), **record})
    session.train(objective(checked), source)
    session.publish(save)
