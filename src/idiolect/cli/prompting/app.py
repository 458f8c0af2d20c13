"""`idiolect prompt tune | optimise | evaluate`."""

from __future__ import annotations

import typer

from idiolect.cli.endings import ResumableCommand
from idiolect.cli.prompting.evaluating import evaluate
from idiolect.cli.prompting.optimising import optimise
from idiolect.cli.prompting.tuning import tune

__all__ = ["app"]

app = typer.Typer(
    name="prompt",
    help="Tune prompts, search for better ones, and evaluate them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.command("tune", cls=ResumableCommand)(tune)
app.command("optimise")(optimise)
app.command("evaluate")(evaluate)
