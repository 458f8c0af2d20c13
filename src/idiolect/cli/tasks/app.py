"""`idiolect tasks …`: a group of commands for each task."""

from __future__ import annotations

from types import ModuleType

import typer

from idiolect.cli.endings import ResumableCommand
from idiolect.cli.tasks import answer_span, bitext, classify, summarise, tag, translate

__all__ = ["app"]

app = typer.Typer(
    name="tasks",
    help="Train models for tasks, predict with them, and evaluate them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_USUAL = ("train", "predict", "evaluate")


def _task(name: str, summary: str, module: ModuleType, commands: tuple[str, ...] = _USUAL) -> None:
    """Add a group with the commands of one task, functions of its module; `train` resumes."""
    group = typer.Typer(help=summary, no_args_is_help=True, rich_markup_mode="rich")
    for command in commands:
        kind = ResumableCommand if command == "train" else None
        group.command(command, cls=kind)(getattr(module, command))
    app.add_typer(group, name=name)


_task("classify", "Classify texts or pairs of texts.", classify)
_task("tag", "Find labelled spans in texts, such as names.", tag, (*_USUAL, "convert"))
_task("answer-span", "Find the answers to questions in passages.", answer_span)
_task("summarise", "Summarise texts.", summarise)
_task("translate", "Translate texts.", translate)
_task("bitext", "Find translations of sentences.", bitext, ("evaluate", "mine", "pairs"))
