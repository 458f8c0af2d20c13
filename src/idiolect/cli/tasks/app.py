"""`idiolect tasks …`: a group of commands for each task."""

from __future__ import annotations

from collections.abc import Callable

import typer

from idiolect.cli.endings import ResumableCommand
from idiolect.cli.tasks import answer_span, bitext, classify, summarise, tag, translate
from idiolect.cli.translate.train import train as train_translator

__all__ = ["app"]

app = typer.Typer(
    name="tasks",
    help="Train models of tasks, predict with them, and evaluate them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


def _task(name: str, summary: str, **commands: Callable[..., None]) -> None:
    """Add a group with the commands of one task; `train` can be resumed."""
    group = typer.Typer(help=summary, no_args_is_help=True, rich_markup_mode="rich")
    for verb, command in commands.items():
        group.command(verb, cls=ResumableCommand if verb == "train" else None)(command)
    app.add_typer(group, name=name)


_task(
    "classify",
    "Classify texts or pairs of texts.",
    train=classify.train,
    predict=classify.predict,
    evaluate=classify.evaluate,
)
_task(
    "tag",
    "Find labelled spans in texts, such as names.",
    train=tag.train,
    predict=tag.predict,
    evaluate=tag.evaluate,
    convert=tag.convert,
)
_task(
    "answer-span",
    "Find the answers to questions in passages.",
    train=answer_span.train,
    predict=answer_span.predict,
    evaluate=answer_span.evaluate,
)
_task(
    "summarise",
    "Summarise texts.",
    train=summarise.train,
    predict=summarise.predict,
    evaluate=summarise.evaluate,
)
_task(
    "translate",
    "Translate texts.",
    train=train_translator,
    predict=translate.predict,
    evaluate=translate.evaluate,
)
_task(
    "bitext",
    "Find translations of sentences.",
    evaluate=bitext.evaluate,
    mine=bitext.mine,
    pairs=bitext.pairs,
)
