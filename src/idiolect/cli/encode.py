"""`idiolect encode`: texts to vectors in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from idiolect.cli.text_options import (
    FieldOption,
    MaxUnreadableOption,
    SourcesArgument,
    UnitOption,
    report_skipped,
)
from idiolect.cli.training_options import EncodingPrecisionOption, local_device
from idiolect.text.skipped import MAX_UNREADABLE

if TYPE_CHECKING:
    from rich.table import Table

    from idiolect.encoding.text_reader import EncodingCounts

__all__ = ["encode"]


def encode(
    model: Annotated[str, typer.Argument(help="The model: a directory or a hub id.")],
    sources: SourcesArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The .npy file to write.")],
    field: FieldOption = None,
    per: UnitOption = "line",
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    prompt_name: Annotated[
        str | None, typer.Option(help="Prompt of the model: document, query, …")
    ] = None,
    dimensions: Annotated[
        int | None, typer.Option(help="Keep only the first so many dimensions.", min=1)
    ] = None,
    precision: EncodingPrecisionOption = None,
    codes: Annotated[
        Literal["int8", "binary"] | None,
        typer.Option(
            help="Also save quantised vectors, 8 bits or 1 bit, in OUT.int8 or OUT.binary."
        ),
    ] = None,
    tokens_per_batch: Annotated[
        int | None, typer.Option(help="Tokens per forward pass.", min=1)
    ] = None,
) -> None:
    """Encode texts as vectors. Run it again to resume.

    OUT is a NumPy array of float32 with one row per document, in order. OUT.json records the model,
    the settings and the counts.

    Example: [bold]idiolect encode all-MiniLM-L6-v2 abstracts.jsonl -o abstracts.npy[/bold]
    """
    from rich.console import Console

    from idiolect.encoding.encoder import Encoder
    from idiolect.encoding.precision import QuantizedVectors
    from idiolect.encoding.text_reader import EncodingCounts
    from idiolect.encoding.vectors import VectorFile
    from idiolect.text.corpus import Corpus
    from idiolect.training.progress import status

    console, counts = Console(), EncodingCounts()
    corpus = Corpus(sources, field, per=per, max_unreadable=max_unreadable)
    with status("loading the model"):
        if precision == "auto":  # a resumed run computes all vectors alike
            precision = VectorFile.precision_of(out) or precision
        device = "cpu" if precision == "int8" else local_device()
        encoder = Encoder.load(model, device=device, precision=precision or "fp32")
    vectors = encoder.encode_to(
        out,
        corpus,
        prompt_name=prompt_name,
        dimensions=dimensions,
        tokens_per_batch=tokens_per_batch,
        progress=True,
        counts=counts,
    )
    console.print(_report(counts, encoder.max_length))
    report_skipped(corpus.skipped)
    if codes is not None:
        folder = out.with_suffix(f".{codes}")
        QuantizedVectors.of(vectors.array, codes).save(folder)
        console.print(f"codes in {folder}", markup=False)
    rows, width = vectors.array.shape
    console.print(
        f"{rows:,} vectors of {width} dimensions in {out}, computed in {encoder.precision}",
        markup=False,
    )


def _report(counts: EncodingCounts, length: int) -> Table:
    from rich.table import Table

    table = Table(show_header=False, box=None)
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_row("texts", f"{counts.texts:,}")
    table.add_row("tokens", f"{counts.tokens:,}")
    table.add_row(f"truncated to {length} tokens", f"{counts.truncated:,}")
    table.add_row("  tokens lost", f"{counts.lost:,}")
    table.add_row("empty (vector is zero)", f"{counts.empty:,}")
    return table
