"""`idiolect align reward`: train a reward model, and compare it with baselines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idiolect.cli.align.alignment_options import DataArgument, ModelArgument, StepsOption
from idiolect.cli.refusals import refuse_epochs
from idiolect.cli.text_options import MaxUnreadableOption, report_skipped
from idiolect.cli.training_options import (
    BatchSizeOption,
    CheckpointingOption,
    EpochsOption,
    LearningRateOption,
    MaxLengthOption,
    MicroBatchSizeOption,
    PrecisionOption,
    RunFolderOption,
    SaveStepsOption,
    SeedOption,
    TensorboardOption,
    given,
    local_device,
)
from idiolect.text.skipped import MAX_UNREADABLE

if TYPE_CHECKING:
    from idiolect.alignment.reward.reward_evaluation import RewardScores

__all__ = ["reward", "show_agreement"]


def reward(
    context: typer.Context,
    model: ModelArgument,
    data: DataArgument,
    out: RunFolderOption,
    valid: Annotated[
        Path | None, typer.Option(help="Held-out preferences to evaluate the reward model on.")
    ] = None,
    centre_rewards: Annotated[
        float, typer.Option(help="Weight that keeps scores around zero.", min=0, max=100)
    ] = 0.01,
    layers: Annotated[
        int | None, typer.Option(help="Keep only the first layers of the model.", min=1, max=1000)
    ] = None,
    train: Annotated[
        Literal["all", "body"],
        typer.Option(help="What trains: all but original rows, or the body."),
    ] = "all",
    epochs: EpochsOption = 1,
    steps: StepsOption = None,
    max_length: MaxLengthOption = None,
    batch_size: BatchSizeOption = None,
    micro_batch_size: MicroBatchSizeOption = None,
    learning_rate: LearningRateOption = None,
    gradient_checkpointing: CheckpointingOption = None,
    precision: PrecisionOption = None,
    save_steps: SaveStepsOption = None,
    seed: SeedOption = 0,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    tensorboard: TensorboardOption = False,
) -> None:
    """Train a reward model on preferences. Run it again to resume.

    The base may be an encoder or a decoder. Records hold `prompt`, `chosen` and `rejected`, and
    optionally a `margin`. With --valid, OUT/agreement.json has the agreement by confidence and
    length.

    Example: [bold]idiolect align reward minilm pairs.jsonl --valid held-out.jsonl --epochs 3
    -o runs/reward[/bold]
    """
    from idiolect.alignment.preference.preferences import read_preferences
    from idiolect.alignment.reward.reward_evaluation import TfidfReward, evaluate_margins
    from idiolect.alignment.reward.reward_model import RewardModel
    from idiolect.alignment.reward.reward_objective import reward_config, train_reward
    from idiolect.models.language_model import LanguageModel
    from idiolect.text.files import write_atomic
    from idiolect.text.skipped import Skipped

    refuse_epochs(context, steps)
    config = reward_config(
        seed=seed,
        **given(
            batch_size=batch_size,
            micro_batch_size=micro_batch_size,
            learning_rate=learning_rate,
            gradient_checkpointing=gradient_checkpointing,
            precision=precision,
            save_steps=save_steps,
        ),
    )
    skipped, held_skipped = Skipped(), Skipped()
    pairs = read_preferences(data, skipped=skipped, max_unreadable=max_unreadable)
    held_out = (
        read_preferences(valid, skipped=held_skipped, max_unreadable=max_unreadable)
        if valid
        else []
    )
    report_skipped(skipped, data.name)
    report_skipped(held_skipped, "the validation data")
    base = LanguageModel.load(model, device=local_device())
    if layers is not None:
        from idiolect.models.shallow import first_layers

        base = first_layers(base, layers)
    made = train_reward(
        RewardModel.of(base, max_length=max_length, seed=seed),
        pairs,
        output_dir=out,
        centre_rewards=centre_rewards,
        epochs=epochs,
        steps=steps,
        train=train,
        config=config,
        tensorboard=tensorboard,
    )
    typer.echo(f"the reward model is in {out / 'model'}")
    if held_out:
        found = {
            "reward model": evaluate_margins(held_out, made.margins(held_out)),
            "TF-IDF": evaluate_margins(held_out, TfidfReward(pairs).margins(held_out)),
        }
        report: dict[str, Any] = {name: scores.as_dict() for name, scores in found.items()}
        write_atomic(out / "agreement.json", f"{json.dumps(report, indent=2)}\n".encode())
        show_agreement(found)


def show_agreement(found: dict[str, RewardScores]) -> None:
    """Print agreement, calibration and the correlation with length of several judges."""
    from rich.console import Console
    from rich.table import Table

    first = next(iter(found.values()))
    table = Table(title=f"{first.pairs:,} pairs", title_justify="left")
    for name in ("judge", "agreement", "95 %", "NLL", "ECE", "length ρ"):
        table.add_column(name, justify="left" if name == "judge" else "right", no_wrap=True)
    for name, one in found.items():
        table.add_row(
            name,
            f"{one.agreement:.3f}",
            f"{one.low:.3f}-{one.high:.3f}",
            f"{one.nll:.3f}",
            f"{one.calibration_error:.3f}",
            f"{one.length_correlation:+.2f}",
        )
    table.add_row("the longer one", f"{first.longer_wins:.3f}", "", "", "", "+1.00")
    Console().print(table)
    bands = ", ".join(
        f"{band.low:+.0f}…{band.high:+.0f}: {band.agreement:.2f}" for band in first.by_length
    )
    typer.echo(f"agreement by how much longer the chosen answer is, in characters: {bands}")
