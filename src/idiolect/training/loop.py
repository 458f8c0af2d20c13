"""The one training loop: it knows steps, gradients and safety, and nothing of what is learnt.

What is notable:

- An objective says what a batch is and what its loss is; the same loop drives every one of them.
- A step's loss is a mean over all its targets, whichever process or micro-batch they are in, so the
  result does not depend on how a step is divided.
- The state of chance is no state: every step seeds its generators from the run's seed and its own
  number. A run that is resumed draws what the uninterrupted one drew.
- A loss or gradient that is not finite, or a loss that explodes, stops the run before it reaches
  the weights; the state before that batch is saved and the message names the batch's documents.
- SIGINT and SIGTERM let the step finish, save, and only then end the process.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from idiolect.errors import ConfigError, TrainingError
from idiolect.nn.layer import Layer
from idiolect.nn.transformer import Transformer
from idiolect.training.checkpoint import Checkpoint, RunFolder
from idiolect.training.distributed import Workers
from idiolect.training.optim import make_optimizer
from idiolect.training.progress import Reporter
from idiolect.training.seeds import derive_seed
from idiolect.training.training_config import TrainingConfig

__all__ = ["BatchSource", "Divisible", "Examples", "Objective", "Trainer"]

_EXPLOSION = 3.0
"""A loss this many times its running mean, and one more, is no noise."""
_MEMORY = 0.95
"""The running mean's weight of what was before."""


class Examples(Protocol):
    """What a source gives for one step."""

    @property
    def sources(self) -> Sequence[int]:
        """Which documents they come from; to name them when something goes wrong."""


class Divisible(Protocol):
    """A batch: what processes share and micro-batches divide."""

    @property
    def count(self) -> int:
        """How many targets its loss is a sum over."""

    @property
    def tokens(self) -> int:
        """How many real tokens it has."""

    def __len__(self) -> int:
        """How many rows it has."""

    def part(self, rows: slice) -> Divisible:
        """Return some of the rows."""

    def to(self, device: torch.device) -> Divisible:
        """Move it to a device."""


class Objective(Protocol):
    """What a run minimises."""

    @property
    def predicts_text(self) -> bool:
        """Whether every token is predicted once, so that bits per byte have a meaning."""

    def prepare(self, rows: Any) -> Divisible:
        """Make a batch of what the source gives. The same rows always give the same batch."""

    def loss(self, network: Transformer, batch: Any) -> Tensor:
        """Return the loss summed over the batch's targets, a scalar."""


class BatchSource(Protocol):
    """Where batches come from, endlessly."""

    def take(self) -> Examples:
        """Return the rows of the next step, for all processes."""

    def state(self) -> dict[str, Any]:
        """Return a few numbers that say where it stands."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where it stood."""


class _Step(nn.Module):
    """The network and its loss as one module, so that sharding covers the head as well."""

    def __init__(self, network: Transformer, objective: Objective) -> None:
        super().__init__()
        self.network = network
        self._objective = (objective,)

    def forward(self, batch: Divisible) -> Tensor:
        return self._objective[0].loss(self.network, batch)


class Trainer:
    """One run.

    Args:
        network: The network; what trains requires gradients, see `choose_parameters`.
        objective: What is minimised.
        source: Where the batches come from.
        plan: Sizes and rates.
        steps: How many steps the run has.
        folder: Where its state is kept; a checkpoint there is gone on from.
        workers: The processes.
        sharded: Whether the weights are divided among them.
        bytes_per_token: For the report of bits per byte.
    """

    def __init__(
        self,
        network: Transformer,
        objective: Objective,
        source: BatchSource,
        plan: TrainingConfig,
        *,
        steps: int,
        folder: RunFolder,
        workers: Workers | None = None,
        sharded: bool = False,
        bytes_per_token: float = 1.0,
    ) -> None:
        self.network, self.objective, self.source = network, objective, source
        self.plan, self.steps, self.folder = plan, steps, folder
        self.workers = workers or Workers()
        self.bytes_per_token = bytes_per_token
        self.device = network.device
        for parameter in network.parameters():
            # Some checkpoints load as transposed views, which reading tolerates: training reads
            # and writes them at half the speed.
            parameter.data = parameter.data.contiguous()
        self._step = _Step(network, objective)
        self._autocast, compiled = _capability(self.device)
        if compiled:
            for module in network.modules():
                if isinstance(module, Layer):
                    module.compile(dynamic=False)
        if sharded:
            self.workers.shard(self._step)
        if plan.batch % self.workers.count:
            raise ConfigError(
                f"{plan.batch} rows a step cannot be shared by {self.workers.count} processes",
                hint="choose a multiple",
            )
        self.training = {n: p for n, p in network.named_parameters() if p.requires_grad}
        self.optimizer = make_optimizer(network, weight_decay=plan.weight_decay)
        self.done = 0
        """Steps done."""
        self._mean_loss = math.inf

    def run(self, *, tensorboard: bool = False) -> None:
        """Train to the end, from the last checkpoint where there is one. Leaves training mode on.

        Raises:
            TrainingError: The loss is not finite or explodes.
            CheckpointError: A checkpoint cannot be written or does not fit.
            KeyboardInterrupt: SIGINT came; the state is saved.
            SystemExit: SIGTERM came; the state is saved.
        """
        self._resume()
        reporter = Reporter(
            self.folder.path if self.workers.is_first else None,
            steps=self.steps,
            done=self.done,
            tensorboard=tensorboard,
        )
        with (
            reporter,
            _caught_signals() as caught,
            torch.random.fork_rng([self.device] if self.device.type == "cuda" else []),
        ):
            self.network.train()
            while self.done < self.steps:
                stop = self._advance(reporter, caught)
                if stop or self.done == self.steps or self.done % self.plan.save_every == 0:
                    self._save(self.source.state())
                if stop:
                    reporter.say(f"stopped after step {self.done}; start again to go on from there")
                    _leave(caught)

    def _advance(self, reporter: Reporter, caught: Sequence[int]) -> bool:
        """Do one step; return whether a signal came to any process."""
        started = time.perf_counter()
        before = self.source.state()
        rows = self.source.take()
        batch = self.objective.prepare(rows)
        total = max(1, batch.count)
        torch.manual_seed(derive_seed(self.plan.seed, self.done, self.workers.rank))
        own = self._accumulate(batch.part(self.workers.share(len(batch))), total)
        self.workers.sum_gradients(self.training.values())
        norm = nn.utils.clip_grad_norm_(self.training.values(), self.plan.clip)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        summed, signals = self.workers.sum(own, len(caught), device=self.device)
        loss = summed / total
        self._judge(loss, float(norm), rows, before)

        rate = self.plan.rate(self.done, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        mean = loss if math.isinf(self._mean_loss) else self._mean_loss
        self._mean_loss = _MEMORY * mean + (1 - _MEMORY) * loss
        metrics = {
            "loss": loss,
            "learning_rate": rate,
            "gradient_norm": float(norm),
            "tokens": batch.tokens,
            "tokens_per_second": batch.tokens / (time.perf_counter() - started),
        }
        if self.objective.predicts_text:
            metrics["bits_per_byte"] = loss / math.log(2) / self.bytes_per_token
        reporter.step(self.done, metrics)
        return signals > 0

    def _accumulate(self, batch: Divisible, total: int) -> float:
        """Add up the gradients of this process's rows; return their summed loss."""
        scale = self.workers.gradient_scale(self.training.values()) / total
        size = self.plan.micro_batch or len(batch)
        summed = torch.zeros((), device=self.device)
        for start in range(0, len(batch), size):
            part = batch.part(slice(start, start + size)).to(self.device)
            with self._autocast:
                loss = self._step(part)
            (loss * scale).backward()
            summed += loss.detach()
        return float(summed)

    def _judge(self, loss: float, norm: float, rows: Examples, before: Mapping[str, Any]) -> None:
        """Stop at a loss that would ruin the weights."""
        if math.isfinite(loss) and math.isfinite(norm) and loss <= _EXPLOSION * self._mean_loss + 1:
            return
        self.optimizer.zero_grad(set_to_none=True)
        self._save(before)
        what = f"the loss is {loss:.4g}"
        if math.isfinite(loss):
            mean = f", its mean so far {self._mean_loss:.4g}"
            what += mean if math.isfinite(norm) else f" and the gradient's norm {norm:.4g}"
        documents = sorted(set(rows.sources))
        listed = ", ".join(map(str, documents[:5])) + (", …" if len(documents) > 5 else "")
        raise TrainingError(
            f"step {self.done + 1}: {what}; the batch holds documents {listed} of the corpus",
            hint=f"the state after step {self.done} is kept; look at these, or begin anew with a "
            "lower learning rate",
        )

    def _save(self, position: Mapping[str, Any]) -> None:
        moments = {
            f"{name}:{moment}": value
            for name, parameter in self.training.items()
            for moment, value in self.optimizer.state.get(parameter, {}).items()
        }
        weights, gathered = self.workers.gather(self.training), self.workers.gather(moments)
        if self.workers.is_first:
            state = {"source": dict(position), "mean_loss": self._mean_loss}
            self.folder.save(Checkpoint(self.done, weights, gathered, state))
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


def _capability(device: torch.device) -> tuple[AbstractContextManager[Any], bool]:
    """Return the number format products are made in, and whether layers are compiled.

    bfloat16 where the device multiplies it natively, which CPUs are not trusted with: some that
    announce it run it two hundred times slower than float32. Compiling needs Triton, and that a GPU
    of compute capability 7.0.
    """
    if device.type != "cuda":
        return nullcontext(), False
    compiled = torch.cuda.get_device_capability(device) >= (7, 0)
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.autocast("cuda", torch.bfloat16), compiled
    return nullcontext(), compiled


@contextmanager
def _caught_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of ending; a second one ends at once."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: object) -> None:
        caught.append(number)
        signal.signal(number, usual[signal.Signals(number)])

    for number in usual:
        signal.signal(number, note)
    try:
        yield caught
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def _leave(caught: Sequence[int]) -> None:
    if signal.SIGINT in caught:
        raise KeyboardInterrupt
    raise SystemExit(128 + signal.SIGTERM)
