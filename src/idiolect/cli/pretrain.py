"""`idiolect pretrain`: train a language model on text, from a published model or from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idiolect.cli.text_options import (
    FieldOption,
    MaxUnreadableOption,
    SourcesArgument,
    UnitOption,
    report_skipped,
)
from idiolect.cli.training_options import (
    TRAIN,
    UNFREEZE,
    BatchSizeOption,
    LearningRateOption,
    LoraModulesOption,
    LoraRankOption,
    MaxLengthOption,
    MicroBatchSizeOption,
    PrecisionOption,
    RunFolderOption,
    SaveStepsOption,
    TensorboardOption,
    TrainedPart,
    given,
    local_device,
    lora_config,
    objective_help,
)
from idiolect.errors import ConfigError
from idiolect.text.skipped import MAX_UNREADABLE
from idiolect.training.objectives.objective_registry import find_objective

if TYPE_CHECKING:
    from idiolect.models.language_model import LanguageModel

__all__ = ["pretrain"]

_CHOICES = ("steps", "train", "objective", "unfreeze_original_rows")


def pretrain(
    model: Annotated[
        str,
        typer.Argument(
            help="The model: a directory or a hub id. With --config, the new model's tokenizer."
        ),
    ],
    sources: SourcesArgument,
    out: RunFolderOption,
    steps: Annotated[int | None, typer.Option(help="Total steps.", min=1)] = None,
    train: Annotated[TrainedPart | None, TRAIN] = None,
    objective: Annotated[
        str | None,
        typer.Option(help=f"{objective_help('pretrain')} Default: the one that fits the model."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Train from scratch: .toml or .json with the model config."),
    ] = None,
    replay: Annotated[
        list[str] | None, typer.Option(help="General text to mix in against forgetting.")
    ] = None,
    replay_share: Annotated[
        float, typer.Option(help="Share of --replay, in characters.", min=0, max=1)
    ] = 0.1,
    field: FieldOption = None,
    per: UnitOption = "line",
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    unfreeze_original_rows: Annotated[bool | None, UNFREEZE] = None,
    lora_r: LoraRankOption = 8,
    lora_target_modules: LoraModulesOption = "query,value",
    max_length: MaxLengthOption = None,
    batch_size: BatchSizeOption = None,
    micro_batch_size: MicroBatchSizeOption = None,
    learning_rate: LearningRateOption = None,
    schedule: Annotated[
        Literal["cosine", "wsd"] | None, typer.Option(help="Learning-rate decay after warm-up.")
    ] = None,
    precision: PrecisionOption = None,
    save_steps: SaveStepsOption = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.", min=0)] = None,
    sharded: Annotated[
        bool, typer.Option("--sharded", help="Under torchrun: shard the weights (FSDP2).")
    ] = False,
    tensorboard: TensorboardOption = False,
) -> None:
    """Train a language model on text. Run it again to resume.

    OUT also holds checkpoints and metrics.jsonl. Original embedding rows never change unless they
    are unfrozen.

    Example: [bold]idiolect pretrain ./gpt2-medical abstracts.jsonl --train rows --steps 2000
    --replay books/ -o runs/rows[/bold]

    From scratch: [bold]idiolect pretrain ./tokenizer books/ --config small.toml -o runs/new[/bold]
    The file has two tables: `model` with the fields of a config.json, and `training` with steps,
    batch_size, learning_rate and so on.
    """
    from idiolect.models.language_model import LanguageModel
    from idiolect.text.corpus import Corpus
    from idiolect.training.pretrain import pretrain as run
    from idiolect.training.training_config import TrainingConfig

    if objective is not None:
        find_objective("pretrain", objective)
    shape, table = ({}, {}) if config is None else _read(config)
    settings = table | given(
        steps=steps,
        train=train,
        objective=objective,
        unfreeze_original_rows=unfreeze_original_rows,
        max_length=max_length,
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        learning_rate=learning_rate,
        schedule=schedule,
        precision=precision,
        save_steps=save_steps,
        seed=seed,
    )
    choices = {name: settings.pop(name) for name in _CHOICES if name in settings}
    plan = TrainingConfig.from_dict(settings)
    if "steps" not in choices:
        raise ConfigError("the number of steps is missing", hint="give --steps")
    if config is None:
        start = LanguageModel.load(model, device=local_device())
    else:
        start = _new(shape, model, plan.seed)
        choices = {"train": "all", "unfreeze_original_rows": True} | choices
    reading: dict[str, Any] = {"per": per, "max_unreadable": max_unreadable}
    corpus = Corpus(sources, field, **reading)
    replayed = Corpus(replay, field, **reading) if replay else None
    run(
        start,
        corpus,
        output_dir=out,
        replay=replayed,
        replay_share=replay_share,
        lora=lora_config(lora_r, lora_target_modules),
        config=plan,
        sharded=sharded,
        tensorboard=tensorboard,
        **choices,
    )
    report_skipped(corpus.skipped)
    if replayed is not None:
        report_skipped(replayed.skipped, "the replayed text")
    typer.echo(f"the model is in {out / 'model'}")


def _new(shape: dict[str, Any], tokenizer: str, seed: int) -> LanguageModel:
    from idiolect.models.language_model import LanguageModel
    from idiolect.text.tokenizers.tokenizer import Tokenizer

    model = LanguageModel.new(shape, Tokenizer.load(tokenizer), seed=seed)
    model.network.to(local_device())
    return model


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the model config and the training settings of a file."""
    import tomllib

    from idiolect.text.files import read_json, read_text

    if path.suffix == ".toml":
        try:
            values = tomllib.loads(read_text(path))
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: {error}", hint="see toml.io for the syntax") from error
    else:
        values = read_json(path)
    if "model_type" in values:
        return values, {}
    shape, training = values.get("model"), values.get("training", {})
    if not isinstance(shape, dict) or not isinstance(training, dict):
        raise ConfigError(
            f"{path} has no table [model]", hint="add one with the fields of a config.json"
        )
    return shape, training
