"""The one training loop: steps, gradients and safety.

- An objective makes the batch of a step, computes its loss and accumulates its gradients. The loop
  is the same for every objective.
- A step's loss is a mean over all its targets, so the result does not depend on how a step is
  divided among processes and micro-batches.
- The random generators are reseeded before each step from the run's seed and the step's number, so
  their state is not part of checkpoints: a resumed run uses the same random numbers.
- A loss or gradient that is not finite, or a loss that explodes, stops the run before the weights
  are updated. The state before that batch is saved, and the error names the batch's documents.
- SIGINT, SIGTERM and SIGHUP let the step finish, save, and only then end the process.
- With patience, a run ends once validation no longer improves, and finishes with its best weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from idiolect.errors import ConfigError, TrainingError
from idiolect.nn.gradient_checkpointing import recomputed
from idiolect.nn.matrix_precision import (
    ChosenPrecision,
    autocast,
    choose_precision,
    native_precision,
)
from idiolect.nn.network import Network
from idiolect.training.averaged_sgd import AveragedSGD
from idiolect.training.checkpoint import Checkpoint, RunFolder
from idiolect.training.diagnosis import Diagnosis
from idiolect.training.distributed import Workers, all_blocks
from idiolect.training.layer_schedule import GradualUnfreezing, layer_rates
from idiolect.training.objectives.objective import (
    BatchSource,
    Objective,
    SourceRows,
    StepBatch,
    StepContext,
)
from idiolect.training.optim import ParameterGroup, make_optimizer
from idiolect.training.progress import Reporter
from idiolect.training.row_sparse_adamw import clip_gradients
from idiolect.training.seeds import derive_seed
from idiolect.training.stopping.early_stopping import BestWeights
from idiolect.training.stopping.ending_signals import caught_signals, raise_signal
from idiolect.training.training_config import TrainingConfig

__all__ = ["Trainer"]

_EXPLOSION = 3.0
"""A loss above this many times its running mean, plus one, stops the run."""
_DECAY = 0.95
"""Weight of the previous value in the running mean of the loss."""


class _LossModule(nn.Module):
    """The network and its loss as one module, so that sharding covers the head as well."""

    def __init__(self, network: Network, objective: Objective) -> None:
        super().__init__()
        self.network = network
        self._objective = (objective,)  # a tuple, so that its own modules are not registered

    def forward(self, batch: StepBatch) -> Tensor:
        return self._objective[0].loss(self.network, batch)


class Trainer:
    """One run of the loop.

    Args:
        network: The network; its trainable parameters require gradients.
        objective: The objective to minimise.
        source: The source of the batches.
        config: Sizes, rates and intervals.
        steps: Number of steps of the whole run.
        folder: The folder for checkpoints; training resumes from a checkpoint in it.
        groups: The trainable parameters, each group with its learning rate; by default one group.
        workers: The distributed processes.
        sharded: Whether the weights are sharded among the processes (FSDP2).
        bytes_per_token: Mean UTF-8 bytes per token, to report bits per byte.
        precision: Format of matrix products; by default according to `config.precision`.
        validate: Returns the validation loss; called every `config.eval_steps` steps and at the
            end, with the network in evaluation mode.
        patience: End the run after this many consecutive evaluations without a new lowest loss, and
            restore the weights of the lowest; see `BestWeights`.

    Raises:
        ConfigError: The processes cannot share a step's rows evenly.
    """

    def __init__(
        self,
        network: Network,
        objective: Objective,
        source: BatchSource,
        config: TrainingConfig,
        *,
        steps: int,
        folder: RunFolder,
        groups: Sequence[ParameterGroup] = (),
        workers: Workers | None = None,
        sharded: bool = False,
        bytes_per_token: float = 1.0,
        precision: ChosenPrecision | None = None,
        validate: Callable[[], float] | None = None,
        patience: int | None = None,
    ) -> None:
        self.network, self.objective, self.source = network, objective, source
        self.config, self.steps, self.folder = config, steps, folder
        self.workers = workers or Workers()
        self.bytes_per_token = bytes_per_token
        self.device = network.device
        for parameter in network.parameters():
            # Some checkpoints load as transposed views, which training would read and write at
            # half the speed.
            parameter.data = parameter.data.contiguous()
        self._loss = _LossModule(network, objective)
        self.precision = precision or choose_precision(network, config.precision)
        """Format of matrix products."""
        self._autocast, compiled = _capability(self.device, self.precision)
        if compiled:
            for block in all_blocks(network):
                block.compile(dynamic=False)
        if sharded:
            self.workers.shard(self._loss)
        if config.batch_size % self.workers.count:
            raise ConfigError(
                f"{config.batch_size} rows a step cannot be shared by {self.workers.count} "
                "processes",
                hint="choose a multiple",
            )
        self.training = {n: p for n, p in network.named_parameters() if p.requires_grad}
        rates = {name: group.learning_rate for group in groups for name in group.names}
        rates = layer_rates(
            network,
            dict.fromkeys(self.training) | rates,
            usual=config.max_learning_rate,
            layer_decay=config.layer_decay,
        )
        if sharded and config.unfreeze_steps:
            raise ConfigError(
                "divided weights cannot be unfrozen one layer after another",
                hint="omit sharded or unfreeze_steps",
            )
        self._unfreezing = GradualUnfreezing(
            network, self.training, every=config.unfreeze_steps, steps=steps
        )
        self.optimizer = make_optimizer(
            network,
            weight_decay=config.decay,
            learning_rates=rates,
            optimizer=config.optimizer,
            beta2=config.adam_beta2,
        )
        if sharded and patience is not None:
            raise ConfigError(
                "a run of divided weights does not end early", hint="omit sharded or patience"
            )
        self._best = None if patience is None else BestWeights(patience)
        self._validate = validate
        self.validation_losses: list[float] = []
        """Results of the evaluations so far."""
        self._diagnosis: Diagnosis | None = None
        self.done = 0
        """Number of completed steps."""
        self._mean_loss = math.inf

    def run(self, *, tensorboard: bool = False, diagnose: bool = False) -> None:
        """Train to the end, from the last checkpoint if there is one. Leaves training mode on.

        Args:
            tensorboard: Write TensorBoard events.
            diagnose: Measure and report the gradients; see `Diagnosis`.

        Raises:
            TrainingError: The loss is not finite or explodes.
            CheckpointError: A checkpoint cannot be written or does not match the run.
            KeyboardInterrupt: SIGINT was received; the state is saved.
            SystemExit: SIGTERM or SIGHUP was received; the state is saved.
        """
        self._resume()
        if diagnose and self.workers.is_first:
            self._diagnosis = Diagnosis(self.folder.path, steps=self.steps, done=self.done)
        reporter = Reporter(
            self.folder.path if self.workers.is_first else None,
            steps=self.steps,
            done=self.done,
            tensorboard=tensorboard,
        )
        blocks = all_blocks(self.network) if self.config.gradient_checkpointing else ()
        with (
            reporter,
            recomputed(blocks),
            caught_signals() as caught,
            torch.random.fork_rng([self.device] if self.device.type == "cuda" else []),
        ):
            self.network.train()
            while not self._is_finished():
                stop = self._advance(reporter, caught)
                if stop or self._is_finished() or self.done % self.config.save_steps == 0:
                    self._save(self.source.state(), self.objective.carried())
                if stop:
                    raise_signal(caught, f"the state after step {self.done} is saved")
        self._unfreezing.finish()
        if isinstance(self.optimizer, AveragedSGD):
            self.optimizer.finish()
        if self._best is not None:
            self._best.apply(self.training)
        if self._diagnosis is not None:
            self._diagnosis.report()

    def _is_finished(self) -> bool:
        """Return whether all steps are done, or the last evaluations no longer improved."""
        stopped = self._best is not None and self._best.is_old(self.validation_losses)
        return stopped or self.done >= self.steps

    def _advance(self, reporter: Reporter, caught: Sequence[int]) -> bool:
        """Do one step; return whether any process received a signal."""
        started = time.perf_counter()
        before, carried = self.source.state(), self.objective.carried()
        rows = self.source.take()
        batch = self.objective.prepare(rows)
        total = max(1, batch.count)
        torch.manual_seed(derive_seed(self.config.seed, self.done, self.workers.rank))
        self._unfreezing.apply(self.done)
        if self._diagnosis is not None:
            self._diagnosis.measure(self.done + 1, self.network, batch)
        own = self._accumulate(batch, total)
        self.workers.sum_gradients(p for p in self.training.values() if p.requires_grad)
        norm = clip_gradients(self.training.values(), self.config.max_grad_norm)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        summed, signals = self.workers.sum(own, len(caught), device=self.device)
        loss = summed / total
        self._check_loss(loss, float(norm), rows, before, carried)
        factor = self.objective.rate_factor(batch)

        for group in self.optimizer.param_groups:
            group["lr"] = factor * self.config.learning_rate_at(
                self.done, self.steps, maximum=group["max_learning_rate"]
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        mean = loss if math.isinf(self._mean_loss) else self._mean_loss
        self._mean_loss = _DECAY * mean + (1 - _DECAY) * loss
        metrics = {
            "loss": loss,
            "learning_rate": factor * self.config.learning_rate_at(self.done - 1, self.steps),
            "gradient_norm": float(norm),
            "tokens": batch.tokens,
            "tokens_per_second": batch.tokens / (time.perf_counter() - started),
        }
        if self.objective.predicts_text:
            metrics["bits_per_byte"] = loss / math.log(2) / self.bytes_per_token
        metrics |= self.objective.metrics()
        at_end = self.done == self.steps
        if self._validate and (at_end or self.done % self.config.eval_steps == 0):
            metrics["validation_loss"] = self._evaluate(self._validate)
        reporter.step(self.done, metrics)
        return signals > 0

    def _evaluate(self, validate: Callable[[], float]) -> float:
        """Return the validation loss, with averaged weights if there are any."""
        self.network.eval()
        averaged: AbstractContextManager[None] = nullcontext()
        if isinstance(self.optimizer, AveragedSGD):
            averaged = self.optimizer.averaged_weights()
        with averaged:
            loss = validate()
            self.validation_losses.append(loss)
            if self._best is not None:
                self._best.observe(self.validation_losses, self.training)
        self.network.train()
        if isinstance(self.optimizer, AveragedSGD):
            self.optimizer.observe(self.validation_losses)
        return loss

    def _accumulate(self, batch: StepBatch, total: int) -> float:
        """Let the objective accumulate the gradients; return this process's share of the loss."""
        scale = self.workers.gradient_scale(self.training.values()) / total

        def compute_loss(part: StepBatch) -> Tensor:
            with self._autocast:
                loss: Tensor = self._loss(part)
            return loss

        return self.objective.accumulate(
            batch,
            StepContext(
                compute_loss=compute_loss,
                backward=lambda loss: (loss * scale).backward(),  # type: ignore[no-untyped-call]
                workers=self.workers,
                device=self.device,
                micro_batch=self.config.micro_batch_size,
            ),
        )

    def _check_loss(
        self,
        loss: float,
        norm: float,
        rows: SourceRows,
        before: Mapping[str, Any],
        carried: Mapping[str, Tensor],
    ) -> None:
        """Stop the run if the loss is not finite or explodes."""
        steady = not self.objective.has_steady_loss or loss <= _EXPLOSION * self._mean_loss + 1
        if math.isfinite(loss) and math.isfinite(norm) and steady:
            return
        self.optimizer.zero_grad(set_to_none=True)
        self._save(before, carried)
        what = f"the loss is {loss:.4g}"
        if math.isfinite(loss):
            mean = f", its mean so far {self._mean_loss:.4g}"
            what += mean if math.isfinite(norm) else f" and the gradient norm {norm:.4g}"
        documents = sorted(set(rows.sources))
        listed = ", ".join(map(str, documents[:5])) + (", …" if len(documents) > 5 else "")
        raise TrainingError(
            f"step {self.done + 1}: {what}; the batch holds documents {listed} of the corpus",
            hint=f"the state after step {self.done} is saved; look at these documents, or start "
            "again with a lower learning rate",
        )

    def _save(self, position: Mapping[str, Any], carried: Mapping[str, Tensor]) -> None:
        moments = {
            f"{name}:{moment}": value
            for name, parameter in self.training.items()
            for moment, value in self.optimizer.state.get(parameter, {}).items()
        }
        if self._best is not None:
            carried = {**carried, **self._best.tensors()}
        weights, gathered = self.workers.gather(self.training), self.workers.gather(moments)
        if self.workers.is_first:
            state = {"source": dict(position), "mean_loss": self._mean_loss}
            if self.validation_losses:
                state["validated"] = self.validation_losses
            self.folder.save(Checkpoint(self.done, weights, gathered, state, carried))
        self.workers.wait()

    def _resume(self) -> None:
        checkpoint = self.folder.latest()
        if checkpoint is None:
            return
        with torch.no_grad():
            for name, whole in checkpoint.weights.items():
                parameter = self.training[name]
                parameter.copy_(Workers.scatter(whole, parameter))
        for key, whole in checkpoint.optimizer.items():
            name, _, moment = key.rpartition(":")
            parameter = self.training[name]
            one = Workers.scatter(whole, parameter) if whole.dim() else whole.to(self.device)
            self.optimizer.state[parameter][moment] = one
        self.source.restore(checkpoint.state["source"])
        self.done = checkpoint.step
        self._mean_loss = checkpoint.state["mean_loss"]
        self.validation_losses = list(checkpoint.state.get("validated", ()))
        carried = checkpoint.carried
        self.objective.restore_carried(self._best.restore(carried) if self._best else carried)


def _capability(
    device: torch.device, precision: ChosenPrecision | None = None
) -> tuple[AbstractContextManager[Any], bool]:
    """Return the autocast context of a device, and whether its layers are compiled.

    Compiling needs Triton, which needs a GPU of compute capability 7.0.

    Args:
        device: The device.
        precision: Format of matrix products; by default `native_precision` of the device.
    """
    compiled = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)
    return autocast(precision or native_precision(device), device), compiled
