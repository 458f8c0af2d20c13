"""`idiolect align sft`: fine-tune a language model on conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from idiolect.cli.align.alignment_options import (
    DataArgument,
    ModelArgument,
    StepsOption,
    TrainOption,
    training_plan,
)
from idiolect.cli.refusals import refuse_epochs
from idiolect.cli.text_options import MaxUnreadableOption, report_skipped
from idiolect.cli.training_options import (
    BatchSizeOption,
    CheckpointingOption,
    EpochsOption,
    LearningRateOption,
    LoraModulesOption,
    LoraRankOption,
    MaxLengthOption,
    MicroBatchSizeOption,
    PrecisionOption,
    RunFolderOption,
    SaveStepsOption,
    SeedOption,
    TensorboardOption,
    local_device,
)
from idiolect.text.skipped import MAX_UNREADABLE

__all__ = ["sft"]


def sft(
    context: typer.Context,
    model: ModelArgument,
    data: DataArgument,
    out: RunFolderOption,
    valid: Annotated[
        Path | None, typer.Option(help="Held-out conversations for the validation loss.")
    ] = None,
    loss_on: Annotated[
        Literal["completion", "all"],
        typer.Option(help="Tokens with a loss: those that the assistant writes, or all."),
    ] = "completion",
    packing: Annotated[
        bool,
        typer.Option(
            "--packing", help="Fill rows with several conversations, masked from one another."
        ),
    ] = False,
    train: TrainOption = "all",
    lora_r: LoraRankOption = 8,
    lora_target_modules: LoraModulesOption = "query,value",
    epochs: EpochsOption = 3,
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
    """Fine-tune a language model on conversations. Run it again to resume.

    Records hold `messages`, ShareGPT's `conversations`, Alpaca's `instruction`, `input` and
    `output`, or `prompt` and `response`. Original embedding rows never change.

    Example: [bold]idiolect align sft smollm2 dolly.jsonl --steps 100 -o runs/sft[/bold]
    """
    from idiolect.alignment.chat.conversations import read_conversations
    from idiolect.alignment.chat.fine_tune import alignment_config, fine_tune
    from idiolect.models.language_model import LanguageModel
    from idiolect.text.skipped import Skipped

    refuse_epochs(context, steps)
    run, settings = training_plan(
        context,
        train,
        lora_r,
        lora_target_modules,
        usual_rate=2e-5,
        max_length=max_length,
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        learning_rate=learning_rate,
        gradient_checkpointing=gradient_checkpointing,
        precision=precision,
        save_steps=save_steps,
        seed=seed,
    )
    config = alignment_config(**settings)
    skipped, held_skipped = Skipped(), Skipped()
    conversations = read_conversations(data, skipped=skipped, max_unreadable=max_unreadable)
    validation = (
        read_conversations(valid, skipped=held_skipped, max_unreadable=max_unreadable)
        if valid
        else []
    )
    report_skipped(skipped, data.name)
    report_skipped(held_skipped, "the validation data")
    fine_tune(
        LanguageModel.load(model, device=local_device()),
        conversations,
        output_dir=out,
        epochs=epochs,
        steps=steps,
        validation=validation,
        loss_on=loss_on,
        packing=packing,
        config=config,
        tensorboard=tensorboard,
        **run,
    )
    typer.echo(f"the model is in {out / 'model'}")
