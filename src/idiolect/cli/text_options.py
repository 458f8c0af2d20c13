"""Options of commands that read text files, and the report of skipped records."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

import typer

__all__ = ["FieldOption", "SourcesArgument", "UnitOption", "report_skipped"]

SourcesArgument = Annotated[
    list[str],
    typer.Argument(help="Files, folders or globs: .txt .jsonl .csv .tsv .parquet, also .gz"),
]
FieldOption = Annotated[
    list[str] | None,
    typer.Option(help="Field with the text; repeat it to join several. Default: title and text."),
]
UnitOption = Annotated[
    Literal["line", "file"],
    typer.Option(help="Whether each line or each file of .txt input is a document."),
]


def report_skipped(skipped: Counter[str], source: str = "") -> None:
    """Print how many records were skipped for each reason, on standard error.

    skipped 2 records of notes.jsonl: malformed JSON

    Args:
        skipped: Number of records by reason.
        source: What the records belong to, if it needs a name.
    """
    of = f" of {source}" if source else ""
    for reason, count in skipped.most_common():
        typer.echo(f"skipped {count:,} records{of}: {reason}", err=True)
