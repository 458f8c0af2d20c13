"""`idiolect report`: write the report of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
) -> None:
    """Write report.html: the terms that were broken, the training, and the evaluation.

    It is one file without scripts, and needs no network. `idiolect run` also writes it.

    Example: [bold]idiolect report shop/run[/bold]
    """
    from idiolect.pipeline.report.page import write_report

    typer.echo(f"wrote {write_report(run)}")
