"""`idiolect prompt evaluate`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from idiolect.cli.prompting.task_options import (
    AnswerOption,
    ExampleOption,
    InstructionOption,
    LabelFieldOption,
    LimitOption,
    ModelArgument,
    PairFieldOption,
    PromptOption,
    TextFieldOption,
    find_task,
    load_generator,
    read_texts,
)
from idiolect.cli.refusals import refuse_unused
from idiolect.cli.text_options import MaxUnreadableOption
from idiolect.cli.training_options import SeedOption, local_device
from idiolect.text.skipped import MAX_UNREADABLE

if TYPE_CHECKING:
    from idiolect.prompting.demonstrations import Demonstrations
    from idiolect.prompting.prompt_evaluation import PromptScores
    from idiolect.tasks.classify.labelled_texts import LabelledText

__all__ = ["evaluate"]


def evaluate(
    context: typer.Context,
    model: ModelArgument,
    file: Annotated[Path, typer.Argument(help="Texts with labels.")],
    prompt: PromptOption = None,
    instruction: InstructionOption = None,
    example: ExampleOption = None,
    answer: AnswerOption = None,
    calibrated: Annotated[
        bool,
        typer.Option("--calibrated", help="Divide by the probabilities of content-free inputs."),
    ] = False,
    pool: Annotated[
        Path | None, typer.Option(help="Solved examples to choose demonstrations from.")
    ] = None,
    num_fewshot: Annotated[
        int, typer.Option(help="Demonstrations in each prompt, from the pool.", min=0, max=1000)
    ] = 4,
    demonstrations: Annotated[
        Literal["random", "nearest", "diverse"],
        typer.Option(help="How they are chosen: the same for all texts, or the nearest."),
    ] = "random",
    encoder: Annotated[
        str | None, typer.Option(help="Encoder for nearest and diverse, such as minilm.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(help="Number of random choices of demonstrations.", min=1, max=1000)
    ] = 1,
    limit: LimitOption = None,
    text: TextFieldOption = "text",
    text_pair: PairFieldOption = None,
    label: LabelFieldOption = "label",
    seed: SeedOption = 0,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")] = False,
) -> None:
    """Evaluate a prompt: hand-written, tuned or optimised, with demonstrations from a pool.

    Example: [bold]idiolect prompt evaluate smollm2 test.jsonl --pool train.jsonl --num-fewshot 4
    --seeds 10 --calibrated --answer 0=negative --answer 1=positive[/bold]
    """
    from idiolect.encoding.encoder import Encoder
    from idiolect.errors import ConfigError
    from idiolect.prompting.prompt_evaluation import choose_demonstrations, evaluate_prompt
    from idiolect.training.progress import show_progress

    if pool is None and (seeds > 1 or demonstrations != "random"):
        raise ConfigError("there are no demonstrations to choose", hint="name a file: --pool")
    if pool is None:
        refuse_unused(context, "demonstrations come from --pool", "num_fewshot")
    if pool is None or demonstrations == "random":
        reason = "only --demonstrations nearest and diverse use it"
        refuse_unused(context, reason, "encoder")
    if demonstrations == "nearest":
        refuse_unused(context, "the nearest demonstrations do not depend on a seed", "seeds")
    texts = read_texts(file, text, text_pair, label, max_unreadable, limit=limit, seed=seed)
    known = texts if pool is None else read_texts(pool, text, text_pair, label, max_unreadable)
    task = find_task(model, prompt, instruction, example, answer, known, calibrated=calibrated)
    choices: list[Demonstrations | None] = [None]
    if pool is not None:
        vectors = None if encoder is None else Encoder.load(encoder, device=local_device())
        if demonstrations != "nearest":  # which leaves out each text itself
            known = _without(known, texts)
        # The nearest examples do not depend on a seed.
        count = 1 if demonstrations == "nearest" else seeds
        choices = [
            choose_demonstrations(
                demonstrations, known, num_fewshot, encoder=vectors, seed=seed + number
            )
            for number in range(count)
        ]
    generator = load_generator(model)
    with show_progress("classifying", len(texts) * len(choices)) as activity:
        scores = evaluate_prompt(generator, task, texts, choices, advance=activity.advance)
    if json:
        typer.echo(json_module.dumps(_summary(scores, len(texts)), indent=2))
    else:
        _show(scores, len(texts))


def _without(pool: list[LabelledText], texts: list[LabelledText]) -> list[LabelledText]:
    """Return the examples that are not evaluated: a prompt must not show a text's own answer."""
    from idiolect.training.progress import notice

    evaluated = {(one.text, one.text_pair) for one in texts}
    kept = [one for one in pool if (one.text, one.text_pair) not in evaluated]
    if len(kept) < len(pool):
        notice(
            f"{len(pool) - len(kept):,} of {len(pool):,} examples of the pool are evaluated texts "
            "and are left out of it"
        )
    return kept


def _summary(scores: PromptScores, count: int) -> dict[str, object]:
    return {
        "texts": count,
        "calls": scores.calls,
        "accuracy": scores.mean,
        "accuracy_spread": scores.spread,
        "each": [one.as_dict() for one in scores.each],
    }


def _show(scores: PromptScores, count: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{count:,} texts, {scores.calls:,} prompts read", title_justify="left")
    for name in ("choice", "accuracy", "macro-F1", "NLL", "ECE"):
        table.add_column(name, justify="right", no_wrap=True)
    for number, one in enumerate(scores.each, start=1):
        measures = (one.accuracy, one.macro_f1, one.nll, one.ece)
        table.add_row(str(number), *(f"{value:.4f}" for value in measures))
    Console().print(table)
    if len(scores.each) > 1:
        lowest, highest = scores.accuracies.min(), scores.accuracies.max()
        typer.echo(
            f"accuracy {scores.mean:.4f} ± {scores.spread:.4f} (from {lowest:.4f} to {highest:.4f})"
        )
