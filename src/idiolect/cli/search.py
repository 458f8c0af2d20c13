"""`idiolect search` and `idiolect similar`: ask an index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from idiolect.cli.index import load_encoder
from idiolect.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from idiolect.search.items import Hit, Hits

__all__ = ["search", "similar"]

_Index = Annotated[Path, typer.Argument(help="Folder of the index, or of a run that made one.")]
_Count = Annotated[int, typer.Option("--top-k", "-n", help="How many results.")]
_Filter = Annotated[
    str | None, typer.Option(help="""Such as '{"price": {"$lt": 50}, "brand": "acme"}'""")
]
_Namespace = Annotated[str, typer.Option(help="Where to search.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")]

_MARKS = ("\x02", "\x03")  # no text on a terminal holds them
_SHOWN = 200  # characters of a text


def search(
    index: _Index,
    query: Annotated[str, typer.Argument(help="Any text.")],
    top_k: _Count = 10,
    mode: Annotated[
        Literal["hybrid", "dense", "lexical"],
        typer.Option(help="Hybrid: vectors and words; dense: vectors; lexical: words."),
    ] = "hybrid",
    filter: _Filter = None,
    namespace: _Namespace = "",
    mmr_diversity: Annotated[
        float, typer.Option(help="0 to 1: how different the results should be from one another.")
    ] = 0.0,
    encoder: Annotated[
        str | None, typer.Option(help="Where the encoder is now, if it was moved.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Find the items that answer a text best.

    Example: [bold]idiolect search products-index "waterproof jacket" --filter '{"price":
    {"$lt": 100}}'[/bold]
    """
    from idiolect.search.index import Index
    from idiolect.search.store.store import Store

    index, encoder = _made_by_run(index, encoder)
    with Store.open(index, background=False) as store:
        model = None if mode == "lexical" else load_encoder(store, encoder)
        hits = Index(store, model).search(
            query,
            top_k,
            mode=mode,
            filter=filter,
            namespace=namespace,
            mmr_diversity=mmr_diversity,
            highlight=None if as_json else _MARKS,
        )
    _show(hits, as_json)


def similar(
    index: _Index,
    item: Annotated[str, typer.Argument(help="Id of an item of the index.")],
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

    index, _ = _made_by_run(index)
    with Store.open(index, background=False) as store:
        hits = Index(store).similar(item, top_k, filter=filter, namespace=namespace)
    _show(hits, as_json)


def _made_by_run(folder: Path, encoder: str | None = None) -> tuple[Path, str | None]:
    """Return index and encoder of a run, where the folder is that of one."""
    stages = folder / "stages"
    if not stages.is_dir():
        return folder, encoder
    index = stages / "index" / "index"
    if not index.is_dir():
        raise InputError(f"the run {folder} has no index yet", hint="`idiolect run` resumes it")
    return index, encoder or str(stages / "tune" / "model")


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
    for place, hit in enumerate(hits, 1):
        table.add_row(f"{place}", f"{hit.score:.3f}", Text(hit.id), _body(hit))
    return table


def _body(hit: Hit) -> Text:
    """The text, its found words bold, and the metadata below it."""
    from rich.text import Text

    shown = Text()
    source = hit.highlight or hit.text
    if not hit.highlight and len(source) > _SHOWN:
        source = f"{source[:_SHOWN].rsplit(None, 1)[0]}…"
    for position, part in enumerate(source.split(_MARKS[0])):
        found, mark, rest = part.partition(_MARKS[1])
        if position and mark:
            shown.append(found, style="bold yellow").append(rest)
        else:
            shown.append(part)
    facts = "  ".join(
        f"{name}={_brief(value)}" for name, value in hit.metadata.items() if _adds(value, hit)
    )
    if facts:
        shown.append(f"\n{facts[:_SHOWN]}", style="dim")
    return shown


def _adds(value: object, hit: Hit) -> bool:
    """Whether a reader learns anything from a value: the text may begin with its title."""
    said = isinstance(value, str) and hit.text.startswith(value)  # as the empty one is
    return not said and value not in (None, [])


def _brief(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
