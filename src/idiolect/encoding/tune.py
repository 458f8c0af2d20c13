"""`tune`: teach an encoder which documents answer which queries; without pairs, from text alone."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.mining import Miner, Mining
from idiolect.encoding.objectives.contrastive import ContrastiveObjective
from idiolect.encoding.objectives.imitation import Imitation
from idiolect.encoding.objectives.pair_batches import ShuffledEpochs
from idiolect.encoding.objectives.unsupervised import TSDAE, SimCSE
from idiolect.encoding.pairs import Pair, PairFile, PairTable
from idiolect.encoding.projection import Projection
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.errors import ConfigError
from idiolect.models.adapter import save_adapter
from idiolect.nn.lora import LoraConfig, add_lora, merge_lora
from idiolect.training.checkpoint import RunFolder
from idiolect.training.distributed import Workers
from idiolect.training.frozen_rows import (
    bytes_written,
    check_rows,
    narrow,
    row_fingerprints,
    widen,
)
from idiolect.training.loop import Objective, Trainer
from idiolect.training.objectives.contrastive_losses import ContrastiveLoss, InfoNCE, Matryoshka
from idiolect.training.optim import Train, choose_parameters, row_rate
from idiolect.training.training_config import TrainingConfig

__all__ = ["TextObjective", "tune", "tune_on_text", "tuning_plan"]

TextObjective = Literal["simcse", "tsdae", "imitate"]
"""How an encoder learns from text alone."""

_TELL = logging.getLogger(__name__)
_RATES: dict[Train, float] = {"rows+lora": 2e-4, "body": 2e-5, "all": 2e-5}


def tuning_plan(encoder: Encoder, train: Train = "all", **values: Any) -> TrainingConfig:
    """Return the usual plan: 32 pairs a step, and a small rate that falls to zero.

    It is 2e-5 for published weights and 2e-4 for adapters; for rows that train alone, see
    `row_rate`.

    Args:
        encoder: What is to be trained.
        train: What of it.
        values: Fields of `TrainingConfig` that are to be others.
    """
    usual = {"batch": 32, "last_rate": 0.0, "weight_decay": 0.01}
    usual["learning_rate"] = _RATES.get(train) or row_rate(encoder.model.network)
    return TrainingConfig.of(usual | values)


def tune(
    encoder: Encoder,
    pairs: str | Path | Iterable[Pair],
    *,
    out: str | Path,
    loss: ContrastiveLoss | None = None,
    dimensions: Iterable[int] = (),
    whiten: bool = False,
    mining: Mining | None = None,
    corpus: Iterable[str] = (),
    epochs: int = 1,
    steps: int | None = None,
    train: Train = "all",
    lora: LoraConfig | None = None,
    unfreeze_original_rows: bool = False,
    plan: TrainingConfig | None = None,
    tensorboard: bool = False,
    counts: EncodingCounts | None = None,
) -> Encoder:
    """Train an encoder on pairs; a run that was ended is gone on with.

    All other documents of a step are a pair's negatives, but for those that are right for its query
    as well: whatever any pair names for it, and texts that are the same. The original embedding
    rows do not move, whatever trains, unless they are unfrozen. Under `torchrun` every process
    calls this with the same arguments; the result does not depend on how many there are.

    Args:
        encoder: What to train; its network is changed in place.
        pairs: The pairs, or a file of them; see `idiolect.encoding.pairs`.
        out: The run's folder; see `RunFolder`. The finished encoder is in `out/model`.
        loss: What is minimised; see `idiolect.training.objectives.contrastive_losses`. By default
            `InfoNCE()`.
        dimensions: Shorter widths at which vectors are to be good as well (Matryoshka). An encoder
            without a projection gets one, so that they begin as the principal axes.
        whiten: Centre and scale the vectors by the pairs' documents first, for a model that was not
            trained as an encoder; see `Encoder.project`.
        mining: Give each pair hard negatives, found anew in each pass.
        corpus: Documents beside the pairs' own that these are found among.
        epochs: Passes over the pairs.
        steps: How many steps the run has, instead.
        train: What trains: the added `rows`; `rows+lora`, these and adapters, which are merged at
            the end and also saved in `out/adapter`; the `body`, which is all but the vocabulary's
            rows; `all`, which is all but the original rows.
        lora: Size and place of the adapters.
        unfreeze_original_rows: Train the published rows as well.
        plan: Sizes, rates and intervals, by default `tuning_plan`'s. `micro_batch` is how many
            texts' activations are held; the others' gradients are cached, and the loss is the same.
        tensorboard: Write TensorBoard events to `out/events`.
        counts: Added to by the texts read. Without it, texts that are cut are logged as a warning.

    Returns:
        The encoder, trained, in evaluation mode.

    Raises:
        InputError: The pairs cannot be read or do not fit the loss, there is nothing to train, or
            the disk has no room for the run.
        ConfigError: Dimensions the encoder has not, or fewer than one step.
        CheckpointError: `out` holds another run, or its checkpoint is damaged.
        TrainingError: The loss is not finite or explodes.
        VerificationError: Original rows moved.
    """
    plan = plan or tuning_plan(encoder, train)
    if isinstance(pairs, str | Path):
        pairs = PairFile(pairs)
    table = PairTable.of(pairs, corpus)
    widths = _widths(encoder, dimensions)
    goal = loss or InfoNCE()
    if len(widths) > 1:
        goal = Matryoshka(goal, widths, normalise=encoder.normalise)
    source = ShuffledEpochs(len(table), rows=plan.batch, seed=plan.seed)
    steps = epochs * source.steps if steps is None else steps
    run = _Run(encoder, plan, steps, train, lora, unfreeze_original_rows, out)
    run.begin(
        {
            "pairs": table.fingerprint,
            "loss": repr(goal),
            "mining": mining and asdict(mining),
            "whiten": whiten,
        }
    )
    if whiten or (len(widths) > 1 and encoder.projection is None):
        run.project(table.documents, whiten=whiten)
    reading = _reading(encoder, plan.length)
    miner = None
    if mining is not None:
        # Among whole texts, as searches will be, however little of them is read in training.
        miner = Miner(
            encoder, table, mining, run.folder.path / "mined", seed=plan.seed, workers=run.workers
        )
    objective = ContrastiveObjective(
        reading, table, goal, miner=miner, at_once=plan.micro_batch, workers=run.workers
    )
    run.train(objective, source, tensorboard=tensorboard)
    if counts is not None:
        counts.add(objective.counts)
    elif (cut := objective.counts).truncated:
        _TELL.warning(
            "%.0f%% of the texts read are longer than %d tokens and were cut",
            *(100 * cut.truncated / cut.texts, reading.length),
        )
    encoder.trained_dimensions = widths[1:] or encoder.trained_dimensions
    run.finish()
    return encoder


def tune_on_text(
    encoder: Encoder,
    texts: Iterable[str],
    *,
    out: str | Path,
    objective: TextObjective = "simcse",
    teacher: Encoder | None = None,
    whiten: bool = False,
    epochs: int = 1,
    steps: int | None = None,
    train: Train = "all",
    lora: LoraConfig | None = None,
    unfreeze_original_rows: bool = False,
    plan: TrainingConfig | None = None,
    tensorboard: bool = False,
) -> Encoder:
    """Train an encoder on texts without pairs; a run that was ended is gone on with.

    Args:
        encoder: As in `tune`.
        texts: Sentences or short documents; a `Corpus`, for example.
        out: As in `tune`.
        objective: `simcse`: a text, read twice with other dropout, is its own pair; `tsdae`: a text
            has to be written again from the vector of what is left when words are taken away;
            `imitate`: passages of a text must have the vectors that `teacher` makes of them.
        teacher: For `imitate`: the encoder before it was given new tokens, on the same device.
        whiten: Centre and scale the vectors by these texts first, as in `tune`.
        epochs: As in `tune`, and so are all others.
        steps: See there.
        train: See there.
        lora: See there.
        unfreeze_original_rows: See there.
        plan: See there.
        tensorboard: See there.

    Raises:
        InputError: There are no texts, or the model has no dropout for `simcse`; and as in `tune`.
        ConfigError: An unknown objective, a teacher that is missing, not asked for or of another
            width, whitened vectors to imitate, or fewer than one step.
        CheckpointError: As in `tune`.
        TrainingError: As in `tune`.
        VerificationError: As in `tune`.
    """
    if objective not in get_args(TextObjective):
        raise ConfigError(
            f"objective={objective!r}", hint="one of " + ", ".join(get_args(TextObjective))
        )
    _check_teacher(objective, teacher, whiten)
    plan = plan or tuning_plan(encoder, train)
    known = list(dict.fromkeys(texts))
    reading = _reading(encoder, plan.length)
    workers = Workers.join(encoder.model.network.device)
    goal: SimCSE | TSDAE | Imitation
    if teacher is not None:
        goal = Imitation(
            reading, teacher, known, seed=plan.seed, at_once=plan.micro_batch, workers=workers
        )
    elif objective == "simcse":
        goal = SimCSE(reading, known, at_once=plan.micro_batch, workers=workers)
    else:
        goal = TSDAE(reading, known, seed=plan.seed)
    source = ShuffledEpochs(len(known), rows=plan.batch, seed=plan.seed)
    steps = epochs * source.steps if steps is None else steps
    run = _Run(encoder, plan, steps, train, lora, unfreeze_original_rows, out)
    run.begin({"texts": goal.fingerprint, "objective": objective, "whiten": whiten})
    if whiten:
        run.project(known, whiten=True)
        reading.projection = encoder.projection
    with ExitStack() as stack:
        if isinstance(goal, TSDAE):
            stack.enter_context(goal.attached())
        run.train(goal, source, tensorboard=tensorboard)
    run.finish()
    return encoder


class _Run:
    """What both verbs do before the loop and after it."""

    def __init__(
        self,
        encoder: Encoder,
        plan: TrainingConfig,
        steps: int,
        train: Train,
        lora: LoraConfig | None,
        unfreeze_original_rows: bool,
        out: str | Path,
    ) -> None:
        if steps < 1:
            raise ConfigError(f"a run of {steps} steps", hint="at least 1")
        self.encoder, self.plan, self.steps = encoder, plan, steps
        self.what: Train = train
        self.unfreeze = unfreeze_original_rows
        self.lora = (lora or LoraConfig()) if train == "rows+lora" else None
        self.workers = Workers.join(encoder.model.network.device)
        self.folder = RunFolder(out)

    def begin(self, record: Mapping[str, Any]) -> None:
        """Say what the run is; refuse to go on with another."""
        if self.workers.is_first:
            self.folder.begin(
                {
                    "encoder": self.encoder.fingerprint,
                    "steps": self.steps,
                    "train": self.what,
                    "unfreeze_original_rows": self.unfreeze,
                    "lora": self.lora and asdict(self.lora),
                    "plan": asdict(self.plan),
                    **record,
                }
            )
        self.workers.wait()

    def project(self, texts: Sequence[str], *, whiten: bool) -> None:
        """Fit a projection once; a run that is gone on with must find the very same axes."""
        path = self.folder.path / "projection.safetensors"
        if self.workers.is_first and not path.exists():
            self.encoder.project(texts, whiten=whiten)
            assert self.encoder.projection is not None
            self.encoder.projection.save(path)
        self.workers.wait()
        self.encoder.projection = Projection.load(path).to(self.encoder.model.network.device)

    def train(self, goal: Objective, source: ShuffledEpochs, *, tensorboard: bool) -> None:
        """Train, and check that nothing else has moved."""
        network = self.encoder.model.network
        if self.lora is not None:
            with torch.random.fork_rng([]):
                torch.manual_seed(self.plan.seed)
                add_lora(network, self.lora)
        trained = choose_parameters(network, self.what, unfreeze_original_rows=self.unfreeze)
        for name, parameter in network.named_parameters():
            if name.startswith("denoiser."):
                trained[name] = parameter
            elif name.startswith(("heads.", "pooler.")):  # they have no part in a vector
                trained.pop(name, None)
            parameter.requires_grad_(name in trained)
        if self.workers.is_first:
            self.folder.check_space(bytes_written(network, trained))
        frozen = {} if self.unfreeze else row_fingerprints(network)
        formats = widen(trained)
        # The objective divides a step's texts itself: a part of them has another loss.
        plan = replace(self.plan, micro_batch=None)
        Trainer(
            network,
            goal,
            source,
            plan,
            steps=self.steps,
            folder=self.folder,
            workers=self.workers,
        ).run(tensorboard=tensorboard)
        narrow(network, formats)
        check_rows(network, frozen)

    def finish(self) -> None:
        """Merge adapters, and show the finished encoder in the run's folder."""
        model, folder = self.encoder.model, self.folder
        if self.workers.is_first and self.lora is not None:
            save_adapter(model, folder.adapter)
        merge_lora(model.network)
        if self.workers.is_first and not folder.model.exists():
            folder.publish(self.encoder.save)
        self.workers.wait()
        model.network.eval()


def _check_teacher(objective: TextObjective, teacher: Encoder | None, whiten: bool) -> None:
    if (objective == "imitate") != (teacher is not None):
        raise ConfigError(
            f"objective={objective!r} {'with a' if teacher else 'without a'} teacher",
            hint="imitate needs the encoder before it was given new tokens, and no other does",
        )
    if teacher is not None and whiten:
        raise ConfigError(
            "whitened vectors cannot imitate others", hint="whiten in a later run, on pairs"
        )


def _widths(encoder: Encoder, dimensions: Iterable[int]) -> tuple[int, ...]:
    """Return the widths that are trained, the whole first."""
    whole = encoder.dimensions
    for size in (dimensions := list(dimensions)):
        if not 1 <= size <= whole:
            raise ConfigError(
                f"{size} dimensions; the model has {whole}", hint=f"numbers from 1 to {whole}"
            )
    return tuple(sorted({whole, *dimensions}, reverse=True))


def _reading(encoder: Encoder, length: int) -> Encoder:
    """Return the encoder, reading no more of a text than the plan says."""
    return encoder if length >= encoder.length else encoder.altered(length=length)
