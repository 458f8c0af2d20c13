"""`idiolect pretrain`: train a language model on text, from a published model or from scratch."""

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
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run. Model: OUT/model.")],
    steps: Annotated[int | None, typer.Option(help="Total steps.")] = None,
    train: Annotated[
        Literal["rows", "rows+lora", "body", "all"] | None,
        typer.Option(help="What to train: new rows, with LoRA, the body, or all but old rows."),
    ] = None,
    objective: Annotated[
        Literal["causal", "masked"] | None,
        typer.Option(help="Predict next or masked tokens. Default: by the model type."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Train from scratch: .toml or .json with the model config."),
    ] = None,
    replay: Annotated[
        list[str] | None, typer.Option(help="General text to mix in against forgetting.")
    ] = None,
    replay_share: Annotated[float, typer.Option(help="Share of --replay, in characters.")] = 0.1,
    field: Annotated[list[str] | None, typer.Option(help="Text field; repeatable.")] = None,
    per: Annotated[
        Literal["line", "file"], typer.Option(help="Unit of a document in .txt files.")
    ] = "line",
    unfreeze_original_rows: Annotated[
        bool | None, typer.Option("--unfreeze-original-rows", help="Train original rows too.")
    ] = None,
    lora_r: Annotated[int, typer.Option(help="LoRA rank.")] = 8,
    lora_target_modules: Annotated[
        str, typer.Option(help="LoRA target modules: of query,key,value,output,gate,up,down.")
    ] = "query,value",
    max_length: Annotated[int | None, typer.Option(help="Tokens per row.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows per step.")] = None,
    micro_batch_size: Annotated[int | None, typer.Option(help="Rows per forward pass.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", "--lr")] = None,
    schedule: Annotated[
        Literal["cosine", "wsd"] | None, typer.Option(help="Learning-rate decay after warm-up.")
    ] = None,
    save_steps: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.")] = None,
    sharded: Annotated[
        bool, typer.Option("--sharded", help="Under torchrun: shard the weights (FSDP2).")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard events.")
    ] = False,
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
        "max_length": max_length,
        "batch_size": batch_size,
        "micro_batch_size": micro_batch_size,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "save_steps": save_steps,
        "seed": seed,
    }
    settings = table | {name: value for name, value in given.items() if value is not None}
    choices = {name: settings.pop(name) for name in _CHOICES if name in settings}
    plan = TrainingConfig.from_dict(settings)
    if "steps" not in choices:
        raise ConfigError("the number of steps is missing", hint="give --steps")
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
            output_dir=out,
            replay=Corpus(replay, field, per=per) if replay else None,
            replay_share=replay_share,
            lora=LoraConfig(
                r=lora_r,
                lora_alpha=2.0 * lora_r,
                target_modules=tuple(lora_target_modules.split(",")),
            ),
            config=plan,
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
    """Return the GPU of this process, or the CPU."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


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
