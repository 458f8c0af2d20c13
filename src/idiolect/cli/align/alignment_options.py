"""Options that the alignment commands share, and the settings made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from idiolect.cli.refusals import refuse_lora
from idiolect.cli.training_options import given, lora_config

__all__ = [
    "ChatOption",
    "DataArgument",
    "ModelArgument",
    "StepsOption",
    "TrainOption",
    "training_plan",
]

ModelArgument = Annotated[
    str, typer.Argument(help="The model: a directory, a GGUF file, a package's model or a hub id.")
]
DataArgument = Annotated[
    Path, typer.Argument(help="JSON Lines, JSON, Parquet or CSV file; may be compressed.")
]
TrainOption = Annotated[
    Literal["lora", "all", "body", "rows"],
    typer.Option(help="Which parameters train: adapters (and new rows), all but original rows, …"),
]
StepsOption = Annotated[
    int | None, typer.Option(help="Total steps, instead of --epochs.", min=1, max=10**9)
]
ChatOption = Annotated[
    bool | None,
    typer.Option(
        "--chat/--plain",
        help="Whether to wrap a plain prompt as a user message in the chat template. Default: if "
        "the model has one.",
    ),
]


def training_plan(
    context: typer.Context,
    train: str,
    lora_r: int,
    lora_target_modules: str,
    *,
    usual_rate: float,
    learning_rate: float | None,
    **values: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the keyword arguments of a run, and the given fields of its `TrainingConfig`.

    Adapters train with ten times the default learning rate.

    Raises:
        ConfigError: Options of adapters were given, and none train.
    """
    lora = train == "lora"
    if not lora:
        refuse_lora(context, f"--train {train}")
    run = {
        "train": "rows+lora" if lora else train,
        "lora": lora_config(lora_r, lora_target_modules) if lora else None,
    }
    if learning_rate is None:
        learning_rate = usual_rate * (10 if lora else 1)
    return run, given(learning_rate=learning_rate, **values)
