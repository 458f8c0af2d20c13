"""`idiolect align dpo | ipo | kto | orpo | simpo`: tune a language model on preferences.

The five commands share one function; each offers only the options of its loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from idiolect.cli.align.alignment_options import (
    ChatOption,
    DataArgument,
    ModelArgument,
    StepsOption,
    TrainOption,
    training_plan,
)
from idiolect.cli.align.commands import command_of
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
    given,
    local_device,
)
from idiolect.text.skipped import MAX_UNREADABLE

__all__ = ["dpo", "ipo", "kto", "orpo", "simpo"]

_RATES = {"dpo": 1e-6, "ipo": 1e-6, "kto": 1e-6, "orpo": 8e-6, "simpo": 1e-6}
_OWN = {"label_smoothing", "gamma", "desirable_weight", "undesirable_weight"}
"""Options that only some losses have."""


def _tune(
    loss: str,
    context: typer.Context,
    model: ModelArgument,
    data: DataArgument,
    out: RunFolderOption,
    beta: Annotated[
        float | None,
        typer.Option(
            help="Scale β of the log-probability difference. Default: 0.1; 2 for simpo.",
            min=0,
            max=1000,
        ),
    ] = None,
    label_smoothing: Annotated[
        float, typer.Option(help="Assumed share of wrong labels.", min=0, max=0.499)
    ] = 0.0,
    gamma: Annotated[float, typer.Option(help="Target margin γ.", min=0, max=1000)] = 1.0,
    desirable_weight: Annotated[
        float, typer.Option(help="Weight of good completions.", min=0, max=1000)
    ] = 1.0,
    undesirable_weight: Annotated[
        float, typer.Option(help="Weight of bad completions.", min=0, max=1000)
    ] = 1.0,
    chat: ChatOption = None,
    train: TrainOption = "all",
    lora_r: LoraRankOption = 8,
    lora_target_modules: LoraModulesOption = "query,value",
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
    from idiolect.alignment.preference.preference_objective import PreferenceSettings
    from idiolect.alignment.preference.preferences import read_judged_completions, read_preferences
    from idiolect.alignment.preference.train_preferences import preference_config, train_preferences
    from idiolect.models.language_model import LanguageModel
    from idiolect.text.skipped import Skipped

    refuse_epochs(context, steps)
    settings = PreferenceSettings(
        loss=loss,  # type: ignore[arg-type]
        label_smoothing=label_smoothing,
        gamma=gamma,
        desirable_weight=desirable_weight,
        undesirable_weight=undesirable_weight,
        **given(beta=beta),
    )
    run, values = training_plan(
        context,
        train,
        lora_r,
        lora_target_modules,
        usual_rate=_RATES[loss],
        max_length=max_length,
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        learning_rate=learning_rate,
        gradient_checkpointing=gradient_checkpointing,
        precision=precision,
        save_steps=save_steps,
        seed=seed,
    )
    config, skipped = preference_config(**values), Skipped()
    read = read_judged_completions if loss == "kto" else read_preferences
    examples = read(data, skipped=skipped, max_unreadable=max_unreadable)
    report_skipped(skipped, data.name)
    train_preferences(
        LanguageModel.load(model, device=local_device()),
        examples,
        output_dir=out,
        settings=settings,
        epochs=epochs,
        steps=steps,
        chat=chat,
        config=config,
        tensorboard=tensorboard,
        **run,
    )
    typer.echo(f"the model is in {out / 'model'}")


def _command(loss: str, summary: str, *own: str) -> Callable[..., None]:
    """Return the command of a loss, with only its options."""
    doc = f"""{summary} Run it again to resume.

    Records hold `prompt`, `chosen` and `rejected`. Original embedding rows never change; OUT also
    holds checkpoints and metrics.jsonl.

    Example: [bold]idiolect align {loss} smollm2 pairs.jsonl --train lora -o runs/{loss}[/bold]
    """
    return command_of(_tune, loss, doc, without=_OWN - set(own))


dpo = _command(
    "dpo",
    "Prefer chosen to rejected answers, close to the model before (DPO; loss begins at ln 2).",
    "label_smoothing",
)
ipo = _command("ipo", "Prefer chosen answers by a bounded margin (IPO).")
kto = _command(
    "kto",
    "Prefer good to bad answers, which need no pairs: `completion` and `label` (KTO).",
    "desirable_weight",
    "undesirable_weight",
)
orpo = _command("orpo", "Write chosen answers and prefer them, without a reference (ORPO).")
simpo = _command(
    "simpo", "Prefer by mean log-probability and a margin, without a reference (SimPO).", "gamma"
)
