"""The commands of `idiolect words`."""

from __future__ import annotations

import typer

from idiolect.cli.endings import ResumableCommand
from idiolect.cli.words import evaluation, similar, training

__all__ = ["app"]

app = typer.Typer(help="Train, query and evaluate word vectors.", no_args_is_help=True)
app.command("train", cls=ResumableCommand)(training.train)
app.command("similar")(similar.similar)
app.command("index")(similar.index)
app.command("export")(similar.export)
app.command("evaluate")(evaluation.evaluate)
