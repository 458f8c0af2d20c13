"""`idiolect tasks answer-span train | predict | evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idiolect.cli.tasks.task_options import (
    AdaptationOption,
    ErrorsOption,
    JsonOption,
    PredictionsOption,
    load_base,
    task_settings,
)
from idiolect.cli.text_options import MaxUnreadableOption, report_skipped
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
    local_device,
    lora_config,
)
from idiolect.text.skipped import MAX_UNREADABLE

if TYPE_CHECKING:
    from idiolect.tasks.answer_span.squad_files import PassageQuestion
    from idiolect.tasks.answer_span.squad_metrics import AnswerScores

__all__ = ["evaluate", "predict", "train"]

_QuestionFile = Annotated[
    Path, typer.Argument(help="SQuAD JSON, or records with question, context and answers.")
]
_ModelArgument = Annotated[Path, typer.Argument(help="A trained finder, such as OUT/model.")]


def train(
    context: typer.Context,
    file: _QuestionFile,
    encoder: Annotated[str, typer.Option(help="The base: a directory or a hub id.")],
    out: RunFolderOption,
    valid: Annotated[
        Path | None, typer.Option(help='Questions to fit the threshold of "no answer" on.')
    ] = None,
    stride: Annotated[
        int, typer.Option(help="Tokens that neighbouring windows share.", min=0, max=100_000)
    ] = 128,
    max_answer_length: Annotated[
        int, typer.Option(help="Maximum tokens of an answer.", min=1, max=100_000)
    ] = 30,
    bidirectional: Annotated[
        bool, typer.Option("--bidirectional", help="Let a decoder's tokens attend to later ones.")
    ] = False,
    adaptation: AdaptationOption = "full",
    lora_r: LoraRankOption = 8,
    lora_target_modules: LoraModulesOption = "query,value",
    epochs: EpochsOption = 3,
    max_length: MaxLengthOption = None,
    batch_size: BatchSizeOption = None,
    learning_rate: LearningRateOption = None,
    precision: PrecisionOption = None,
    save_steps: SaveStepsOption = None,
    seed: SeedOption = 0,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
) -> None:
    """Train extractive question answering. Run it again to resume.

    If some questions have no answer, the finder learns to abstain.

    Example: [bold]idiolect tasks answer-span train train.json --encoder minilm --valid dev.json
    -o runs/answers[/bold]
    """
    from idiolect.tasks.answer_span.answer_finder import AnswerFinder

    config = task_settings(
        context, adaptation, batch_size, learning_rate, precision, save_steps, seed
    )
    questions = _read(file, True, max_unreadable)
    # Read before training, so that errors in it are reported early.
    held_out = valid and _read(valid, True, max_unreadable)
    model = AnswerFinder(
        load_base(encoder, max_length, bidirectional=bidirectional),
        unanswerable=not all(question.answers for question in questions),
        stride=stride,
        max_answer_length=max_answer_length,
        seed=seed,
    )
    model.train(
        questions,
        output_dir=out,
        adaptation=adaptation,
        epochs=epochs,
        lora=lora_config(lora_r, lora_target_modules) if adaptation == "lora" else None,
        config=config,
    )
    if held_out and model.unanswerable:
        typer.echo(f"threshold of no answer: {model.fit_threshold(held_out):.3f}")
        model.save_record(out / "model")
    elif held_out:
        typer.echo("--valid had no effect: all training questions have an answer", err=True)
    typer.echo(f"the finder is in {out / 'model'}")


def predict(
    model: _ModelArgument,
    file: _QuestionFile,
    out: PredictionsOption,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
) -> None:
    """Write the answer to each question, and its position in the passage.

    The result is JSON Lines, or one object of answers by id, as SQuAD's scripts read it, if its
    name ends in .json.

    Example: [bold]idiolect tasks answer-span predict runs/answers/model new.json -o
    out.jsonl[/bold]
    """
    from idiolect.errors import InputError
    from idiolect.tasks.answer_span.answer_finder import AnswerFinder
    from idiolect.text.files import write_atomic

    questions = _read(file, False, max_unreadable)
    if out.suffix == ".json" and len({question.id for question in questions}) < len(questions):
        raise InputError(
            f"{file}: some questions have the same id, by which {out} would name their answers",
            hint="name a .jsonl file, which has a line for each question",
        )
    found = AnswerFinder.load(model, device=local_device()).predict(questions, progress=True)
    if out.suffix == ".json":
        by_id = {q.id: one.text for q, one in zip(questions, found, strict=True)}
        text = json.dumps(by_id, ensure_ascii=False, indent=1) + "\n"
    else:
        text = ""
        for question, one in zip(questions, found, strict=True):
            line: dict[str, object] = {
                "id": question.id,
                "question": question.question,
                "answer": one.text,
            }
            if one.text:
                line |= {"start": one.start, "end": one.start + len(one.text)}
            scores = {"score": round(one.score, 4), "doubt": round(one.doubt, 4)}
            text += json.dumps(line | scores, ensure_ascii=False) + "\n"
    write_atomic(out, text.encode())
    typer.echo(f"{len(questions):,} answers are in {out}")


def evaluate(
    model: _ModelArgument,
    file: _QuestionFile,
    errors: ErrorsOption = None,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    as_json: JsonOption = False,
) -> None:
    """Evaluate by SQuAD's rules, beside a baseline: the sentence most similar to the question.

    Example: [bold]idiolect tasks answer-span evaluate runs/answers/model test.json --errors
    errors.html[/bold]
    """
    from idiolect.tasks.answer_span.answer_finder import AnswerFinder
    from idiolect.tasks.answer_span.answers_page import answers_page, confuse_answers
    from idiolect.tasks.answer_span.sentence_baseline import best_sentences
    from idiolect.tasks.answer_span.squad_metrics import score_answers
    from idiolect.text.files import write_atomic

    questions = _read(file, True, max_unreadable)
    found = AnswerFinder.load(model, device=local_device()).predict(questions, progress=True)
    texts = [one.text for one in found]
    scores = {
        "finder": score_answers(questions, texts),
        "most similar sentence": score_answers(questions, best_sentences(questions)),
        "no answer": score_answers(questions, [""] * len(questions)),
    }
    if errors is not None:
        write_atomic(errors, answers_page(scores, questions, found).encode())
    if as_json:
        result = {name: one.as_dict() for name, one in scores.items()}
        typer.echo(json.dumps({**result, "confusion": confuse_answers(questions, texts)}))
    else:
        _show(scores, len(questions))


def _show(scores: dict[str, AnswerScores], count: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{count:,} questions", title_justify="left")
    for name in ("system", "exact match", "F1", "F1 (answerable)", "right (unanswerable)"):
        # Headings may wrap; otherwise values are cut off in a terminal of 80 columns.
        table.add_column(
            name, justify="left" if name == "system" else "right", no_wrap=name == "system"
        )
    for name, one in scores.items():
        measures = (one.exact_match, one.f1, one.answerable_f1, one.unanswerable_accuracy)
        table.add_row(name, *("–" if value is None else f"{value:.2f}" for value in measures))
    Console().print(table)


def _read(path: Path, answered: bool, max_unreadable: float) -> list[PassageQuestion]:
    from idiolect.tasks.answer_span.squad_files import read_questions
    from idiolect.text.skipped import Skipped

    skipped = Skipped()
    found = read_questions(path, answered=answered, skipped=skipped, max_unreadable=max_unreadable)
    report_skipped(skipped, path.name)
    return found
