"""`idiolect tasks …`: a group of commands for each task."""

from __future__ import annotations

import typer

from idiolect.cli.endings import ResumableCommand
from idiolect.cli.tasks import bitext, classify

__all__ = ["app"]

app = typer.Typer(
    name="tasks",
    help="Train models of tasks, predict with them, and evaluate them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
_classify = typer.Typer(
    help="Classify texts or pairs of texts.", no_args_is_help=True, rich_markup_mode="rich"
)
_classify.command("train", cls=ResumableCommand)(classify.train)
_classify.command("predict")(classify.predict)
_classify.command("evaluate")(classify.evaluate)
app.add_typer(_classify, name="classify")
_bitext = typer.Typer(
    help="Find translations of sentences.", no_args_is_help=True, rich_markup_mode="rich"
)
_bitext.command("evaluate")(bitext.evaluate)
_bitext.command("mine")(bitext.mine)
_bitext.command("pairs")(bitext.pairs)
app.add_typer(_bitext, name="bitext")
