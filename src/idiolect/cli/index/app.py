"""`idiolect index …`: the group of commands that build, change, inspect and export indexes."""

from __future__ import annotations

import typer

from idiolect.cli.endings import ResumableCommand
from idiolect.cli.index import building, contents, fitting, maintenance, passages

__all__ = ["app"]

app = typer.Typer(
    name="index",
    help="Build, change, inspect and export indexes for dense and lexical search.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.command(cls=ResumableCommand)(building.build)
app.command()(building.add)
app.command()(contents.info)
app.command()(contents.get)
app.command()(contents.update)
app.command()(contents.delete)
app.command()(fitting.fit_fusion)
app.command(cls=ResumableCommand)(passages.passages)
app.command()(maintenance.export)
app.command()(maintenance.verify)
app.command()(maintenance.compact)
app.command()(maintenance.snapshot)
app.command()(maintenance.restore)
