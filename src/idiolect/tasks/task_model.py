"""`TaskModel`: the common part of all task models: encoder with head, files, training.

directory/encoder/           the encoder, with adapters merged
directory/head.safetensors   the head
directory/NAME.json          labels and settings, and a fingerprint of the other two
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from safetensors.torch import save
from torch import nn

from idiolect.encoding.encoder import Encoder
from idiolect.errors import CheckpointError, ConfigError
from idiolect.models.weight_files import load_module
from idiolect.nn.lora import LoraConfig
from idiolect.nn.prompt.attach_prompt import add_prompt
from idiolect.nn.prompt.prompt_config import PromptConfig
from idiolect.tasks.finetuning.recipe import FineTuning
from idiolect.text.arguments import check_path, checked
from idiolect.text.files import read_json, write_atomic
from idiolect.text.format_version import check_format, with_format
from idiolect.training.checkpoint import record_change
from idiolect.training.data.shuffled_epochs import ShuffledEpochs
from idiolect.training.frozen_rows import fingerprint
from idiolect.training.objectives.objective import Objective
from idiolect.training.optim import Train
from idiolect.training.session import TrainingSession
from idiolect.training.training_config import TrainingConfig

__all__ = ["Adaptation", "TaskModel", "full_learning_rate", "task_config"]

Adaptation = Literal["full", "lora", "prefix", "prompt", "frozen"]
"""Parameters that train in addition to the head. `full`: the network except its original embedding
rows. `lora`: LoRA adapters and added rows. `prefix`, `prompt`: virtual tokens in every layer
(P-tuning v2) or before the first, possibly added before by `add_prompt`. `frozen`: none."""

_TRAINED: dict[Adaptation, Train] = {
    "full": "all",
    "lora": "rows+lora",
    "prefix": "prompt",
    "prompt": "prompt",
    "frozen": "attached",
}
_RATES: dict[Adaptation, float] = {
    "lora": 5e-4,
    "prefix": 1e-2,
    "prompt": 1e-2,
    "frozen": 1e-2,
}
_FULL_RATE, _FULL_WIDTH = 5e-5, 768
"""The usual learning rate for all weights of BERT base, and its width (Devlin et al. 2019)."""
_LOWEST, _HIGHEST = 1e-5, 1e-3
_HEAD = "head.safetensors"


def task_config(adaptation: Adaptation = "full", **values: Any) -> TrainingConfig:
    """Return the default training settings: 32 texts per step, a higher learning rate for the head.

    If all weights train, the learning rate depends on the network: see `full_learning_rate`.

    Args:
        adaptation: Which parameters train.
        values: Fields of `TrainingConfig` to override.
    """
    if adaptation not in get_args(Adaptation):
        raise ConfigError(
            f"unknown adaptation {adaptation!r}", hint="one of " + ", ".join(get_args(Adaptation))
        )
    usual: dict[str, Any] = {
        "batch_size": 32,
        # If only the head trains, `learning_rate` applies to it.
        "learning_rates": {} if adaptation == "frozen" else {"attached": 2e-3},
        "min_lr_ratio": 0.0,
        "weight_decay": 0.01,
    }
    if adaptation in _RATES:
        usual["learning_rate"] = _RATES[adaptation]
    return TrainingConfig.from_dict(usual | values)


def full_learning_rate(width: int) -> float:
    """Return the default learning rate for all weights of a network: narrow ones need larger steps.

    The rate of BERT base, times the square of how much narrower the network is. With BERT's own
    rate, MiniLM (width 384) learned too little in three epochs, and `idiolect-base` (256) learned
    best with twenty to forty times that rate; docs/tasks.md has the measurements.

    >>> [full_learning_rate(width) for width in (768, 384, 4096)]
    [5e-05, 0.0002, 1e-05]

    Args:
        width: Width of the network's hidden states.
    """
    return min(max(_FULL_RATE * (_FULL_WIDTH / width) ** 2, _LOWEST), _HIGHEST)


class TaskModel(ABC):
    """An encoder of any network and a head on it.

    Args:
        encoder: The encoder.
        head: The head; it is moved to the encoder's device.
    """

    name: ClassVar[str]
    """The model's name in files and messages, such as `classifier`."""

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        self.encoder = encoder
        self.head = head.to(encoder.model.network.device)

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The saved settings: all that `of_record` needs in addition to encoder and head."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """The settings that determine scores, as text."""

    @classmethod
    @abstractmethod
    def of_record(cls, encoder: Encoder, record: Mapping[str, Any], path: Path) -> Self:
        """Create an untrained model from saved settings.

        Raises:
            CheckpointError: The record is damaged.
        """

    @property
    def fingerprint(self) -> str:
        """A hash of everything that determines scores."""
        return self._fingerprint(self.encoder)

    def _fingerprint(self, encoder: Encoder) -> str:
        return f"{encoder.fingerprint}-{fingerprint(self.head.state_dict())}-{self.identity}"

    @classmethod
    @checked
    def load(cls, directory: str | Path, *, device: str | torch.device = "cpu") -> Self:
        """Load a model that `save` wrote.

        Raises:
            CheckpointError: Files are missing, damaged or of different models.
        """
        directory = check_path(directory, "directory")
        path = directory / f"{cls.name}.json"
        record = check_format(read_json(path), path, rebuild="train it again")
        model = cls.of_record(Encoder.load(directory / "encoder", device=device), record, path)
        load_module(model.head, directory / _HEAD)
        if model.fingerprint != record.get("fingerprint"):
            raise CheckpointError(
                f"the files in {directory} are of different models", hint="save it again"
            )
        return model

    @checked
    def save(self, directory: str | Path) -> None:
        """Write encoder and head; the record is last, so `load` rejects an incomplete directory.

        Raises:
            InputError: The directory cannot be written to.
        """
        directory = check_path(directory, "directory")
        self.encoder.save(directory / "encoder")
        tensors = {name: tensor.contiguous() for name, tensor in self.head.state_dict().items()}
        write_atomic(directory / _HEAD, save(tensors))
        self.save_record(directory)

    def save_record(self, directory: Path) -> None:
        """Write the settings again after fitting them to held-out examples."""
        # Hash the saved encoder: saving merges the adapters, which are still separate in memory.
        saved = self._fingerprint(Encoder.load(directory / "encoder"))
        text = json.dumps(
            with_format(self.settings | {"fingerprint": saved}), indent=2, ensure_ascii=False
        )
        path = directory / f"{self.name}.json"
        write_atomic(path, f"{text}\n".encode())
        record_change(path)

    def add_virtual_tokens(self, adaptation: Adaptation, config: TrainingConfig | None) -> None:
        """Add the virtual tokens that train with `prefix` and `prompt`, unless there are some.

        They take positions from the texts, so they are added before texts are read.

        Args:
            adaptation: Parameters that train in addition to the head.
            config: Training settings with the random seed, by default `task_config(adaptation)`.
        """
        network = self.encoder.model.network
        if adaptation in ("prefix", "prompt") and not network.virtual_tokens:
            shape = PromptConfig(method="prompt" if adaptation == "prompt" else "prefix")
            add_prompt(network, shape, seed=(config or task_config(adaptation)).seed)
            self.encoder = self.encoder.with_changes()

    def fit(
        self,
        objective: Objective,
        count: int,
        record: Mapping[str, Any],
        *,
        output_dir: str | Path,
        adaptation: Adaptation,
        epochs: int,
        lora: LoraConfig | None = None,
        config: TrainingConfig | None = None,
        fine_tuning: FineTuning | None = None,
    ) -> None:
        """Train on numbered examples in shuffled epochs, and publish the model.

        Args:
            objective: The training objective; it prepares batches from example indices.
            count: Number of examples.
            record: Further inputs that determine the result, checked when a run resumes.
            output_dir: The run's folder. The finished model is in `output_dir/model`.
            adaptation: Parameters that train in addition to the head.
            epochs: Number of epochs over the examples.
            lora: Rank and target modules of the adapters, with `adaptation="lora"`.
            config: Training settings, by default `task_config(adaptation)`.
            fine_tuning: Learning rates by layer, unfreezing and auxiliary loss; see `FineTuning`.

        Raises:
            ConfigError: Less than one epoch, methods that do not fit the network or the steps, or
                an encoder in 8-bit integers, which could not be saved.
            CheckpointError: `output_dir` holds another run, or its checkpoint is damaged.
            TrainingError: The loss is not finite or explodes.
        """
        config, methods = config or task_config(adaptation), fine_tuning or FineTuning()
        if config.learning_rate is None:
            width = int(self.encoder.model.network.config.hidden_size)
            config = replace(config, learning_rate=full_learning_rate(width))
        if epochs < 1:
            raise ConfigError(f"epochs is {epochs}", hint="choose at least 1")
        if self.encoder.precision == "int8":
            raise ConfigError(
                "an encoder in 8-bit integers cannot be trained or saved",
                hint="load it with the precision fp32 or bf16",
            )
        self.add_virtual_tokens(adaptation, config)
        source = ShuffledEpochs(count, rows=config.batch_size, seed=config.seed)
        session = TrainingSession(
            self.encoder.model,
            out=output_dir,
            config=methods.training_config(config, source.steps),
            steps=epochs * source.steps,
            train=_TRAINED[adaptation],
            lora=lora,
            unfreeze_original_rows=methods.unfreeze_original_rows,
            modules={self.name: self.head},
            heads=methods.lm_loss_weight > 0,
        )
        own = {self.name: self.fingerprint, "lm_loss_weight": methods.lm_loss_weight}
        session.begin(own | dict(record))
        session.train(objective, source)
        session.publish(self.save)
        self.head.eval()
