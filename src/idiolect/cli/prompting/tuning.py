"""`idiolect prompt tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from idiolect.cli.prompting.task_options import (
    AnswerOption,
    ExampleOption,
    InstructionOption,
    LabelFieldOption,
    ModelArgument,
    PairFieldOption,
    PromptOption,
    TextFieldOption,
    find_task,
    load_generator,
    read_texts,
)
from idiolect.cli.refusals import refuse_lora, refuse_unused
from idiolect.cli.text_options import MaxUnreadableOption
from idiolect.cli.training_options import (
    BatchSizeOption,
    EpochsOption,
    LearningRateOption,
    LoraModulesOption,
    LoraRankOption,
    MaxLengthOption,
    PrecisionOption,
    RunFolderOption,
    SaveStepsOption,
    SeedOption,
    given,
    lora_config,
)
from idiolect.text.skipped import MAX_UNREADABLE

__all__ = ["tune"]


def tune(
    context: typer.Context,
    model: ModelArgument,
    file: Annotated[Path, typer.Argument(help="Examples: CSV, TSV, JSON Lines or Parquet.")],
    out: RunFolderOption,
    method: Annotated[
        Literal["prompt", "prefix", "lora", "full"],
        typer.Option(
            help="What trains: virtual tokens before the text; keys and values in every layer;"
            " LoRA; everything but the original rows."
        ),
    ] = "prompt",
    num_virtual_tokens: Annotated[
        int, typer.Option(help="Virtual tokens of a prompt or prefix.", min=1, max=100_000)
    ] = 20,
    init_text: Annotated[
        str | None,
        typer.Option(help="Text that initialises the virtual tokens. Default: random tokens."),
    ] = None,
    prefix_projection: Annotated[
        bool, typer.Option("--prefix-projection", help="Train a prefix through a small network.")
    ] = False,
    valid: Annotated[
        Path | None, typer.Option(help="Examples to evaluate on before and after training.")
    ] = None,
    prompt: PromptOption = None,
    instruction: InstructionOption = None,
    example: ExampleOption = None,
    answer: AnswerOption = None,
    text: TextFieldOption = "text",
    text_pair: PairFieldOption = None,
    label: LabelFieldOption = "label",
    lora_r: LoraRankOption = 8,
    lora_target_modules: LoraModulesOption = "query,value",
    epochs: EpochsOption = 5,
    max_length: MaxLengthOption = None,
    batch_size: BatchSizeOption = None,
    learning_rate: LearningRateOption = None,
    precision: PrecisionOption = None,
    save_steps: SaveStepsOption = None,
    seed: SeedOption = 0,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
) -> None:
    """Tune a prompt or prefix for a frozen model, or train with LoRA or fully. Resumes.

    OUT/model holds the virtual tokens in peft's format, and loads like a model everywhere.

    Example: [bold]idiolect prompt tune smollm2 train.jsonl --method prefix --valid dev.jsonl
    --answer 0=negative --answer 1=positive -o runs/prefix[/bold]
    """
    from idiolect.errors import ConfigError
    from idiolect.generate.generator import Generator
    from idiolect.nn.prompt.attach_prompt import prompt_of
    from idiolect.nn.prompt.prompt_config import PromptConfig
    from idiolect.prompting.prompt_evaluation import evaluate_prompt
    from idiolect.prompting.tune_prompt import tune_prompt, tuning_config

    virtual = method in ("prompt", "prefix")
    if not virtual and (init_text is not None or prefix_projection):
        raise ConfigError(f"virtual tokens with {method}", hint="use method prompt or prefix")
    if not virtual:
        refuse_unused(context, f"--method {method} has no virtual tokens", "num_virtual_tokens")
    if method != "lora":
        refuse_lora(context, f"--method {method}")
    config = tuning_config(
        method,
        seed=seed,
        **given(
            batch_size=batch_size,
            max_length=max_length,
            learning_rate=learning_rate,
            precision=precision,
            save_steps=save_steps,
        ),
    )
    examples = read_texts(file, text, text_pair, label, max_unreadable)
    # Read before training, so that errors in it are reported early.
    held_out = valid and read_texts(valid, text, text_pair, label, max_unreadable)
    task = find_task(model, prompt, instruction, example, answer, examples)
    generator = load_generator(model)
    further = virtual and prompt_of(generator.model.network) is not None
    if further:
        reason = "the model's own virtual tokens are trained further"
        refuse_unused(context, reason, "num_virtual_tokens", "init_text", "prefix_projection")
    ids = () if init_text is None else tuple(generator.model.tokenizer.encode(init_text))
    before = evaluate_prompt(generator, task, held_out).mean if held_out else None
    tune_prompt(
        generator.model,
        task,
        examples,
        output_dir=out,
        adaptation=method,
        prompt=None
        if further
        else PromptConfig(
            method="prefix" if method == "prefix" else "prompt",
            num_virtual_tokens=num_virtual_tokens,
            init_ids=ids,
            prefix_projection=prefix_projection,
        ),
        lora=lora_config(lora_r, lora_target_modules),
        epochs=epochs,
        config=config,
        base=_base_of(model),
    )
    if held_out and before is not None:
        # A new generator, since the virtual tokens take up part of the context.
        after = evaluate_prompt(Generator(generator.model), task, held_out).mean
        typer.echo(f"accuracy on {valid}: {before:.4f} before, {after:.4f} after")
    typer.echo(f"the tuned model is in {out / 'model'}")


def _base_of(model: str) -> str:
    """Return the name of the model below the virtual tokens: of a tuned prompt, its base."""
    from idiolect.models.prompt_files import prompted_base

    path = Path(model)
    if not path.exists():
        return model
    base = prompted_base(path) if path.is_dir() else None
    return base or str(path.resolve())
