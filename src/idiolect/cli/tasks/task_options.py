"""Options that the commands of all tasks share, and the settings made from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from idiolect.cli.refusals import refuse_lora
from idiolect.cli.training_options import given, local_device

if TYPE_CHECKING:
    from idiolect.encoding.encoder import Encoder
    from idiolect.training.training_config import TrainingConfig

__all__ = [
    "AdaptationOption",
    "ErrorsOption",
    "JsonOption",
    "PredictionsOption",
    "load_base",
    "task_settings",
]

AdaptationOption = Annotated[
    Literal["full", "lora", "prefix", "prompt", "frozen"],
    typer.Option(
        help="What trains besides the head: the model, adapters, virtual tokens, or nothing."
    ),
]
ErrorsOption = Annotated[
    Path | None,
    typer.Option(
        help="Write an HTML page of the worst errors (and, for classify, tag and answer-span, "
        "the confusion matrix)."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PredictionsOption = Annotated[
    Path, typer.Option("--out", "-o", help="JSON Lines file of predictions.")
]


def task_settings(
    context: typer.Context,
    adaptation: Literal["full", "lora", "prefix", "prompt", "frozen"],
    batch_size: int | None,
    learning_rate: float | None,
    precision: str | None,
    save_steps: int | None,
    seed: int,
) -> TrainingConfig:
    """Return the training settings of a task: the defaults, overridden by the given options.

    Raises:
        ConfigError: Options of adapters were given, and there are none.
    """
    from idiolect.tasks.task_model import task_config

    if adaptation != "lora":
        refuse_lora(context, f"--adaptation {adaptation}")

    chosen = given(
        batch_size=batch_size,
        learning_rate=learning_rate,
        precision=precision,
        save_steps=save_steps,
    )
    return task_config(adaptation, seed=seed, **chosen)


def load_base(encoder: str, max_length: int | None, *, bidirectional: bool = False) -> Encoder:
    """Load the base of a task's model.

    Raises:
        ConfigError: `max_length` does not fit, or the base is already bidirectional.
    """
    from idiolect.encoding.encoder import Encoder

    base = Encoder.load(encoder, device=local_device())
    changes = given(max_length=max_length, bidirectional=bidirectional or None)
    return base.with_changes(**changes) if changes else base
