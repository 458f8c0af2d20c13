"""Train a reward model with the Bradley-Terry loss, in one training session."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from idiolect.alignment.preference.preference_losses import reward_loss
from idiolect.alignment.preference.preferences import Preference
from idiolect.alignment.reward.reward_model import RewardModel
from idiolect.errors import ConfigError, InputError
from idiolect.nn.network import Network
from idiolect.ranking.text_pairs import TextPairBatch
from idiolect.text.arguments import check_whole
from idiolect.training.data.shuffled_epochs import EpochSample, ShuffledEpochs
from idiolect.training.objectives.objective import RowwiseObjective, StepContext
from idiolect.training.objectives.objective_registry import check_kind, find_objective
from idiolect.training.optim import Train
from idiolect.training.session import TrainingSession
from idiolect.training.training_config import TrainingConfig

__all__ = ["RewardObjective", "reward_config", "train_reward"]


def reward_config(**values: Any) -> TrainingConfig:
    """Return the defaults: 16 pairs a step, and a learning rate of 2e-5 that decays to zero.

    Args:
        values: Fields of `TrainingConfig` to override.
    """
    usual = {"learning_rate": 2e-5, "min_lr_ratio": 0.0, "weight_decay": 0.01, "precision": "fp32"}
    return TrainingConfig.from_dict(usual | values)


def train_reward(
    model: RewardModel,
    preferences: Sequence[Preference],
    *,
    output_dir: str | Path,
    centre_rewards: float = 0.01,
    epochs: int = 1,
    steps: int | None = None,
    train: Train = "all",
    config: TrainingConfig | None = None,
    tensorboard: bool = False,
) -> RewardModel:
    """Train a reward model on preferences. Run it again to resume.

    Afterwards the scores of the training answers have mean 0 and standard deviation 1. Original
    embedding rows stay unchanged.

    Args:
        model: The reward model, whose network is changed in place.
        preferences: Pairs of answers, with margins or without. Those that are longer than the
            model's `max_length` are cut, and counted.
        output_dir: The run's folder. The finished model is in `output_dir/model`.
        centre_rewards: Weight of the squared sum of a pair's scores, which keeps them around zero.
        epochs: Passes over the pairs.
        steps: Steps of the whole run, instead of `epochs`.
        train: Which parameters train, `all` or `body`; see `Train`.
        config: Training settings, by default `reward_config()`.
        tensorboard: Write TensorBoard events to `output_dir/events`.

    Raises:
        InputError: There are no preferences.
        ConfigError: A setting is out of its range.
        CheckpointError: `output_dir` holds another run, or its checkpoint is damaged.
        TrainingError: The loss is not finite or explodes.
    """
    config = reward_config() if config is None else TrainingConfig.of(config)
    if not preferences:
        raise InputError("there are no preferences", hint="give at least one")
    if not 0 <= centre_rewards <= 100:
        raise ConfigError(f"centre_rewards is {centre_rewards}", hint="usual are 0 to 0.1")
    if steps is None and check_whole(epochs, "epochs") < 1:
        raise ConfigError(f"epochs is {epochs}", hint="choose at least 1")
    model.report_cut(preferences)
    source = ShuffledEpochs(len(preferences), rows=config.batch_size, seed=config.seed)
    session = TrainingSession(
        model.model,
        out=output_dir,
        config=config,
        steps=epochs * source.steps if steps is None else steps,
        train=train,
        tensorboard=tensorboard,
    )
    digest = hashlib.blake2b(repr(list(preferences)).encode(), digest_size=16).hexdigest()
    session.begin(
        {
            "reward_model": model.fingerprint,
            "objective": "reward",
            "preferences": digest,
            "centre_rewards": centre_rewards,
        }
    )
    objective = RewardObjective(model, preferences, centre_rewards=centre_rewards)
    session.train(objective, source)
    # Before the model is published, which without its record would give other scores.
    model.normalise([(p.prompt, text) for p in preferences for text in (p.chosen, p.rejected)])
    session.publish(model.save)
    return model


class RewardObjective(RowwiseObjective):
    """Score the chosen answer of each pair above the rejected one (Bradley & Terry 1952).

    Args:
        model: The reward model.
        preferences: The pairs.
        centre_rewards: Weight of the squared sum of a pair's scores.

    Raises:
        ConfigError: The network is an encoder-decoder.
    """

    def __init__(
        self, model: RewardModel, preferences: Sequence[Preference], *, centre_rewards: float = 0.0
    ) -> None:
        check_kind(find_objective("align", "reward"), model.model.network.kind)
        self.model, self.preferences = model, preferences
        self.centre_rewards = centre_rewards
        self._measured: dict[str, list[Tensor]] = defaultdict(list)

    def prepare(self, rows: EpochSample) -> TextPairBatch:
        """Make a batch of pairs."""
        chosen = [self.preferences[number] for number in rows.sources]
        read = [self.model.read(p.prompt, text) for p in chosen for text in (p.chosen, p.rejected)]
        return self.model.grid(read, [p.margin for p in chosen])

    def accumulate(self, batch: Any, step: StepContext) -> float:
        """Add the gradients of this process's pairs."""
        self._measured.clear()
        return super().accumulate(batch, step)

    def loss(self, network: Network, batch: TextPairBatch) -> Tensor:
        """Return the loss summed over the pairs."""
        chosen, rejected = self.model.raw_scores(network, batch).view(-1, 2).unbind(1)
        margins = batch.labels.to(chosen)
        with torch.no_grad():
            self._measured["rewards/chosen"].append(chosen.detach())
            self._measured["rewards/rejected"].append(rejected.detach())
            self._measured["rewards/accuracies"].append((chosen > rejected).float())
        return reward_loss(chosen, rejected, margins, centre_rewards=self.centre_rewards).sum()

    def metrics(self) -> dict[str, float]:
        """Return the mean scores of both sides, and how often the chosen one is higher."""
        joined = {name: torch.cat(parts) for name, parts in sorted(self._measured.items())}
        return {name: float(values.mean()) for name, values in joined.items()}
