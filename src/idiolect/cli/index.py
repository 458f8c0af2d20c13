"""`idiolect index …`: make, change, inspect and move indexes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from idiolect.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from rich.console import Console
    from rich.table import Table

    from idiolect.encoding.encoder import Encoder
    from idiolect.search.store.description import Description
    from idiolect.search.store.store import Store

__all__ = [
    "add",
    "app",
    "build",
    "compact",
    "delete",
    "export",
    "info",
    "load_encoder",
    "restore",
    "snapshot",
    "verify",
]

app = typer.Typer(
    name="index",
    help="Make, change, inspect and move indexes of items that are found by meaning and by words.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_Index = Annotated[Path, typer.Argument(help="Folder of the index.")]
_Sources = Annotated[
    list[Path], typer.Argument(help="Files or folders: .jsonl .csv .tsv .parquet, also .gz")
]
_Namespace = Annotated[str, typer.Option(help="The part of the index that is meant.")]
_Id = Annotated[str | None, typer.Option("--id", help="Field of the id; by default a usual one.")]
_Fields = Annotated[
    list[str] | None,
    typer.Option("--field", help="Field of the text; may be given again, and is then joined."),
]
_Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", help="Field to keep as metadata; by default all others."),
]


@app.command()
def build(
    index: _Index,
    sources: _Sources,
    encoder: Annotated[str, typer.Option(help="What makes the vectors: a directory or a hub id.")],
    id_field: _Id = None,
    fields: _Fields = None,
    metadata: _Metadata = None,
    namespace: _Namespace = "",
    dimensions: Annotated[
        int | None, typer.Option(help="Keep so many dimensions (Matryoshka encoders).")
    ] = None,
) -> None:
    """Make an index of the records of files, or go on with one that was ended.

    Example: [bold]idiolect index build products-index products.jsonl --encoder runs/tuned
    --field title --metadata price --metadata brand[/bold]
    """
    from collections import Counter

    from rich.console import Console

    from idiolect.encoding.encoder import Encoder
    from idiolect.search.index import Index
    from idiolect.search.item_files import read_items

    console = Console()
    model = Encoder.load(encoder)
    skipped = Counter[str]()
    began = time.perf_counter()
    items = read_items(
        sources, id_field=id_field, fields=fields or (), metadata=metadata, skipped=skipped
    )
    with Index.build(
        index,
        model,
        items,
        dimensions=dimensions,
        namespace=namespace,
        source=_source(encoder),
        progress=console.is_terminal,
    ) as made:
        _tell(console, made.counts, skipped, time.perf_counter() - began)
        console.print(_overview(index, made.store.describe()))


@app.command()
def add(
    index: _Index,
    sources: _Sources,
    id_field: _Id = None,
    fields: _Fields = None,
    metadata: _Metadata = None,
    namespace: _Namespace = "",
    encoder: Annotated[
        str | None, typer.Option(help="Where the encoder is now, if it was moved.")
    ] = None,
) -> None:
    """Add records, or replace those with the same ids.

    Example: [bold]idiolect index add products-index new.jsonl --field title[/bold]
    """
    from collections import Counter

    from rich.console import Console

    from idiolect.search.index import Index
    from idiolect.search.item_files import read_items
    from idiolect.search.store.store import Store

    console = Console()
    skipped = Counter[str]()
    began = time.perf_counter()
    store = Store.open(index)
    with Index(store, load_encoder(store, encoder)) as opened:
        items = read_items(
            sources, id_field=id_field, fields=fields or (), metadata=metadata, skipped=skipped
        )
        counts = opened.add(items, namespace=namespace, progress=console.is_terminal)
        _tell(console, counts, skipped, time.perf_counter() - began)


@app.command()
def delete(
    index: _Index,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of the items to delete.")] = None,
    filter: Annotated[
        str | None, typer.Option(help="""A filter instead, such as '{"price": {"$lt": 1}}'""")
    ] = None,
    namespace: _Namespace = "",
) -> None:
    """Delete items by id or by filter.

    Example: [bold]idiolect index delete products-index --filter '{"brand": "acme"}'[/bold]
    """
    from idiolect.search.store.store import Store

    with Store.open(index) as store:
        count = store.delete(ids or None, filter=filter, namespace=namespace)
    typer.echo(f"deleted {count:,} items")


@app.command()
def info(index: _Index) -> None:
    """Show what an index holds.

    Example: [bold]idiolect index info products-index[/bold]
    """
    from rich.console import Console

    from idiolect.search.store.store import Store

    with Store.open(index) as store:
        console = Console()
        console.print(_overview(index, store.describe()))
        settings = store.settings
        if "encoder" in settings:
            console.print(
                f"encoder {settings['encoder'][:12]}… {settings.get('source', '')}", markup=False
            )
        if "meaning" in settings:
            console.print(f"hybrid weighs meaning {settings['meaning']} %, and words the rest")


@app.command()
def verify(index: _Index) -> None:
    """Look for damage, and name every place of it; exit status 1 if there is any.

    Example: [bold]idiolect index verify products-index[/bold]
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from idiolect.search.store.store import Store

    console = Console()
    with Store.open(index) as store, console.status("verifying"):
        flaws = list(store.verify())
        items = store.describe().items
    if not flaws:
        console.print(f"{items:,} items, words, filters and graphs: nothing is damaged")
        return
    table = Table(title=f"{len(flaws)} flaws")
    for name in ("where", "what", "remedy"):
        table.add_column(name, overflow="fold")
    for flaw in flaws:
        remedy = "index compact --rebuild" if flaw.derived else "index restore"
        table.add_row(*map(escape, (flaw.place, flaw.what, remedy)))
    console.print(table)
    raise typer.Exit(1)


@app.command()
def compact(
    index: _Index,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make words, filters and graphs again.")
    ] = False,
) -> None:
    """Merge what is new, and give room back to the disk.

    Example: [bold]idiolect index compact products-index[/bold]
    """
    from rich.console import Console

    from idiolect.search.store.store import Store

    console = Console()
    with Store.open(index) as store:
        before = store.describe().bytes
        with console.status("compacting"):
            store.compact(rebuild=rebuild)
        after = store.describe().bytes
    console.print(f"{_size(before)} before, {_size(after)} now")


@app.command()
def snapshot(index: _Index, name: Annotated[str, typer.Argument(help="Of the snapshot.")]) -> None:
    """Copy the present state, to be restored later.

    Example: [bold]idiolect index snapshot products-index before-sale[/bold]
    """
    from idiolect.search.store.store import Store

    with Store.open(index) as store:
        typer.echo(f"{store.snapshot(name)}")


@app.command()
def restore(index: _Index, name: Annotated[str, typer.Argument(help="Of the snapshot.")]) -> None:
    """Make an index what it was when a snapshot was taken.

    Example: [bold]idiolect index restore products-index before-sale[/bold]
    """
    from idiolect.search.store.store import Store

    with Store.open(index) as store:
        store.restore(name)
        typer.echo(f"restored {store.describe().items:,} items")


@app.command()
def export(
    index: _Index,
    to: Annotated[Literal["jsonl", "parquet", "milvus"], typer.Option(help="What to export to.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file to write.")] = None,
    uri: Annotated[str, typer.Option(help="Of the Milvus cluster.")] = "http://localhost:19530",
    collection: Annotated[str, typer.Option(help="Of the Milvus cluster.")] = "idiolect",
    token: Annotated[
        str, typer.Option(help="user:password of the cluster.", envvar="MILVUS_TOKEN")
    ] = "",
    shards: Annotated[int, typer.Option(help="Of a new Milvus collection.")] = 1,
) -> None:
    """Write everything to a file, or copy it to a Milvus cluster.

    Example: [bold]idiolect index export products-index --to milvus --uri http://milvus:19530
    --collection products --shards 8[/bold]
    """
    from idiolect.search.milvus.milvus_store import MilvusStore
    from idiolect.search.store.export import copy, write_jsonl, write_parquet
    from idiolect.search.store.store import Store

    with Store.open(index) as store:
        if to == "milvus":
            with MilvusStore.open(
                uri,
                collection,
                token=token,
                dimensions=store.dimensions,
                metric=store.metric,
                shards=shards,
            ) as other:
                count = _count(copy(store, other), store)
                where = f"collection {collection} at {uri}"
        elif out is None:
            raise InputError(f"--to {to} needs a file", hint=f"add --out items.{to}")
        else:
            if out.is_dir() or out.resolve().is_relative_to(index.resolve()):
                raise InputError(
                    f"{out} is a folder, or in the index", hint="name a file somewhere else"
                )
            if not out.parent.is_dir():
                raise InputError(f"no folder {out.parent} to write to", hint="make it first")
            write = write_jsonl if to == "jsonl" else write_parquet
            count = _count(write(store, out), store)
            where = str(out)
    typer.echo(f"{count:,} items to {where}")


def load_encoder(store: Store, source: str | None) -> Encoder:
    """Load the encoder an index was made by, from where it was unless told otherwise.

    Raises:
        ConfigError: it is not known where that is.
    """
    from idiolect.encoding.encoder import Encoder

    place = source or store.settings.get("source")
    if not place:
        raise ConfigError(
            "the index does not say where its encoder is", hint="name it with --encoder"
        )
    return Encoder.load(place)


def _source(encoder: str) -> str:
    """Where an encoder is, said so that it is found from another directory."""
    path = Path(encoder)
    return str(path.resolve()) if path.exists() else encoder


def _count(progress: Iterator[int], store: Store) -> int:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    batches = -(-sum(store.namespaces().values()) // 1000)
    shown = track(progress, "items", batches, console=console, disable=not console.is_terminal)
    return max(shown, default=0)


def _tell(console: Console, counts: Counter[str], skipped: Counter[str], seconds: float) -> None:
    console.print(
        f"{counts['written']:,} items written, {counts['unchanged']:,} unchanged in"
        f" {seconds:,.1f} s"
    )
    if counts["empty"]:
        console.print(f"left out {counts['empty']:,} items: no word of their text is known")
    for reason, count in skipped.most_common():
        console.print(f"left out {count:,} records: {reason}")


def _overview(index: Path, description: Description) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=f"{escape(str(index))}: {description.items:,} items,"
        f" {description.dimensions} dimensions, {description.metric}, {_size(description.bytes)}",
        title_justify="left",
    )
    table.add_column("namespace")
    table.add_column("items", justify="right")
    table.add_column("unmerged", justify="right")
    table.add_column("metadata fields", overflow="fold")
    for name, space in description.namespaces.items():
        fields = escape(", ".join(space.fields or ()))
        table.add_row(
            escape(name or "(default)"), f"{space.items:,}", f"{space.unmerged:,}", fields
        )
    if description.snapshots:
        table.caption = f"snapshots: {escape(', '.join(description.snapshots))}"
    return table


def _size(count: int | None) -> str:
    if count is None:
        return "size unknown"
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
