"""`tune`: train an encoder on query-document pairs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from idiolect.encoding.depth import Layers, choose_depth, with_layers
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.mining import Miner, Mining
from idiolect.encoding.objectives.contrastive import ContrastiveObjective
from idiolect.encoding.pairs import Pair, PairFile, PairTable
from idiolect.encoding.static_encoder import should_whiten
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.encoding.tune_on_text import tune_on_text
from idiolect.encoding.tuning_setup import (
    TuningRun,
    check_trainable,
    complete_config,
    truncating,
)
from idiolect.errors import ConfigError
from idiolect.nn.lora import LoraConfig
from idiolect.text.arguments import check_whole, checked, iterate, load_if_named, wrong_type
from idiolect.text.corpus import documents_of
from idiolect.text.headings import split_sections, split_title
from idiolect.text.text_file import TextFile
from idiolect.training.data.shuffled_epochs import ShuffledEpochs
from idiolect.training.objectives.contrastive_losses import ContrastiveLoss, InfoNCE, Matryoshka
from idiolect.training.optim import Train
from idiolect.training.progress import notice
from idiolect.training.training_config import TrainingConfig

__all__ = ["tune"]

_LOG = logging.getLogger(__name__)
_WITHOUT_PAIRS = "crops"
"""The objective without pairs. Crops exist for every text; used alone, they were the best or within
.003 of it on docstrings and abstracts (`benchmarks/tuning_without_pairs.py`)."""
_TRIAL_STEPS = 60
"""Training steps of each candidate when the number of layers is chosen."""


@checked
def tune(
    encoder: Encoder,
    pairs: str | Path | Iterable[Pair] | None = None,
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

    The other documents of a batch are the negatives of a pair, except the known positives of its
    query (from any pair) and documents with equal texts. The original embedding rows are frozen
    unless `unfreeze_original_rows` is set. Under `torchrun` every process calls this with the same
    arguments; the result does not depend on the number of processes.

    Args:
        encoder: The encoder, whose network is changed in place; or a name or path to load.
        pairs: The pairs, or a file of them; see `idiolect.encoding.pairs`. A pair may also be a
            tuple of two texts, or a dict. Without pairs, the encoder is trained on crops of the
            texts of `corpus`. A notice then says how many texts have titles and headings, which
            `tune_on_text` can train on.
        output_dir: The run's folder; see `RunFolder`. The finished encoder is in
            `output_dir/model`.
        layers: Use only the first layers of the model, as in `Encoder`. `auto` chooses among a few
            depths by held-out queries, and writes their scores and costs to
            `output_dir/depths.json`; see `idiolect.encoding.depth`.
        loss: The loss; see `idiolect.training.objectives.contrastive_losses`. By default
            `InfoNCE()`.
        dimensions: Shorter widths at which vectors should also be good (Matryoshka). An encoder
            without a projection gets one, so that its first dimensions are the principal axes.
        whiten: First fit a whitening projection to the documents of the pairs, for a model that was
            not trained as an encoder; see `Encoder.project`. By default, only for a static encoder
            that is not whitened yet.
        mining: Add hard negatives to each pair, mined again in each epoch.
        corpus: Further documents among which negatives are mined; without pairs, the texts to
            train on.
        epochs: Epochs over the pairs.
        steps: Steps of the whole run, instead of `epochs`.
        train: Which parameters to train: `rows`, the added embedding rows; `rows+lora`, added rows
            and LoRA adapters, which are merged at the end and also saved in `output_dir/adapter`;
            `body`, everything except embedding rows; `all`, everything except the original rows.
            For a static encoder, `all` trains every row of its own copy of the table; `rows`
            freezes the original rows, and trains added rows, token weights and a projection.
        lora: Rank and targets of the adapters.
        unfreeze_original_rows: Also train the original rows.
        config: Training settings, by default those of `tuning_config`; a dict changes some of
            these. `micro_batch_size` is the number of texts whose activations are held in memory;
            with gradient caching the loss is the same.
        tensorboard: Write TensorBoard events to `output_dir/events`.
        counts: Updated with the numbers of texts read. Without it, truncated texts are logged as a
            warning.

    Returns:
        The encoder, trained, in evaluation mode.

    Raises:
        InputError: The pairs cannot be read or do not fit the loss, there is nothing to train, or
            the disk has no room for the run.
        ConfigError: More dimensions than the encoder has, fewer than one step, or an option that
            needs pairs without any.
        CheckpointError: `output_dir` holds another run, or its checkpoint is damaged.
        TrainingError: The loss is not finite or explodes.
        VerificationError: Frozen original rows have changed.
    """
    encoder = check_trainable(load_if_named(encoder, Encoder, "encoder"))
    dimensions = tuple(iterate(dimensions, "dimensions", "a list of numbers"))
    options: dict[str, Any] = {
        "whiten": whiten,
        "epochs": epochs,
        "steps": steps,
        "train": train,
        "lora": lora,
        "unfreeze_original_rows": unfreeze_original_rows,
        "config": config,
    }
    if pairs is None:
        _refuse_without_pairs(
            loss=loss, dimensions=dimensions, mining=mining, **{"layers='auto'": layers == "auto"}
        )
        start = with_layers(encoder, layers) if isinstance(layers, int) else encoder
        options |= {"output_dir": output_dir, "tensorboard": tensorboard}
        return tune_on_text(start, _tell_signals(corpus), objective=_WITHOUT_PAIRS, **options)
    if isinstance(pairs, str | Path):
        pairs = PairFile(pairs)
    if layers == "auto":
        pairs = list(pairs)
        trial = partial(_try, options | {"loss": loss, "dimensions": dimensions})
        layers = choose_depth(encoder, pairs, trial, Path(output_dir))
    if layers is not None:
        encoder = with_layers(encoder, layers)
    config = complete_config(encoder, train, config)
    table = PairTable.of(pairs, documents_of(corpus, "corpus"))
    whiten = should_whiten(encoder) if whiten is None else whiten
    widths = _widths(encoder, dimensions)
    criterion = _criterion(encoder, loss, widths)
    if len(table) < config.batch_size:
        _LOG.warning("a step has all %d pairs, not %d", len(table), config.batch_size)
    source = ShuffledEpochs(len(table), rows=config.batch_size, seed=config.seed)
    run = TuningRun(
        encoder,
        output_dir=output_dir,
        config=config,
        steps=epochs * source.steps if steps is None else steps,
        train=train,
        lora=lora,
        unfreeze_original_rows=unfreeze_original_rows,
        tensorboard=tensorboard,
    )
    record = {
        "pairs": table.fingerprint,
        "loss": repr(criterion),
        "mining": mining and asdict(mining),
    }
    rotate = len(widths) > 1 and encoder.projection is None
    run.begin(record, table.documents, whiten=whiten, rotate=rotate)
    cut = truncating(encoder, config.max_length)
    miner = None
    if mining is not None:
        # Mine with the encoder's full text length, as in a search, even if training truncates more.
        mined = run.session.folder.path / "mined"
        workers = run.session.workers
        miner = Miner(encoder, table, mining, mined, seed=config.seed, workers=workers)
    objective = ContrastiveObjective(
        cut,
        table,
        criterion,
        miner=miner,
        micro_batch_size=config.micro_batch_size,
        workers=run.session.workers,
    )
    run.train(objective, source)
    _tell_truncated(objective.counts, counts, cut.max_length)
    encoder.trained_dimensions = widths[1:] or encoder.trained_dimensions
    run.publish()
    return encoder


def _criterion(
    encoder: Encoder, loss: ContrastiveLoss | None, widths: tuple[int, ...]
) -> ContrastiveLoss:
    """Return the loss, applied at all widths if there are several."""
    if loss is not None and not callable(loss):
        raise wrong_type(loss, "loss", "a loss", "such as InfoNCE()")
    criterion = InfoNCE() if loss is None else loss
    if len(widths) > 1:
        return Matryoshka(criterion, widths, normalize=encoder.normalize)
    return criterion


def _tell_truncated(read: EncodingCounts, counts: EncodingCounts | None, length: int) -> None:
    """Add `read` to the caller's counts; without these, warn if texts were truncated."""
    if counts is not None:
        counts.add(read)
    elif read.truncated:
        _LOG.warning(
            "%.0f%% of the texts read are longer than %d tokens and were truncated",
            *(100 * read.truncated / read.texts, length),
        )


def _tell_signals(corpus: Iterable[str]) -> Sequence[str]:
    """Store the distinct texts, and print how many have titles and headings."""
    texts = TextFile.distinct(documents_of(corpus, "corpus"))
    titles = sum(split_title(text) is not None for text in texts)
    headings = sum(bool(split_sections(text)) for text in texts)
    notice(
        f"no pairs: training on {_WITHOUT_PAIRS} of {len(texts):,} texts, of which {titles:,} have "
        f"a title and {headings:,} a heading (see the objectives titles, headings and parts)"
    )
    return texts


def _refuse_without_pairs(**options: object) -> None:
    for name, value in options.items():
        if value:
            raise ConfigError(f"{name} needs pairs, and there are none", hint="pass pairs")


def _try(options: dict[str, Any], encoder: Encoder, pairs: Sequence[Pair], folder: Path) -> Encoder:
    """Tune for a few steps, to compare numbers of layers; see `TrialRun`."""
    config = complete_config(encoder, options["train"], options["config"])
    steps = options["steps"]
    if steps is None:
        steps = options["epochs"] * ShuffledEpochs(len(pairs), rows=config.batch_size).steps
    changed = {"config": config, "steps": min(_TRIAL_STEPS, steps), "counts": EncodingCounts()}
    return tune(encoder, pairs, output_dir=folder, **options | changed)


def _widths(encoder: Encoder, dimensions: Sequence[int]) -> tuple[int, ...]:
    """Return the widths to train, the full width first."""
    whole = encoder.dimensions
    for size in dimensions:
        if not 1 <= check_whole(size, "dimensions") <= whole:
            raise ConfigError(
                f"{size} dimensions; the model has {whole}", hint=f"numbers from 1 to {whole}"
            )
    return tuple(sorted({whole, *dimensions}, reverse=True))
