"""`idiolect translate train`: train a translator on two files of aligned lines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from idiolect.cli.refusals import refuse_unused
from idiolect.cli.text_options import MaxUnreadableOption, report_skipped
from idiolect.cli.training_options import (
    LearningRateOption,
    MaxLengthOption,
    PrecisionOption,
    RunFolderOption,
    SaveStepsOption,
    TensorboardOption,
    given,
    local_device,
)
from idiolect.errors import ConfigError
from idiolect.models.translators import TRANSLATORS
from idiolect.text.skipped import MAX_UNREADABLE, Skipped

__all__ = ["train"]


def train(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(help="File with one text per line; optionally compressed.")
    ],
    target: Annotated[Path, typer.Argument(help="File with the translation of each line.")],
    out: RunFolderOption,
    architecture: Annotated[
        str, typer.Option(help=f"A new model: {', '.join(TRANSLATORS)}, or a config.json.")
    ] = "transformer",
    model: Annotated[
        str | None,
        typer.Option(help="Continue training this model instead: a directory or a hub id."),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="The new model's tokenizer. Default: trained on the pairs.")
    ] = None,
    vocab_size: Annotated[
        int, typer.Option(help="Vocabulary size of the joint BPE.", min=260, max=1_000_000)
    ] = 8000,
    steps: Annotated[int, typer.Option(help="Total steps.", min=1)] = 10_000,
    batch_tokens: Annotated[
        int, typer.Option(help="Size of a batch: rows times the longest text.", min=1)
    ] = 4096,
    label_smoothing: Annotated[float, typer.Option(help="Label smoothing.", min=0)] = 0.1,
    average_checkpoints: Annotated[
        int, typer.Option(help="Average this many last checkpoints.", min=1, max=1000)
    ] = 5,
    max_length: MaxLengthOption = None,
    learning_rate: LearningRateOption = None,
    schedule: Annotated[
        Literal["inverse_sqrt", "cosine", "wsd"],
        typer.Option(help="Learning-rate decay after warm-up."),
    ] = "inverse_sqrt",
    warmup_steps: Annotated[int, typer.Option(help="Warm-up steps.", min=0)] = 1000,
    precision: PrecisionOption = None,
    save_steps: SaveStepsOption = None,
    seed: Annotated[int, typer.Option(help="Random seed.", min=0)] = 0,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    tensorboard: TensorboardOption = False,
) -> None:
    """Train a translator on pairs of texts. Run it again to resume.

    Line n of one file is the translation of line n of the other.

    Example: [bold]idiolect translate train train.de train.en --architecture bahdanau --steps 3000
    -o runs/de-en[/bold]
    """
    from idiolect.models.language_model import LanguageModel
    from idiolect.text.files import read_json
    from idiolect.text.parallel_text import read_parallel
    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.training.training_config import TrainingConfig
    from idiolect.training.translate import learn_joint_bpe, new_translator, train_translator

    if model is not None and tokenizer is not None:
        raise ConfigError(
            "--tokenizer is for a new model, and --model has its own", hint="omit one of them"
        )
    if model is not None:
        refuse_unused(
            context, "--model is trained instead of a new one", "architecture", "vocab_size"
        )
    if tokenizer is not None:
        refuse_unused(context, "--tokenizer has its own", "vocab_size")
    if architecture in TRANSLATORS:
        settings = TRANSLATORS[architecture]
    elif Path(architecture).is_file():
        settings = read_json(Path(architecture))
    else:
        raise ConfigError(
            f"unknown architecture {architecture!r}",
            hint=f"one of {', '.join(TRANSLATORS)}, or the path of a config.json",
        )
    plan = TrainingConfig(
        warmup_ratio=min(1.0, warmup_steps / steps),
        schedule=schedule,
        adam_beta2=0.98,
        weight_decay=1e-4,
        seed=seed,
        **given(
            max_length=max_length,
            learning_rate=2e-3 if model is None and learning_rate is None else learning_rate,
            precision=precision,
            save_steps=save_steps,
        ),
    )
    skipped = Skipped()
    pairs = read_parallel(source, target, max_unreadable=max_unreadable, skipped=skipped)
    if model is not None:
        start = LanguageModel.load(model, device=local_device())
    else:
        known = Tokenizer.load(tokenizer) if tokenizer else learn_joint_bpe(pairs, vocab_size)
        start = new_translator(settings, known, seed=seed)
        start.network.to(local_device())
    train_translator(
        start,
        pairs,
        output_dir=out,
        steps=steps,
        batch_tokens=batch_tokens,
        label_smoothing=label_smoothing,
        unfreeze_original_rows=model is None,
        average_checkpoints=average_checkpoints,
        config=plan,
        tensorboard=tensorboard,
    )
    report_skipped(skipped)
    typer.echo(f"the model is in {out / 'model'}")
