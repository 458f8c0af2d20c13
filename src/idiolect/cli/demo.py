"""`idiolect demo`: the whole road on the catalogue that every machine with NumPy and SciPy has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["demo"]


def demo(
    base: Annotated[
        str,
        typer.Option(help="The model to adapt: idiolect-base, minilm, a directory or a hub id."),
    ] = "idiolect-base",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for data and run.")] = Path(
        "demo"
    ),
) -> None:
    """Teach a language model the words of NumPy and SciPy, and search their documentation.

    The catalogue, its judgements and general text to compare with are read from the packages that
    are installed; nothing is fetched. The same command goes on with a run that was ended.

    Example: [bold]idiolect demo --base minilm[/bold], and then
    [bold]idiolect search demo/run "matrix with few entries that are not zero"[/bold]
    """
    from idiolect.cli.run import run
    from idiolect.pipeline.demo.demo import write_demo

    where = Path(base)
    counts = write_demo(out, base=str(where.resolve()) if where.is_dir() else base)
    for name, count in counts.items():
        typer.echo(f"{count:>6,} {name}")
    run(out / "idiolect.toml")
