"""`idiolect search` and `idiolect similar`: search an index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from idiolect.cli.index import app, load_encoder
from idiolect.cli.judged_data import QueriesFile
from idiolect.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from idiolect.search.items import Hit, Hits

__all__ = ["fit_fusion", "search", "similar"]

_Index = Annotated[Path, typer.Argument(help="Index folder, or the folder of a run with one.")]
_Count = Annotated[int, typer.Option("--top-k", "-n", help="Number of results.", min=1, max=10_000)]
_Filter = Annotated[
    str | None,
    typer.Option(help="""Such as '{"price": {"$lt": 50}, "brand": "acme"}'"""),
]
_Namespace = Annotated[str, typer.Option(help="Namespace within the index.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]

_MARKS = ("\x02", "\x03")  # control characters that ordinary text does not contain
_MAX_SHOWN = 200  # characters of a text or of its metadata


def search(
    index: _Index,
    query: Annotated[str, typer.Argument(help="Query text.")],
    top_k: _Count = 10,
    mode: Annotated[
        Literal["hybrid", "dense", "lexical"],
        typer.Option(help="dense: by vectors; lexical: by words (BM25); hybrid: by both."),
    ] = "hybrid",
    filter: _Filter = None,
    namespace: _Namespace = "",
    mmr_diversity: Annotated[
        float,
        typer.Option(help="0 to 1: how much results should differ (MMR).", min=0, max=1),
    ] = 0.0,
    encoder: Annotated[
        str | None, typer.Option(help="Current location of the encoder, if it was moved.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Find the best items for a query.

    Example: [bold]idiolect search products-index "waterproof jacket" --filter '{"price":
    {"$lt": 100}}'[/bold]
    """
    from idiolect.search.index import Index
    from idiolect.search.store.store import Store

    index, encoder = _resolve_run(index, encoder)
    with Store.open(index, background=False) as store:
        model = None if mode == "lexical" else load_encoder(store, encoder)
        opened = Index(store, model)
        if mode == "hybrid" and opened.hybrid_weight.dense == 0 and not as_json:
            evidence = opened.hybrid_weight.evidence
            typer.echo(f"by words alone, vectors have no weight: {evidence}", err=True)
        hits = opened.search(
            query,
            top_k,
            mode=mode,
            filter=filter,
            namespace=namespace,
            mmr_diversity=mmr_diversity,
            highlight=None if as_json else _MARKS,
        )
    _show(hits, as_json)


@app.command()
def fit_fusion(
    index: _Index,
    qrels: Annotated[
        Path,
        typer.Option(
            help="TREC qrels, or a table such as query,docid; without --queries, with query texts."
        ),
    ],
    queries: QueriesFile = None,
    namespace: _Namespace = "",
    encoder: Annotated[
        str | None, typer.Option(help="Current location of the encoder, if it was moved.")
    ] = None,
) -> None:
    """Fit the weights of hybrid search to queries with known answers.

    Keep these queries and items out of the training of the encoder.

    Example: [bold]idiolect index fit-fusion products-index --qrels answers.tsv[/bold]
    """
    from idiolect.ranking.evaluation.judged_collection import read_qrels, read_queries
    from idiolect.search.index import Index
    from idiolect.search.store.store import Store

    texts = None if queries is None else read_queries(queries)
    answers = {
        query if texts is None else texts.get(query, ""): [
            id for id, grade in found.items() if grade > 0
        ]
        for query, found in read_qrels(qrels).items()
    }
    index, encoder = _resolve_run(index, encoder)
    with Store.open(index, background=False) as store:
        opened = Index(store, load_encoder(store, encoder))
        opened.fit_fusion(
            {query: ids for query, ids in answers.items() if query and ids}, namespace=namespace
        )
        typer.echo(f"hybrid search: {opened.hybrid_weight}")


def similar(
    index: _Index,
    item: Annotated[str, typer.Argument(help="Id of an item in the index.")],
    top_k: _Count = 10,
    filter: _Filter = None,
    namespace: _Namespace = "",
    as_json: _Json = False,
) -> None:
    """Find the items nearest to an item.

    Example: [bold]idiolect similar products-index p1234 -n 5[/bold]
    """
    from idiolect.search.index import Index
    from idiolect.search.store.store import Store

    index, _ = _resolve_run(index)
    with Store.open(index, background=False) as store:
        hits = Index(store).similar(item, top_k, filter=filter, namespace=namespace)
    _show(hits, as_json)


def _resolve_run(folder: Path, encoder: str | None = None) -> tuple[Path, str | None]:
    """Return the index and the encoder of a run, or the arguments if the folder is not a run."""
    stages = folder / "stages"
    if not stages.is_dir():
        return folder, encoder
    index = stages / "index" / "index"
    if not index.is_dir():
        raise InputError(f"the run {folder} has no index yet", hint="`idiolect run` resumes it")
    from idiolect.pipeline.stages.index_stage import index_encoder

    return index, encoder or str(index_encoder(folder))


def _show(hits: Hits, as_json: bool) -> None:
    import json

    from rich.console import Console

    if as_json:
        for hit in hits:
            record = {"id": hit.id, "score": hit.score, "text": hit.text, "metadata": hit.metadata}
            typer.echo(json.dumps(record, ensure_ascii=False))
    elif hits:
        Console().print(_table(hits))
    else:
        typer.echo("nothing found")


def _table(hits: Hits) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", justify="right", style="dim")
    table.add_column("score", justify="right")
    table.add_column("id", overflow="fold", style="cyan", max_width=32)
    table.add_column("text", ratio=1, overflow="fold")
    for rank, hit in enumerate(hits, 1):
        table.add_row(f"{rank}", f"{hit.score:.3f}", Text(hit.id), _body(hit))
    return table


def _body(hit: Hit) -> Text:
    """Return the text with the matched words in bold, and the metadata below it."""
    from rich.text import Text

    body = Text()
    source = hit.highlight or hit.text
    if not hit.highlight and len(source) > _MAX_SHOWN:
        source = f"{source[:_MAX_SHOWN].rsplit(None, 1)[0]}…"
    for position, part in enumerate(source.split(_MARKS[0])):
        matched, mark, rest = part.partition(_MARKS[1])
        if position and mark:
            body.append(matched, style="bold yellow").append(rest)
        else:
            body.append(part)
    fields = "  ".join(
        f"{name}={_brief(value)}"
        for name, value in hit.metadata.items()
        if _is_informative(value, hit)
    )
    if fields:
        body.append(f"\n{fields[:_MAX_SHOWN]}", style="dim")
    return body


def _is_informative(value: object, hit: Hit) -> bool:
    """Whether to show a metadata value: not if it is empty, or the text starts with it."""
    repeated = isinstance(value, str) and hit.text.startswith(value)
    return not repeated and value not in (None, [])


def _brief(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
