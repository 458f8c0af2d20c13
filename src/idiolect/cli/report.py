"""`idiolect report`: a run on one page, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
) -> None:
    """Write a run's report.html: what was broken, what was learnt, and what it is worth.

    One file without a script, which needs no network; `idiolect run` writes it at its end, too.

    Example: [bold]idiolect report shop/run[/bold]
    """
    from idiolect.pipeline.report.page import write_report

    typer.echo(f"wrote {write_report(run)}")
