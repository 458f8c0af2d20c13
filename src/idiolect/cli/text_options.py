"""Options of commands that read text files, and the report of skipped records."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

import typer

from idiolect.text.skipped import shown_places

__all__ = [
    "FieldOption",
    "MaxUnreadableOption",
    "SourcesArgument",
    "UnitOption",
    "report_skipped",
]

SourcesArgument = Annotated[
    list[str],
    typer.Argument(help="Files, folders or globs: .txt .jsonl .json .csv .tsv .parquet, also .gz"),
]
FieldOption = Annotated[
    list[str] | None,
    typer.Option(help="Field with the text; repeat it to join several. Default: title and text."),
]
UnitOption = Annotated[
    Literal["line", "file"],
    typer.Option(help="Whether each line or each file of .txt input is a document."),
]
MaxUnreadableOption = Annotated[
    float,
    typer.Option(
        help="Share of a file's rows that may be unreadable; more is an error.", min=0, max=1
    ),
]


def report_skipped(skipped: Counter[str], source: str = "") -> None:
    """Print how many records were skipped for each reason, and the first places.

    skipped 2 records: malformed JSON (notes.jsonl line 3, notes.jsonl line 9)

    Args:
        skipped: Number of records by reason.
        source: Name of the data set, if it must be named.
    """
    of = f" of {source}" if source else ""
    for reason, count in skipped.most_common():
        places = shown_places(skipped, reason)
        typer.echo(f"skipped {count:,} records{of}: {reason}{places}", err=True)
