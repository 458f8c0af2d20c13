"""`tune`: train an encoder on query-document pairs, or without pairs on text alone."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

# Registers the objectives that train an encoder on text.
import idiolect.encoding.objectives  # noqa: F401
from idiolect.encoding.depth import Layers, choose_depth, with_layers
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.mining import Miner, Mining
from idiolect.encoding.objectives.contrastive import ContrastiveObjective
from idiolect.encoding.objectives.text_objective import TextObjective
from idiolect.encoding.pairs import Pair, PairFile, PairTable
from idiolect.encoding.projection import Projection
from idiolect.encoding.static_encoder import fold_projection, should_whiten
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.errors import ConfigError
from idiolect.nn.lora import LoraConfig
from idiolect.text.arguments import check_whole, checked, iterate, load_if_named, wrong_type
from idiolect.text.corpus import documents_of
from idiolect.text.text_file import TextFile
from idiolect.training.data.shuffled_epochs import ShuffledEpochs
from idiolect.training.distributed import Workers
from idiolect.training.objectives.contrastive_losses import ContrastiveLoss, InfoNCE, Matryoshka
from idiolect.training.objectives.objective_registry import check_kind, find_objective
from idiolect.training.optim import Train, row_rate
from idiolect.training.session import TrainingSession
from idiolect.training.training_config import TrainingConfig

__all__ = ["tune", "tune_on_text", "tuning_config"]

_LOG = logging.getLogger(__name__)
_TRIAL_STEPS = 60
"""Steps for which each number of layers is trained before one is chosen."""
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


@checked
def tune(
    encoder: Encoder,
    pairs: str | Path | Iterable[Pair],
    *,
    output_dir: str | Path,
    layers: Layers | None = None,
    loss: ContrastiveLoss | None = None,
    dimensions: Iterable[int] = (),
    whiten: bool | None = None,
    mining: Mining | None = None,
    corpus: Iterable[str] = (),
    epochs: int = 1,
    steps: int | None = None,
    train: Train = "all",
    lora: LoraConfig | None = None,
    unfreeze_original_rows: bool = False,
    config: TrainingConfig | Mapping[str, Any] | None = None,
    tensorboard: bool = False,
    counts: EncodingCounts | None = None,
) -> Encoder:
    """Train an encoder on pairs. Run it again to resume.

    All other documents of a step are a pair's negatives, except those that are also right for its
    query: documents that any pair names for it, and equal texts. The original embedding rows do not
    move, whatever trains, unless they are unfrozen. Under `torchrun` every process calls this with
    the same arguments; the result does not depend on the number of processes.

    Args:
        encoder: The encoder, whose network is changed in place; or a name or path to load.
        pairs: The pairs, or a file of them; see `idiolect.encoding.pairs`. A pair may also be a
            tuple of two texts, or a dict.
        output_dir: The run's folder; see `RunFolder`. The finished encoder is in
            `output_dir/model`.
        layers: Use only the first layers of the model, as in `Encoder`. `auto` chooses among a few
            depths by pairs kept out; `output_dir/depths.json` tells what each achieved and its
            cost, see `idiolect.encoding.depth`.
        loss: What is minimised; see `idiolect.training.objectives.contrastive_losses`. By default
            `InfoNCE()`.
        dimensions: Shorter widths at which vectors should also be good (Matryoshka). An encoder
            without a projection gets one, so that its first dimensions are the principal axes.
        whiten: Centre and scale the vectors by the pairs' documents first, for a model that was not
            trained as an encoder; see `Encoder.project`. By default only a static encoder that
            was not whitened before is.
        mining: Add hard negatives to each pair, mined anew in each epoch.
        corpus: Further documents among which negatives are mined.
        epochs: Epochs over the pairs.
        steps: Steps of the whole run, instead of `epochs`.
        train: What trains: the added `rows`; `rows+lora`, added rows and adapters, which are merged
            at the end and also saved in `output_dir/adapter`; the `body`, everything but the
            vocabulary's rows; `all`, everything but the original rows.
        lora: Size and place of the adapters.
        unfreeze_original_rows: Train the published rows as well.
        config: Sizes, rates and intervals, by default `tuning_config`'s; a dict names those that
            differ from them. `micro_batch_size` is the
            number of texts whose activations are held at once; with gradient caching the loss is
            the same.
        tensorboard: Write TensorBoard events to `output_dir/events`.
        counts: Added to by the texts read. Without it, texts that are cut are logged as a warning.

    Returns:
        The encoder, trained, in evaluation mode.

    Raises:
        InputError: The pairs cannot be read or do not fit the loss, there is nothing to train, or
            the disk has no room for the run.
        ConfigError: More dimensions than the encoder has, or fewer than one step.
        CheckpointError: `output_dir` holds another run, or its checkpoint is damaged.
        TrainingError: The loss is not finite or explodes.
        VerificationError: Original rows moved.
    """
    encoder = load_if_named(encoder, Encoder, "encoder")
    if isinstance(pairs, str | Path):
        pairs = PairFile(pairs)
    if layers == "auto":
        pairs, dimensions = list(pairs), tuple(dimensions)
        options: dict[str, Any] = {
            "loss": loss,
            "dimensions": dimensions,
            "whiten": whiten,
            "config": config,
        }
        options |= {"train": train, "lora": lora, "steps": steps, "epochs": epochs}
        options["unfreeze_original_rows"] = unfreeze_original_rows
        layers = choose_depth(encoder, pairs, partial(_try, options), Path(output_dir))
    if layers is not None:
        encoder = with_layers(encoder, layers)
    config = _config_of(encoder, train, config)
    table = PairTable.of(pairs, documents_of(corpus, "corpus"))
    whiten = should_whiten(encoder) if whiten is None else whiten
    widths = _widths(encoder, dimensions)
    if loss is not None and not callable(loss):
        raise wrong_type(loss, "loss", "a loss", "such as InfoNCE()")
    criterion = InfoNCE() if loss is None else loss
    if len(widths) > 1:
        criterion = Matryoshka(criterion, widths, normalize=encoder.normalize)
    if len(table) < config.batch_size:
        _LOG.warning("a step has all %d pairs, not %d", len(table), config.batch_size)
    source = ShuffledEpochs(len(table), rows=config.batch_size, seed=config.seed)
    session = TrainingSession(
        encoder.model,
        out=output_dir,
        config=config,
        steps=epochs * source.steps if steps is None else steps,
        train=train,
        lora=lora,
        unfreeze_original_rows=unfreeze_original_rows,
        heads=False,
        tensorboard=tensorboard,
    )
    session.begin(
        {
            "encoder": encoder.fingerprint,
            "pairs": table.fingerprint,
            "loss": repr(criterion),
            "mining": mining and asdict(mining),
            "whiten": whiten,
        }
    )
    if whiten or (len(widths) > 1 and encoder.projection is None):
        _project(session, encoder, table.documents, whiten=whiten)
    truncating = _truncating(encoder, config.max_length)
    miner = None
    if mining is not None:
        # Mined among whole texts, as in a search, even if training truncates them.
        mined = session.folder.path / "mined"
        miner = Miner(encoder, table, mining, mined, seed=config.seed, workers=session.workers)
    objective = ContrastiveObjective(
        truncating,
        table,
        criterion,
        miner=miner,
        micro_batch_size=config.micro_batch_size,
        workers=session.workers,
    )
    session.train(objective, source)
    if counts is not None:
        counts.add(objective.counts)
    elif objective.counts.truncated:
        _LOG.warning(
            "%.0f%% of the texts read are longer than %d tokens and were truncated",
            *(100 * objective.counts.truncated / objective.counts.texts, truncating.max_length),
        )
    encoder.trained_dimensions = widths[1:] or encoder.trained_dimensions
    session.publish(encoder.save)
    return encoder


@checked
def tune_on_text(
    encoder: Encoder,
    texts: Iterable[str],
    *,
    output_dir: str | Path,
    objective: str = "simcse",
    teacher: Encoder | None = None,
    whiten: bool | None = None,
    epochs: int = 1,
    steps: int | None = None,
    train: Train = "all",
    lora: LoraConfig | None = None,
    unfreeze_original_rows: bool = False,
    config: TrainingConfig | Mapping[str, Any] | None = None,
    tensorboard: bool = False,
) -> Encoder:
    """Train an encoder on texts without pairs. Run it again to resume.

    Args:
        encoder: As in `tune`.
        texts: Sentences or short documents, for example a `Corpus`.
        output_dir: As in `tune`.
        objective: `simcse`: two dropout passes over a text are a positive pair; `crops`: a few
            words of a text are a query that should find the rest of it; `tsdae`: rebuild a
            text from the vector of a damaged copy; `imitate`: reproduce the vectors of `teacher`.
        teacher: For `imitate`: the encoder before its vocabulary grew, on the same device.
        whiten: Centre and scale the vectors by these texts first, as in `tune`.
        epochs: As in `tune`.
        steps: As in `tune`.
        train: As in `tune`.
        lora: As in `tune`.
        unfreeze_original_rows: As in `tune`.
        config: As in `tune`.
        tensorboard: As in `tune`.

    Raises:
        InputError: There are no texts, or the model has no dropout for `simcse`; and as in `tune`.
        ConfigError: An objective that is unknown or cannot train this kind of network; a teacher
            that is missing, not used or of another width; whitening with a teacher; or fewer than
            one step.
        CheckpointError: As in `tune`.
        TrainingError: As in `tune`.
        VerificationError: As in `tune`.
    """
    encoder = load_if_named(encoder, Encoder, "encoder")
    teacher = None if teacher is None else load_if_named(teacher, Encoder, "teacher")
    entry = find_objective("tune", objective)
    if entry.data != "text":
        raise ConfigError(
            f"the objective {objective!r} trains on {entry.data}, not on text", hint="give pairs"
        )
    check_kind(entry, encoder.model.network.kind)
    if whiten is None:
        whiten = teacher is None and should_whiten(encoder)
    if teacher is not None and whiten:
        raise ConfigError(
            "whitened vectors cannot imitate others", hint="whiten in a later run, on pairs"
        )
    config = _config_of(encoder, train, config)
    distinct = TextFile.distinct(documents_of(texts, "texts"))
    truncating = _truncating(encoder, config.max_length)
    kind: type[TextObjective] = entry.load()
    training_objective = kind.create(
        truncating,
        distinct,
        teacher=teacher,
        config=config,
        workers=Workers.join(encoder.model.network.device),
    )
    source = ShuffledEpochs(len(distinct), rows=config.batch_size, seed=config.seed)
    session = TrainingSession(
        encoder.model,
        out=output_dir,
        config=config,
        steps=epochs * source.steps if steps is None else steps,
        train=train,
        lora=lora,
        unfreeze_original_rows=unfreeze_original_rows,
        modules=training_objective.modules,
        heads=False,
        tensorboard=tensorboard,
    )
    session.begin(
        {
            "encoder": encoder.fingerprint,
            "texts": training_objective.fingerprint,
            "objective": objective,
            "whiten": whiten,
        }
    )
    if whiten:
        _project(session, encoder, distinct, whiten=True)
        truncating.projection = encoder.projection
    session.train(training_objective, source)
    session.publish(encoder.save)
    return encoder


def _try(options: dict[str, Any], encoder: Encoder, pairs: Sequence[Pair], folder: Path) -> Encoder:
    """Tune for a few steps, to choose the number of layers by; see `TrialRun`."""
    config = _config_of(encoder, options["train"], options["config"])
    steps = options["steps"]
    if steps is None:
        steps = options["epochs"] * ShuffledEpochs(len(pairs), rows=config.batch_size).steps
    changed = {"config": config, "steps": min(_TRIAL_STEPS, steps), "counts": EncodingCounts()}
    return tune(encoder, pairs, output_dir=folder, **options | changed)


def _config_of(
    encoder: Encoder, train: Train, config: TrainingConfig | Mapping[str, Any] | None
) -> TrainingConfig:
    """Return whole settings: `tuning_config`'s, with those that a dict names."""
    if config is None or isinstance(config, Mapping):
        return tuning_config(encoder, train, **(config or {}))
    return TrainingConfig.of(config)


def _project(
    session: TrainingSession, encoder: Encoder, texts: Sequence[str], *, whiten: bool
) -> None:
    """Fit a projection once and store it, so that a resumed run finds the same axes."""
    path = session.folder.path / "projection.safetensors"

    def fit() -> None:
        if not path.exists():
            encoder.project(texts, whiten=whiten)
            assert encoder.projection is not None
            encoder.projection.save(path)

    session.on_first(fit)
    encoder.projection = Projection.load(path).to(encoder.model.network.device)
    if encoder.model.network.context_free:
        fold_projection(encoder)


def _widths(encoder: Encoder, dimensions: Iterable[int]) -> tuple[int, ...]:
    """Return the widths to train, the full width first."""
    whole = encoder.dimensions
    for size in (dimensions := list(iterate(dimensions, "dimensions", "a list of numbers"))):
        if not 1 <= check_whole(size, "dimensions") <= whole:
            raise ConfigError(
                f"{size} dimensions; the model has {whole}", hint=f"numbers from 1 to {whole}"
            )
    return tuple(sorted({whole, *dimensions}, reverse=True))


def _truncating(encoder: Encoder, length: int) -> Encoder:
    """Return the encoder, truncating texts at `length` tokens if that is shorter than its own."""
    return encoder if length >= encoder.max_length else encoder.with_changes(max_length=length)
