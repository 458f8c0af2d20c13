"""`TrainingSession`: the one way to train, whichever verb it is.

    begin     record what the run is and its precision; refuse a folder that holds another run
    freeze    attach modules and adapters; choose what trains
    widen     convert it to float32: bfloat16, with 8 bits of precision, would lose small updates
    train     the loop, from the last checkpoint if there is one
    narrow    convert it back to the model's own format
    verify    check that the vocabulary's original rows are unchanged
    publish   write the adapters, and the model with the adapters merged, into the run's folder

Each trainer supplies an objective, a source of batches and a record of its settings. The session
provides resuming, safety checks, bfloat16, `torchrun`, progress reporting and TensorBoard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from idiolect.errors import ConfigError
from idiolect.models.adapter import save_adapter
from idiolect.models.language_model import LanguageModel
from idiolect.models.prompt_files import save_prompt
from idiolect.nn.lora import LoraConfig, add_lora, merge_lora
from idiolect.nn.matrix_precision import ChosenPrecision, choose_precision
from idiolect.nn.network import Network
from idiolect.nn.prompt.attach_prompt import add_prompt, prompt_of
from idiolect.nn.prompt.prompt_config import PromptConfig
from idiolect.nn.quantized_matrix import quantized_matrices
from idiolect.text.arguments import check_whole
from idiolect.training.checkpoint import RunFolder
from idiolect.training.distributed import Workers, without_weights
from idiolect.training.frozen_rows import check_rows, row_fingerprints
from idiolect.training.loop import Trainer
from idiolect.training.objectives.objective import BatchSource, Objective
from idiolect.training.optim import Train, choose_parameters, parameter_groups
from idiolect.training.training_config import TrainingConfig

__all__ = ["TrainedModel", "TrainingSession"]

_CHOICE = "chosen_precision"
"""Where `run.json` has the precision in which the run computes."""


class TrainedModel(Protocol):
    """What a session trains: a `LanguageModel`, or a network over other ids than tokens."""

    network: Network


class TrainingSession:
    """One training run of a model, from its record to the finished model.

    >>> session = TrainingSession(model, out="runs/a", config=config, steps=100)  # doctest: +SKIP
    >>> session.begin({"corpus": "…"})                                            # doctest: +SKIP
    >>> session.train(objective, source)                                          # doctest: +SKIP
    >>> session.publish(model.save)                                               # doctest: +SKIP

    Args:
        model: The model; its network is changed in place.
        out: The run's folder; see `RunFolder`.
        config: Sizes, rates and intervals.
        steps: Steps of the whole run.
        train: What trains; see `Train`.
        lora: Size and place of the adapters, with `train="rows+lora"`.
        prompt: Kind, number and start of the virtual tokens, with `train="prompt"`, unless the
            network has some.
        unfreeze_original_rows: Train the published rows as well.
        modules: Modules trained with the network that are no part of the model, by name.
        heads: Whether the network's task heads train.
        sharded: Divide all weights among the processes (FSDP2).
        tensorboard: Write TensorBoard events to `out/events`.
        average_checkpoints: How many of the last checkpoints the finished weights are the mean of;
            1 for the last weights alone.

    Raises:
        ConfigError: Fewer than one step, invalid settings, or quantised weights to divide.
        InputError: The folder cannot be made, or `steps` is no whole number.
    """

    def __init__(
        self,
        model: TrainedModel,
        *,
        out: str | Path,
        config: TrainingConfig,
        steps: int,
        train: Train = "all",
        lora: LoraConfig | None = None,
        prompt: PromptConfig | None = None,
        unfreeze_original_rows: bool = False,
        modules: Mapping[str, nn.Module] | None = None,
        heads: bool = True,
        sharded: bool = False,
        tensorboard: bool = False,
        average_checkpoints: int = 1,
    ) -> None:
        if check_whole(average_checkpoints, "average_checkpoints") < 1:
            raise ConfigError(f"a mean of {average_checkpoints} checkpoints", hint="at least 1")
        if check_whole(steps, "steps") < 1:
            raise ConfigError(f"a run of {steps} steps", hint="at least 1")
        config = TrainingConfig.of(config)
        if sharded and quantized_matrices(model.network):
            raise ConfigError(
                "the weights are quantised and cannot be divided among processes",
                hint="omit sharded: each process holds the quantised weights",
            )
        self.model, self.config, self.steps = model, config, steps
        self.trains: Train = train
        self.lora = (lora or LoraConfig()) if train == "rows+lora" else None
        self.prompt = (prompt or PromptConfig()) if train == "prompt" else None
        self.unfreeze_original_rows = unfreeze_original_rows
        self.modules = dict(modules or {})
        self.heads, self.sharded, self.tensorboard = heads, sharded, tensorboard
        self.workers = Workers.join(model.network.device)
        self.average_checkpoints = average_checkpoints
        self.folder = RunFolder(out, kept=max(2, average_checkpoints))
        self.precision: ChosenPrecision = "fp32"
        """Format of matrix products, chosen by `begin`."""
        self.validation_losses: list[float] = []
        """What each evaluation of `train` returned."""

    def begin(self, record: Mapping[str, Any]) -> None:
        """Record what the run is, or check that the folder holds the same run.

        Args:
            record: What determines the result beside the session's own arguments: fingerprints of
                model and data, and the objective's settings.

        Raises:
            CheckpointError: The folder holds another run.
        """
        own = {
            "steps": self.steps,
            "train": self.trains,
            "unfreeze_original_rows": self.unfreeze_original_rows,
            "lora": self.lora and asdict(self.lora),
            "config": asdict(self.config),
        }
        if self.prompt is not None:
            own["prompt"] = asdict(self.prompt)

        def begin() -> None:
            # A run keeps its precision, even where another measurement would choose another one.
            kept = self.folder.record.get(_CHOICE) if self.config.precision == "auto" else None
            chosen = kept or choose_precision(
                self.model.network, self.config.precision, also=_head_shapes(self.model.network)
            )
            # A run begun before a setting existed has its default, which changes nothing.
            usual = {"config": asdict(TrainingConfig())}
            self.folder.begin(own | {_CHOICE: chosen} | dict(record), defaults=usual)

        self.on_first(begin)
        self.precision = self.folder.record[_CHOICE]

    def on_first(self, work: Callable[[], object]) -> None:
        """Do some work in the first process only; the others wait until it is done."""
        if self.workers.is_first:
            work()
        self.workers.wait()

    def train(
        self,
        objective: Objective,
        source: BatchSource,
        *,
        bytes_per_token: float = 1.0,
        validate: Callable[[], float] | None = None,
        patience: int | None = None,
        diagnose: bool = False,
    ) -> None:
        """Freeze, widen, train, narrow and verify.

        Args:
            objective: What is minimised.
            source: Where the batches come from.
            bytes_per_token: To report bits per byte.
            validate: Returns the loss on text that is not trained on; see `Trainer`.
            patience: Evaluations without a lower loss after which the run ends; see `Trainer`.
            diagnose: Measure the gradients and report them in the run's folder; see `Diagnosis`.

        Raises:
            InputError: There is nothing to train, or the disk has no room for the run.
            CheckpointError: A checkpoint is damaged or cannot be written.
            TrainingError: The loss is not finite or explodes.
            VerificationError: Original rows moved.
        """
        network = self.model.network
        if self.lora is not None:
            with torch.random.fork_rng([]):
                torch.manual_seed(self.config.seed)
                add_lora(network, self.lora)
        if self.prompt is not None and prompt_of(network) is None:
            add_prompt(network, self.prompt, seed=self.config.seed)
        with network.attach(self.modules):
            trained = choose_parameters(
                network,
                self.trains,
                unfreeze_original_rows=self.unfreeze_original_rows,
                heads=self.heads,
            )
            needed = _bytes_written(network, trained, best=patience is not None)
            self.on_first(lambda: self.folder.check_space(needed))
            frozen = {} if self.unfreeze_original_rows else row_fingerprints(network)
            formats = _widen(trained)
            whole = without_weights(network) if self.sharded else None
            trainer = Trainer(
                network,
                objective,
                source,
                self.config,
                steps=self.steps,
                folder=self.folder,
                groups=parameter_groups(network, self.config.learning_rates),
                workers=self.workers,
                sharded=self.sharded,
                bytes_per_token=bytes_per_token,
                precision=self.precision,
                validate=validate,
                patience=patience,
            )
            trainer.run(tensorboard=self.tensorboard, diagnose=diagnose)
            self.validation_losses = trainer.validation_losses
            if self.average_checkpoints > 1:
                for name, mean in self.folder.mean_weights(self.average_checkpoints).items():
                    trained[name].data = mean.to(trained[name])
            if whole is not None:
                whole.load_state_dict(self.workers.gather(network.state_dict()), assign=True)
                self.model.network = network = whole
            _narrow(network, formats)
            check_rows(network, frozen)

    def publish(self, save: Callable[[Path], None]) -> None:
        """Merge adapters and write the finished model to `out/model`.

        Adapters, or a prompt, are written alone to `out/adapter`, in the layout of `peft`. A prompt
        cannot be merged: the network keeps it. Adapters merged into a quantised base are added to
        the values of its blocks, and the result is in full precision; `merge_adapter` merges them
        into the weights before quantisation instead.

        Args:
            save: Writes the model into the directory it is called with.

        Raises:
            CheckpointError: The disk is full or fails.
        """
        network = self.model.network
        if self.workers.is_first and self.lora is not None:
            assert isinstance(self.model, LanguageModel), "adapters are saved with a tokenizer"
            save_adapter(self.model, self.folder.adapter)
        if self.workers.is_first and self.prompt is not None:
            save_prompt(network, self.folder.adapter)
        if self.workers.is_first and not self.folder.is_published():
            self.folder.publish(save)
        merge_lora(network)
        self.workers.wait()
        network.eval()


def _bytes_written(network: Network, trained: Mapping[str, Tensor], *, best: bool) -> int:
    """Estimate what a run writes: three checkpoints of weights and two moments, and the model.

    Checkpoints also keep the best weights, if there are such.
    """
    moments = sum(p.numel() * (16 if best else 12) for p in trained.values())
    whole = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    # The model is written in full precision.
    whole += sum(4 * matrix.numel() for matrix in quantized_matrices(network).values())
    return int(3 * moments + whole)


def _widen(trained: Mapping[str, nn.Parameter]) -> dict[str, torch.dtype]:
    """Convert parameters to float32; return the format each had."""
    formats = {name: parameter.dtype for name, parameter in trained.items()}
    for parameter in trained.values():
        parameter.data = parameter.data.float()
    return formats


def _narrow(network: Network, formats: Mapping[str, torch.dtype]) -> None:
    """Convert trained parameters back to the format they had."""
    for name, parameter in network.named_parameters():
        if name in formats:
            parameter.data = parameter.data.to(formats[name])


def _head_shapes(network: Network) -> list[tuple[int, int]]:
    """Return the shape of the vocabulary's matrix, if the network scores the vocabulary."""
    config = network.config
    return [(config.vocab_size, config.hidden_size)] if network.has_language_head else []
