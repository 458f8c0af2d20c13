"""`tune_on_text`: train an encoder on texts without pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# Registers the objectives that train an encoder on text.
import idiolect.encoding.objectives  # noqa: F401
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.objectives.text_objective import TextObjective
from idiolect.encoding.static_encoder import should_whiten
from idiolect.encoding.tuning_setup import (
    TuningRun,
    check_trainable,
    complete_config,
    truncating,
)
from idiolect.errors import ConfigError
from idiolect.nn.lora import LoraConfig
from idiolect.text.arguments import checked, load_if_named
from idiolect.text.corpus import documents_of
from idiolect.text.text_file import TextFile
from idiolect.training.data.shuffled_epochs import ShuffledEpochs
from idiolect.training.distributed import Workers
from idiolect.training.objectives.objective_registry import check_kind, find_objective
from idiolect.training.optim import Train
from idiolect.training.training_config import TrainingConfig

__all__ = ["tune_on_text"]


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
            words of a text are a query that should find the rest of it; `titles`, `headings`: its
            title, or a heading, is the query; `parts`: any of these three; `tsdae`: reconstruct a
            text from the vector of a damaged copy; `imitate`: reproduce the vectors of `teacher`.
        teacher: For `imitate`: the encoder before its vocabulary was extended, on the same device.
        whiten: First fit a whitening projection to these texts, as in `tune`.
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
    encoder = check_trainable(load_if_named(encoder, Encoder, "encoder"))
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
    config = complete_config(encoder, train, config)
    distinct = TextFile.distinct(documents_of(texts, "texts"))
    cut = truncating(encoder, config.max_length)
    kind: type[TextObjective] = entry.load()
    training_objective = kind.create(
        cut,
        distinct,
        teacher=teacher,
        config=config,
        workers=Workers.join(encoder.model.network.device),
    )
    source = ShuffledEpochs(len(training_objective), rows=config.batch_size, seed=config.seed)
    run = TuningRun(
        encoder,
        output_dir=output_dir,
        config=config,
        steps=epochs * source.steps if steps is None else steps,
        train=train,
        lora=lora,
        unfreeze_original_rows=unfreeze_original_rows,
        modules=training_objective.modules,
        tensorboard=tensorboard,
    )
    record = {"texts": training_objective.fingerprint, "objective": objective}
    run.begin(record, distinct, whiten=whiten)
    cut.projection = encoder.projection
    run.train(training_objective, source)
    run.publish()
    return encoder
