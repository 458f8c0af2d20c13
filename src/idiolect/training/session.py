"""`TrainingSession`: the common procedure of all training commands.

    begin     record the run's settings and precision; refuse a folder that contains another run
    freeze    attach modules and adapters; choose the parameters to train
    widen     convert them to float32: bfloat16, with 8 bits of precision, would lose small updates
    train     the loop, from the last checkpoint if there is one
    narrow    convert them back to the model's own dtype
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
from idiolect.training.stopping.run_lock import lock_run, release_run
from idiolect.training.training_config import TrainingConfig

__all__ = ["TrainedModel", "TrainingSession"]

_CHOICE = "chosen_precision"
"""Key of the run's precision in `run.json`."""


class TrainedModel(Protocol):
    """A trainable model: a `LanguageModel`, or a network over ids other than tokens."""

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
        steps: Number of steps of the whole run.
        train: The parameters to train; see `Train`.
        lora: Size and target layers of the adapters, with `train="rows+lora"`.
        prompt: Kind, number and initialization of the virtual tokens, with `train="prompt"`, unless
            the network already has virtual tokens.
        unfreeze_original_rows: Train the published rows as well.
        modules: Modules trained with the network that are not part of the model, by name.
        heads: Whether the network's task heads are trained.
        sharded: Shard all weights among the processes (FSDP2).
        tensorboard: Write TensorBoard events to `out/events`.
        average_checkpoints: Number of last checkpoints whose weights are averaged at the end; 1 for
            the last weights alone.

    Raises:
        ConfigError: `steps` is below 1, settings are invalid, or quantised weights would be
            sharded.
        InputError: The folder cannot be created, or `steps` is not an integer.
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
        averaged = average_checkpoints > 1
        self.folder = RunFolder(
            out, kept=max(2, average_checkpoints), every=config.save_steps if averaged else 1
        )
        self.precision: ChosenPrecision = "fp32"
        """Format of matrix products, chosen by `begin`."""
        self.validation_losses: list[float] = []
        """Results of the evaluations in `train`."""

    def begin(self, record: Mapping[str, Any]) -> None:
        """Record the run's settings, or check that the folder contains the same run.

        The folder is locked against other processes until the model is published.

        Args:
            record: Everything that determines the result besides the session's own arguments:
                fingerprints of model and data, and the objective's settings.

        Raises:
            CheckpointError: The folder contains another run.
            InputError: Another process trains in the folder.
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
            # A run keeps its precision, even if a new measurement would choose another one.
            kept = self.folder.record.get(_CHOICE) if self.config.precision == "auto" else None
            chosen = kept or choose_precision(
                self.model.network, self.config.precision, also=_head_shapes(self.model.network)
            )
            # For a run started before a setting existed, use its default, which changes nothing.
            usual = {"config": asdict(TrainingConfig())}
            lock_run(self.folder.path, self)
            self.folder.begin(own | {_CHOICE: chosen} | dict(record), defaults=usual)

        self.on_first(begin)
        self.precision = self.folder.record[_CHOICE]

    def on_first(self, work: Callable[[], object]) -> None:
        """Call a function in the first process only; the others wait until it returns."""
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
            objective: The objective to minimise.
            source: The source of the batches.
            bytes_per_token: Mean UTF-8 bytes per token, to report bits per byte.
            validate: Returns the validation loss; see `Trainer`.
            patience: Evaluations without a lower loss after which the run ends; see `Trainer`.
            diagnose: Measure the gradients and report them in the run's folder; see `Diagnosis`.

        Raises:
            InputError: There is nothing to train, or the disk has too little space for the run.
            CheckpointError: A checkpoint is damaged or cannot be written.
            TrainingError: The loss is not finite or explodes.
            VerificationError: Original rows changed.
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

        Adapters, or a prompt, are also written separately to `out/adapter`, in the layout of
        `peft`. A prompt cannot be merged: the network keeps it. Adapters over a quantised base are
        added to the de-quantised weights, and the result is in full precision; `merge_adapter`
        merges them into the weights before quantisation instead.

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
        release_run(self.folder.path)
        merge_lora(network)
        self.workers.wait()
        network.eval()


def _bytes_written(network: Network, trained: Mapping[str, Tensor], *, best: bool) -> int:
    """Estimate the bytes that a run writes: three checkpoints (weights, two moments) and the model.

    With early stopping, checkpoints also contain the best weights.
    """
    moments = sum(p.numel() * (16 if best else 12) for p in trained.values())
    whole = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    # The model is saved in full precision.
    whole += sum(4 * matrix.numel() for matrix in quantized_matrices(network).values())
    return int(3 * moments + whole)


def _widen(trained: Mapping[str, nn.Parameter]) -> dict[str, torch.dtype]:
    """Convert parameters to float32; return the previous dtype of each."""
    formats = {name: parameter.dtype for name, parameter in trained.items()}
    for parameter in trained.values():
        parameter.data = parameter.data.float()
    return formats


def _narrow(network: Network, formats: Mapping[str, torch.dtype]) -> None:
    """Convert trained parameters back to their previous dtype."""
    for name, parameter in network.named_parameters():
        if name in formats:
            parameter.data = parameter.data.to(formats[name])


def _head_shapes(network: Network) -> list[tuple[int, int]]:
    """Return the shape of the vocabulary's matrix, if the network scores the vocabulary."""
    config = network.config
    return [(config.vocab_size, config.hidden_size)] if network.has_language_head else []
