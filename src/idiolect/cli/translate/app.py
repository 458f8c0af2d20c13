"""`idiolect translate …`: the group of commands that train and use translators."""

from __future__ import annotations

import typer

from idiolect.cli.endings import ResumableCommand
from idiolect.cli.translate import run, train

__all__ = ["app"]

app = typer.Typer(
    name="translate",
    help="Train encoder-decoders on pairs of texts, and translate with them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.command("train", cls=ResumableCommand)(train.train)
app.command("run")(run.run)
