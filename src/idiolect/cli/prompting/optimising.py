"""`idiolect prompt optimise`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from idiolect.cli.text_options import MaxUnreadableOption
from idiolect.cli.training_options import SeedOption
from idiolect.text.skipped import MAX_UNREADABLE

if TYPE_CHECKING:
    from idiolect.tasks.classify.labelled_texts import LabelledText

__all__ = ["optimise"]


def optimise(
    model: ModelArgument,
    file: Annotated[
        Path, typer.Argument(help="Examples; split into training, validation and test.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write the best prompt to.")],
    num_train: Annotated[
        int, typer.Option(help="Examples to draw demonstrations from.", min=1)
    ] = 200,
    num_valid: Annotated[int, typer.Option(help="Validation texts.", min=1)] = 100,
    num_test: Annotated[
        int, typer.Option(help="Test texts, for the first and the best prompt only.", min=1)
    ] = 300,
    test: Annotated[
        Path | None, typer.Option(help="File of the test texts. Default: the same file.")
    ] = None,
    prompt: PromptOption = None,
    instruction: InstructionOption = None,
    example: ExampleOption = None,
    answer: AnswerOption = None,
    calibrated: Annotated[
        bool,
        typer.Option("--calibrated", help="Divide by the probabilities of content-free inputs."),
    ] = False,
    candidate_instruction: Annotated[
        list[str] | None, typer.Option(help="Another instruction to try; repeatable.")
    ] = None,
    proposals: Annotated[
        int, typer.Option(help="Instructions proposed by the model itself.", min=0, max=1000)
    ] = 0,
    num_fewshot: Annotated[
        int, typer.Option(help="Demonstrations per prompt.", min=0, max=1000)
    ] = 4,
    candidates: Annotated[int, typer.Option(help="Number of initial prompts.", min=1)] = 16,
    max_calls: Annotated[
        int, typer.Option(help="Maximum prompts that the model reads.", min=1)
    ] = 2000,
    text: TextFieldOption = "text",
    text_pair: PairFieldOption = None,
    label: LabelFieldOption = "label",
    seed: SeedOption = 0,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")] = False,
) -> None:
    """Search for a better prompt, and evaluate it on held-out texts.

    The given prompt is kept unless another one is better on the validation texts.

    Example: [bold]idiolect prompt optimise smollm2 train.jsonl --answer 0=negative
    --answer 1=positive --max-calls 1000 -o prompt.json[/bold]
    """
    from idiolect.errors import InputError
    from idiolect.prompting.optimise_prompt import optimise_prompt
    from idiolect.prompting.prompt_evaluation import evaluate_prompt
    from idiolect.ranking.evaluation.significance import compare
    from idiolect.training.progress import status

    if out.is_dir():
        raise InputError(f"{out} is a folder", hint="name a file, such as -o prompt.json")
    examples = read_texts(file, text, text_pair, label, max_unreadable)
    other = None if test is None else read_texts(test, text, text_pair, label, max_unreadable)
    train, valid, held_out = _divide(examples, other, num_train, num_valid, num_test, seed)
    task = find_task(model, prompt, instruction, example, answer, examples, calibrated=calibrated)
    generator = load_generator(model)
    with status("searching for a prompt"):
        found = optimise_prompt(
            generator,
            task,
            train,
            valid,
            instructions=candidate_instruction or (),
            num_fewshot=num_fewshot,
            candidates=candidates,
            proposals=proposals,
            max_calls=max_calls,
            seed=seed,
        )
    # Saved before the evaluation, so that a long search is never lost.
    found.best.save(out)
    with status("measuring the first and the best prompt"):
        first = evaluate_prompt(generator, task, held_out)
        best = evaluate_prompt(generator, found.best, held_out)
    names = [str(number) for number in range(len(held_out))]
    difference = compare(
        dict(zip(names, first.right[0].astype(float), strict=True)),
        dict(zip(names, best.right[0].astype(float), strict=True)),
    )
    result: dict[str, Any] = {
        "calls": found.calls,
        "prompts_tried": len(found.trials),
        "validation": {"first": found.start_accuracy, "best": found.accuracy},
        "test": {"texts": len(held_out), "first": first.mean, "best": best.mean},
        "difference": difference.difference,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "p_value": difference.p_value,
    }
    if json:
        typer.echo(json_module.dumps(result | {"trials": found.trials}, indent=2))
        return
    typer.echo(
        f"{found.calls:,} calls, {len(found.trials)} prompts tried\n"
        f"accuracy on {len(valid):,} validation texts: {found.start_accuracy:.4f} for the given"
        f" prompt, {found.accuracy:.4f} for the best (chosen by it)\n"
        f"accuracy on {len(held_out):,} test texts: {first.mean:.4f} and {best.mean:.4f},"
        f" difference {difference.difference:+.4f} (95 % interval {difference.low:+.4f} to"
        f" {difference.high:+.4f}, p = {difference.p_value:.4f})\n"
        f"the best prompt is in {out}"
    )


def _divide(
    examples: list[LabelledText],
    other: list[LabelledText] | None,
    num_train: int,
    num_valid: int,
    num_test: int,
    seed: int,
) -> tuple[list[LabelledText], list[LabelledText], list[LabelledText]]:
    """Split examples at random; duplicate texts are used once."""
    import numpy as np

    from idiolect.errors import InputError

    unique = list({(one.text, one.text_pair): one for one in examples}.values())
    random = np.random.default_rng(seed)
    order = [unique[int(number)] for number in random.permutation(len(unique))]
    wanted = num_train + num_valid + (num_test if other is None else 0)
    if wanted > len(order):
        raise InputError(
            f"{wanted:,} examples are wanted, and the file has {len(order):,} different ones",
            hint="lower num_train, num_valid or num_test",
        )
    train, valid = order[:num_train], order[num_train : num_train + num_valid]
    if other is None:
        return train, valid, order[num_train + num_valid : wanted]
    seen = {(one.text, one.text_pair) for one in (*train, *valid)}
    rest = [one for one in other if (one.text, one.text_pair) not in seen]
    if not rest:
        raise InputError("the test file has no text of its own", hint="give other texts")
    return train, valid, [rest[int(number)] for number in random.permutation(len(rest))[:num_test]]
