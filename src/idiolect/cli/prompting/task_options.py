"""Options for the format of a prompt and the files of its texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idiolect.cli.text_options import report_skipped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idiolect.generate.generator import Generator
    from idiolect.prompting.prompt_task import PromptTask
    from idiolect.tasks.classify.labelled_texts import LabelledText

__all__ = [
    "AnswerOption",
    "ExampleOption",
    "InstructionOption",
    "LabelFieldOption",
    "LimitOption",
    "ModelArgument",
    "PairFieldOption",
    "PromptOption",
    "TextFieldOption",
    "find_task",
    "load_generator",
    "read_texts",
]

ModelArgument = Annotated[
    str, typer.Argument(help="A causal model: a directory, GGUF file or hub id; or a tuned prompt.")
]
PromptOption = Annotated[
    Path | None,
    typer.Option(
        "--prompt", help="File of a prompt (.json). Default: the one saved with the model."
    ),
]
InstructionOption = Annotated[
    str | None, typer.Option(help="Text at the start of the prompt. Default: none.")
]
ExampleOption = Annotated[
    str | None,
    typer.Option(help=r"Template of an example, with {text}. Default: '{text}\nLabel:'."),
]
AnswerOption = Annotated[
    list[str] | None,
    typer.Option(help="LABEL=WORD: the answer for a label; repeatable. Default: the label."),
]
TextFieldOption = Annotated[str, typer.Option("--text", help="Field of the text.")]
PairFieldOption = Annotated[
    str | None, typer.Option("--text-pair", help="Field of the second text of a pair.")
]
LabelFieldOption = Annotated[str, typer.Option("--label", help="Field of the label.")]
LimitOption = Annotated[
    int | None, typer.Option(help="Number of texts to use, chosen at random.", min=1)
]


def read_texts(
    path: Path,
    text: str,
    text_pair: str | None,
    label: str,
    max_unreadable: float,
    *,
    limit: int | None = None,
    seed: int = 0,
) -> list[LabelledText]:
    """Read examples, report skipped records, and sample some of them."""
    from idiolect.tasks.classify.labelled_texts import read_labelled_texts
    from idiolect.text.skipped import Skipped

    skipped = Skipped()
    found = read_labelled_texts(
        path,
        text=text,
        label=label,
        text_pair=text_pair,
        skipped=skipped,
        max_unreadable=max_unreadable,
    )
    report_skipped(skipped, path.name)
    if limit is None or limit >= len(found):
        return found
    import numpy as np

    chosen = sorted(np.random.default_rng(seed).permutation(len(found))[:limit].tolist())
    return [found[number] for number in chosen]


def find_task(
    model: str,
    prompt: Path | None,
    instruction: str | None,
    example: str | None,
    answer: list[str] | None,
    examples: Sequence[LabelledText],
    *,
    calibrated: bool = False,
) -> PromptTask:
    """Return the prompt of a file or of the model's directory, modified by the options."""
    from dataclasses import replace

    from idiolect.cli.training_options import given
    from idiolect.errors import ConfigError
    from idiolect.prompting.prompt_task import PromptTask
    from idiolect.prompting.prompt_template import PromptTemplate
    from idiolect.prompting.tune_prompt import PROMPT_FILE
    from idiolect.tasks.classify.labelled_texts import labels_of

    beside = Path(model) / PROMPT_FILE
    if prompt is None and beside.is_file():
        prompt = beside
    task = (
        PromptTask(PromptTemplate(), labels_of(examples))
        if prompt is None
        else PromptTask.load(prompt)
    )
    answers = {}
    for one in answer or ():
        name, separator, word = one.partition("=")
        if not separator or name not in task.labels:
            raise ConfigError(
                f"answer {one!r}", hint=f"LABEL=WORD, with a label of {', '.join(task.labels)}"
            )
        answers[name] = word
    form = None if example is None else example.replace("\\n", "\n")
    # Those of other labels stay as they are in the file.
    merged = {**task.template.answers, **answers} if answers else None
    changes = given(instruction=instruction, example=form, answers=merged)
    template = task.template.with_changes(**changes)
    pairs = any(one.text_pair is not None for one in examples)
    if pairs and "{text_pair}" not in template.example:
        raise ConfigError(
            f"the example {template.example!r} does not show the second texts of --text-pair",
            hint=r"such as --example '{text}\n{text_pair}\nLabel:'",
        )
    if not pairs and "{text_pair}" in template.example:
        raise ConfigError(
            "the example shows {text_pair}, and the texts have no second text",
            hint="name its field: --text-pair",
        )
    return replace(task, template=template, calibrated=calibrated or task.calibrated)


def load_generator(model: str) -> Generator:
    """Load a model, and report it."""
    from idiolect.cli.training_options import local_device
    from idiolect.generate.generator import Generator
    from idiolect.models.language_model import LanguageModel
    from idiolect.training.progress import status

    with status("loading the model"):
        return Generator(LanguageModel.load(model, device=local_device()))
