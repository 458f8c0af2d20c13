"""Options of commands that read judged data, and functions to read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idiolect.cli.refusals import refuse_unused
from idiolect.errors import ConfigError

if TYPE_CHECKING:
    from idiolect.ranking.evaluation.judged_collection import JudgedCollection
    from idiolect.ranking.evaluation.metrics import Run

__all__ = [
    "DataFolder",
    "DocumentsFile",
    "JudgementsFile",
    "QueriesFile",
    "parse_dimensions",
    "read_collection",
    "read_named_runs",
    "refuse_split",
]

DataFolder = Annotated[
    Path | None,
    typer.Option(help="Folder in the BEIR layout. Replaces the next three options."),
]
DocumentsFile = Annotated[
    Path | None, typer.Option(help="Documents: .jsonl, table or TREC elements.")
]
QueriesFile = Annotated[Path | None, typer.Option(help="Queries, in the same formats.")]
JudgementsFile = Annotated[
    Path | None,
    typer.Option(
        help="TREC qrels, or a table such as query,docid,rating; without the rating, each line is "
        "a match. Without --queries, the table holds the text of each query."
    ),
]


def refuse_split(context: typer.Context, data: Path | None) -> None:
    """Refuse --split without --data.

    Raises:
        ConfigError: A split was given, and no folder that has splits.
    """
    if data is None:
        refuse_unused(context, "only a folder, --data, has splits", "split")


def read_collection(
    data: Path | None,
    split: str,
    documents: Path | None,
    queries: Path | None,
    qrels: Path | None,
) -> JudgedCollection:
    """Read judged data from a folder, or from single files.

    Raises:
        ConfigError: Both were given, or neither.
        InputError: A file is missing or damaged, or the files do not belong together.
    """
    from idiolect.ranking.evaluation.judged_collection import (
        JudgedCollection,
        read_documents,
        read_qrels,
        read_queries,
    )

    if data is not None:
        if documents or queries or qrels:
            raise ConfigError("both --data and single files", hint="give one or the other")
        return JudgedCollection.load(data, split=split)
    if documents is None or qrels is None:
        raise ConfigError("no judged data", hint="give --data, or --documents and --qrels")
    return JudgedCollection.join(
        read_documents(documents),
        None if queries is None else read_queries(queries),
        read_qrels(qrels),
    )


def read_named_runs(run: list[str]) -> dict[str, Run]:
    """Read runs given as FILE or NAME=FILE. The default name is the file's, without its extension.

    Raises:
        ConfigError: Two runs have the same name.
        InputError: A file is missing or damaged.
    """
    from idiolect.ranking.evaluation.judged_collection import read_run

    runs: dict[str, Run] = {}
    for text in run:
        name, separator, file = text.partition("=")
        if not separator or Path(text).exists():
            name, file = Path(text).stem, text
        if name in runs:
            raise ConfigError(f"two runs named {name!r}", hint="name them: --run NAME=FILE")
        runs[name] = read_run(file)
    return runs


def parse_dimensions(text: str | None) -> list[int]:
    """Parse a list of embedding sizes. "192,96" → [192, 96].

    Raises:
        ConfigError: The text is not a comma-separated list of positive integers.
    """
    try:
        sizes = [int(part) for part in (text or "").split(",") if part.strip()]
    except ValueError:
        sizes = [0]
    if any(size < 1 for size in sizes):
        raise ConfigError(f"--dimensions {text}", hint="separate numbers by commas: 192,96")
    return sizes
