"""`idiolect pretrain`: train a model on text, from a published one or from nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idiolect.errors import ConfigError

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
    sources: Annotated[
        list[str],
        typer.Argument(help="Files, folders or globs: .txt .jsonl .csv .tsv .parquet, also .gz"),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; see below.")],
    steps: Annotated[int | None, typer.Option(help="Steps of the whole run.")] = None,
    train: Annotated[
        Literal["rows", "rows+lora", "body", "all"] | None,
        typer.Option(help="What trains: new rows, also adapters, the body, or all but old rows."),
    ] = None,
    objective: Annotated[
        Literal["causal", "masked"] | None,
        typer.Option(help="Predict the next token or hidden ones; by default as the model reads."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Train from nothing: .toml or .json with the shape of the model."),
    ] = None,
    replay: Annotated[
        list[str] | None, typer.Option(help="General text, mixed in against forgetting.")
    ] = None,
    replay_share: Annotated[float, typer.Option(help="Its share of the characters.")] = 0.1,
    field: Annotated[
        list[str] | None, typer.Option(help="Field that holds the text; may be given again.")
    ] = None,
    per: Annotated[
        Literal["line", "file"], typer.Option(help="What a document is in .txt files.")
    ] = "line",
    unfreeze_original_rows: Annotated[
        bool | None, typer.Option("--unfreeze-original-rows", help="Train published rows as well.")
    ] = None,
    rank: Annotated[int, typer.Option(help="Rank of adapters.")] = 8,
    adapt: Annotated[
        str, typer.Option(help="Maps that get adapters, of query,key,value,output,gate,up,down.")
    ] = "query,value",
    length: Annotated[int | None, typer.Option(help="Tokens a row.")] = None,
    batch: Annotated[int | None, typer.Option(help="Rows a step.")] = None,
    micro_batch: Annotated[int | None, typer.Option(help="Rows read at once.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", "--lr")] = None,
    schedule: Annotated[
        Literal["cosine", "wsd"] | None, typer.Option(help="How the rate falls after warm-up.")
    ] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    seed: Annotated[int | None, typer.Option(help="Where chance begins.")] = None,
    sharded: Annotated[
        bool, typer.Option("--sharded", help="Under torchrun: divide the weights (FSDP2).")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write events for TensorBoard.")
    ] = False,
) -> None:
    """Train a model on text. The same command goes on with a run that was ended.

    The finished model is in OUT/model; OUT also holds the checkpoints and metrics.jsonl. Published
    embedding rows never move unless they are unfrozen.

    Example: [bold]idiolect pretrain ./gpt2-medical abstracts.jsonl --train rows --steps 2000
    --replay books/ -o runs/rows[/bold]

    From nothing: [bold]idiolect pretrain ./tokenizer books/ --config small.toml -o runs/new[/bold]
    where the file has two tables: `model` with the fields of a config.json, and `training` with
    steps, batch, learning_rate and the like.
    """
    from idiolect.models.language_model import LanguageModel
    from idiolect.nn.lora import LoraConfig
    from idiolect.text.corpus import Corpus
    from idiolect.training.pretrain import pretrain as run
    from idiolect.training.training_config import TrainingConfig

    shape, table = ({}, {}) if config is None else _read(config)
    given = {
        "steps": steps,
        "train": train,
        "objective": objective,
        "unfreeze_original_rows": unfreeze_original_rows,
        "length": length,
        "batch": batch,
        "micro_batch": micro_batch,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "save_every": save_every,
        "seed": seed,
    }
    settings = table | {name: value for name, value in given.items() if value is not None}
    choices = {name: settings.pop(name) for name in _CHOICES if name in settings}
    plan = TrainingConfig.of(settings)
    if "steps" not in choices:
        raise ConfigError("how many steps?", hint="give --steps")
    if config is None:
        start = LanguageModel.load(model, device=_device())
    else:
        start = _new(shape, model, plan.seed)
        choices = {"train": "all", "unfreeze_original_rows": True} | choices
    reads_both_ways = start.network.decoder is None
    choices = {"objective": "masked" if reads_both_ways else "causal"} | choices
    try:
        run(
            start,
            Corpus(sources, field, per=per),
            out=out,
            replay=Corpus(replay, field, per=per) if replay else None,
            replay_share=replay_share,
            lora=LoraConfig(rank=rank, alpha=2.0 * rank, targets=tuple(adapt.split(","))),
            plan=plan,
            sharded=sharded,
            tensorboard=tensorboard,
            **choices,
        )
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    typer.echo(f"the model is in {out / 'model'}")


def _new(shape: dict[str, Any], tokenizer: str, seed: int) -> LanguageModel:
    from idiolect.models.language_model import LanguageModel
    from idiolect.text.tokenizers.tokenizer import Tokenizer

    model = LanguageModel.new(shape, Tokenizer.load(tokenizer), seed=seed)
    model.network.to(_device())
    return model


def _device() -> str:
    """Return this process's GPU, where the machine has any."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of the model and the training settings of a file."""
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
            f"{path} has no table [model]", hint="put the fields of a config.json into it"
        )
    return shape, training
