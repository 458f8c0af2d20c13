"""`idiolect encode` and `generate-queries`: vectors and queries from texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idiolect.cli.refusals import refuse_unused
from idiolect.cli.scale.ray_options import RayOption
from idiolect.cli.text_options import (
    FieldOption,
    MaxUnreadableOption,
    SourcesArgument,
    UnitOption,
    report_skipped,
)
from idiolect.cli.training_options import EncodingPrecisionOption, SeedOption, local_device
from idiolect.errors import InputError
from idiolect.text.skipped import MAX_UNREADABLE, Skipped

if TYPE_CHECKING:
    from rich.table import Table

    from idiolect.encoding.text_reader import EncodingCounts

__all__ = ["encode", "generate_queries"]


def encode(
    model: Annotated[str, typer.Argument(help="The model: a directory or a hub id.")],
    sources: SourcesArgument,
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", help="The .npy file to write; with --ray, a folder or URI of shards."
        ),
    ],
    field: FieldOption = None,
    per: UnitOption = "line",
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    prompt_name: Annotated[
        str | None, typer.Option(help="Name of one of the model's prompts: document, query, …")
    ] = None,
    dimensions: Annotated[
        int | None, typer.Option(help="Keep only this many leading dimensions.", min=1)
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
    ray: RayOption = None,
    gpus: Annotated[float, typer.Option(help="With --ray: GPUs per task.", min=0, max=64)] = 0,
) -> None:
    """Encode texts as vectors. Run it again to resume.

    OUT is a NumPy array of float32 with one row per document, in order. OUT.json records the model,
    the settings and the counts. With --ray, OUT is a folder of Parquet shards with the same rows.

    Example: [bold]idiolect encode all-MiniLM-L6-v2 abstracts.jsonl -o abstracts.npy[/bold]
    """
    from rich.console import Console

    from idiolect.encoding.encoder import Encoder
    from idiolect.encoding.precision import QuantizedVectors
    from idiolect.encoding.text_reader import EncodingCounts
    from idiolect.encoding.vectors import DiskVectors
    from idiolect.text.corpus import Corpus
    from idiolect.training.progress import status

    if ray is not None:
        if codes is not None:
            raise InputError("--codes needs vectors on this machine", hint="encode without --ray")
        from idiolect.scale.corpus_parts import ReadingOptions

        _encode_on_ray(
            model,
            sources,
            out,
            ray,
            options=ReadingOptions(tuple(field or ()), per, max_unreadable),
            prompt_name=prompt_name,
            dimensions=dimensions,
            precision=precision or "fp32",
            tokens_per_batch=tokens_per_batch,
            gpus=gpus,
        )
        return
    if gpus:
        raise InputError("--gpus is an option of --ray", hint="without --ray, a GPU is found")
    console, counts = Console(), EncodingCounts()
    corpus = Corpus(sources, field, per=per, max_unreadable=max_unreadable)
    with status("loading the model"):
        if precision == "auto":  # a resumed run computes all vectors in one format
            precision = DiskVectors.precision_of(out) or precision
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
        folder = Path(out).with_suffix(f".{codes}")
        QuantizedVectors.of(vectors.array, codes).save(folder)
        console.print(f"codes in {folder}", markup=False)
    rows, width = vectors.array.shape
    console.print(
        f"{rows:,} vectors of {width} dimensions in {out}, computed in {encoder.precision}",
        markup=False,
    )


def generate_queries(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="The language model: a directory, a hub id or a package's model.")
    ],
    sources: SourcesArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file of pairs to write (.jsonl).")],
    field: FieldOption = None,
    per: UnitOption = "line",
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    queries_per_text: Annotated[int, typer.Option(help="Queries per text.", min=1)] = 3,
    max_texts: Annotated[
        int | None, typer.Option(help="Number of texts, chosen at random. Default: all.", min=1)
    ] = None,
    filter_top_k: Annotated[
        int,
        typer.Option(help="Keep queries that find their text in the top k; 0: all.", min=0),
    ] = 10,
    filter_encoder: Annotated[
        str | None, typer.Option(help="Encoder of the filter's search. Default: BM25 on words.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Sampling temperature.", min=0)] = 1.0,
    top_k: Annotated[int, typer.Option(help="Sample from the k most likely tokens.", min=0)] = 25,
    top_p: Annotated[
        float, typer.Option(help="Nucleus sampling: total probability of the tokens.", min=0, max=1)
    ] = 0.95,
    max_length: Annotated[
        int, typer.Option(help="Maximum tokens of a text; the rest is cut.", min=8)
    ] = 128,
    max_new_tokens: Annotated[int, typer.Option(help="Maximum tokens of a query.", min=2)] = 24,
    batch_size: Annotated[int, typer.Option(help="Texts per batch.", min=1)] = 16,
    seed: SeedOption = 0,
) -> None:
    """Generate search queries for texts, as pairs for `tune`. Run it again to resume.

    The cost is shown before and after. A small model takes a second or two per text on a CPU.

    Example: [bold]idiolect generate-queries smollm2 abstracts.jsonl --max-texts 300 -o
    pairs.jsonl[/bold]
    """
    from idiolect.encoding.encoder import Encoder
    from idiolect.generate.query_writer import QueryWriter
    from idiolect.generate.token_sampling import Sampling
    from idiolect.models.language_model import LanguageModel
    from idiolect.ranking.generated_queries import generate_queries as run
    from idiolect.text.corpus import Corpus
    from idiolect.training.progress import duration, status

    if not filter_top_k:
        refuse_unused(context, "--filter-top-k 0 keeps all queries", "filter_encoder")
    sampling = Sampling(temperature, top_k, top_p)
    corpus = Corpus(sources, field, per=per, max_unreadable=max_unreadable)
    with status("loading the model"):
        loaded = LanguageModel.load(model, device=local_device())
        encoder = None if filter_encoder is None else Encoder.load(filter_encoder)
    writer = QueryWriter(
        loaded,
        max_length=max_length,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
    )
    made = run(
        loaded,
        corpus,
        out,
        queries_per_text=queries_per_text,
        max_texts=max_texts,
        filter_top_k=filter_top_k,
        filter_encoder=encoder,
        batch_size=batch_size,
        writer=writer,
    )
    report_skipped(corpus.skipped)
    for reason, count in made.left_out.most_common():
        typer.echo(f"left out {count:,} of {made.written:,} queries: {reason}", err=True)
    typer.echo(
        f"{made.pairs:,} pairs of {made.texts:,} texts in {out}: {made.read_tokens:,} tokens read, "
        f"{made.new_tokens:,} written in {duration(made.seconds)}; "
        f"next: idiolect tune {model} {out} -o RUN"
    )


def _encode_on_ray(model: str, sources: list[str], out: str, address: str, **settings: Any) -> None:
    """Encode on a cluster, and print the counts; `settings` are those of `encode_on_ray`."""
    from rich.console import Console

    from idiolect.encoding.text_reader import EncodingCounts
    from idiolect.scale.ray_encode import encode_on_ray

    counts, skipped = EncodingCounts(), Skipped()
    shards = encode_on_ray(
        model, sources, out, address, progress=True, counts=counts, skipped=skipped, **settings
    )
    report_skipped(skipped)
    Console().print(
        f"{len(shards):,} vectors of {shards.record['dimensions']} dimensions in"
        f" {len(shards.record['shards']):,} shards in {out}: {counts.tokens:,} tokens,"
        f" {counts.truncated:,} texts truncated, {counts.empty:,} empty",
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
