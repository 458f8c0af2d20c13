"""`idiolect search` and `idiolect similar`: search an index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from idiolect.cli.index.options import (
    EncoderOption,
    FilterOption,
    IndexArgument,
    JsonOption,
    NamespaceOption,
    check_namespace,
    open_index,
)
from idiolect.cli.index.results import MARKS, print_hits
from idiolect.cli.refusals import refuse_unused
from idiolect.errors import InputError

if TYPE_CHECKING:
    from idiolect.search.index import Index
    from idiolect.search.items import Hits

__all__ = ["search", "similar"]

_Count = Annotated[int, typer.Option("--top-k", "-n", help="Number of results.", min=1, max=10_000)]


def search(
    context: typer.Context,
    index: IndexArgument,
    query: Annotated[str | None, typer.Argument(help="Query text.")] = None,
    top_k: _Count = 10,
    mode: Annotated[
        Literal["hybrid", "dense", "lexical"],
        typer.Option(help="dense: by vectors; lexical: by words (BM25); hybrid: by both."),
    ] = "hybrid",
    filter: FilterOption = None,
    namespace: NamespaceOption = "",
    mmr_diversity: Annotated[
        float,
        typer.Option(help="0 to 1: diversity of the results (MMR).", min=0, max=1),
    ] = 0.0,
    queries: Annotated[
        Path | None,
        typer.Option(help="File of queries instead: one per line, or records with text or query."),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(help="File of query vectors instead: a .npy matrix, one row for each query."),
    ] = None,
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the best items for a query, or for each query or vector in a file.

    Example: [bold]idiolect search products-index "waterproof jacket" --filter '{"price":
    {"$lt": 100}}'[/bold]
    """
    if (query is not None) + (queries is not None) + (vectors is not None) != 1:
        raise InputError("search for one thing", hint="a QUERY, --queries FILE or --vectors FILE")
    if vectors is not None:
        reason = "--vectors are searched as they are"
        refuse_unused(context, reason, "mode", "mmr_diversity", "encoder")
    with open_index(index, encoder) as opened:
        check_namespace(opened, namespace)
        if vectors is not None:
            from idiolect.search.own_vectors import open_matrix

            matrix = open_matrix(vectors)
            names: Sequence[str | int] = range(len(matrix))
            found = opened.search_vectors(matrix, top_k, filter=filter, namespace=namespace)
        else:
            texts = [str(query)] if queries is None else _texts(queries)
            names = texts
            if not as_json:
                _tell_if_by_words(opened, mode)
            found = opened.search_many(
                texts,
                top_k,
                mode,
                filter=filter,
                namespace=namespace,
                mmr_diversity=mmr_diversity,
                highlight=None if as_json else MARKS,
            )
            opened.keep_query_encoder()
    many = query is None
    for name, hits in zip(names, found, strict=True):
        print_hits(hits, name, as_json=as_json, named=many)


def similar(
    index: IndexArgument,
    item: Annotated[str, typer.Argument(help="Id of an item in the index.")],
    top_k: _Count = 10,
    filter: FilterOption = None,
    namespace: NamespaceOption = "",
    as_json: JsonOption = False,
) -> None:
    """Find the items nearest to an item.

    Example: [bold]idiolect similar products-index p1234 -n 5[/bold]
    """
    with open_index(index) as opened:
        check_namespace(opened, namespace)
        hits: Hits = opened.similar(item, top_k, filter=filter, namespace=namespace)
    print_hits(hits, "", as_json=as_json)


def _tell_if_by_words(index: Index, mode: str) -> None:
    """Report on standard error if hybrid search uses only lexical search, and why."""
    if mode != "hybrid":
        return
    if not index.has_encoder:
        reason = "the vectors of this index came with its items (--vectors searches them)"
        typer.echo(f"searching by words alone: {reason}", err=True)
    elif index.hybrid_weight.dense == 0:
        evidence = index.hybrid_weight.evidence
        typer.echo(f"by words alone, vectors have no weight: {evidence}", err=True)


def _texts(path: Path) -> list[str]:
    """Read queries: the lines of a text file, or the texts of records."""
    from idiolect.text.fields import QUERY_TEXT, find_fields
    from idiolect.text.records import has_fields, read_all_records, read_documents
    from idiolect.text.skipped import Skipped

    if not path.is_file():
        from idiolect.text.suggestions import similar_path

        raise InputError(f"no such file: {path}", hint=similar_path(path) or "check the path")
    if not has_fields(path):
        return list(read_documents(path, (), "line", 1 << 20, Skipped(), max_unreadable=0))
    texts = []
    for place, record in read_all_records(path):
        names = find_fields([k for k, v in record.items() if isinstance(v, str)], QUERY_TEXT)
        if not names:
            raise InputError(
                f"{place} has no query; there are {', '.join(record)}",
                hint=f"known: {', '.join(QUERY_TEXT)}",
            )
        texts.append(record[names[0]])
    return texts
