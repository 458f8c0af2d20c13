"""`idiolect index …`: build, change, inspect and export indexes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from idiolect.cli.endings import ResumableCommand
from idiolect.cli.text_options import LanguageOption, MaxUnreadableOption, report_skipped
from idiolect.cli.training_options import EncodingPrecisionOption, given
from idiolect.errors import ConfigError, InputError
from idiolect.text.skipped import MAX_UNREADABLE, Skipped

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
    help="Build, change, inspect and export indexes for dense and lexical search.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_Index = Annotated[Path, typer.Argument(help="Index folder.")]
_Sources = Annotated[
    list[Path], typer.Argument(help="Files or folders: .jsonl .csv .tsv .parquet, optionally .gz")
]
_Namespace = Annotated[str, typer.Option(help="Namespace within the index.")]
_Id = Annotated[
    str | None, typer.Option("--id", help="Id field; detected from common names by default.")
]
_Fields = Annotated[
    list[str] | None,
    typer.Option("--field", help="Text field; repeat the option to join several fields."),
]
_Metadata = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata", help="Metadata field to store; repeatable. By default all other fields."
    ),
]
_SkipInvalid = Annotated[
    bool,
    typer.Option(
        "--skip-invalid-metadata",
        help="Leave out metadata that cannot be stored, such as NaN, instead of stopping.",
    ),
]


@app.command(cls=ResumableCommand)
def build(
    index: _Index,
    sources: _Sources,
    encoder: Annotated[str, typer.Option(help="Encoder: a directory or a hub id.")],
    id_field: _Id = None,
    fields: _Fields = None,
    metadata: _Metadata = None,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    namespace: _Namespace = "",
    dimensions: Annotated[
        int | None, typer.Option(help="Truncate vectors to this size (Matryoshka encoders).", min=1)
    ] = None,
    precision: EncodingPrecisionOption = None,
    language: LanguageOption = None,
    skip_invalid_metadata: _SkipInvalid = False,
) -> None:
    """Build an index from the records of files. Run it again to resume.

    Of several records with one id, the last is stored.

    Example: [bold]idiolect index build products-index products.jsonl
    --encoder runs/tuned/model --field title --metadata price --metadata brand[/bold]
    """
    from rich.console import Console

    from idiolect.encoding.encoder import Encoder
    from idiolect.search.index import Index
    from idiolect.search.item_files import read_items

    console = Console()
    skipped = Skipped()
    began = time.perf_counter()
    items = read_items(
        sources,
        id_field=id_field,
        fields=fields or (),
        metadata=metadata,
        max_unreadable=max_unreadable,
        skipped=skipped,
    )
    model = Encoder.load(encoder, **given(precision=precision))
    with Index.build(
        index,
        model,
        items,
        dimensions=dimensions,
        language=language,
        namespace=namespace,
        source=_source(encoder),
        progress=True,
        skip_invalid_metadata=skip_invalid_metadata,
    ) as built:
        _print_counts(console, built.counts, skipped, time.perf_counter() - began)
        console.print(_overview(index, built.store.describe()))


@app.command()
def add(
    index: _Index,
    sources: _Sources,
    id_field: _Id = None,
    fields: _Fields = None,
    metadata: _Metadata = None,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    namespace: _Namespace = "",
    encoder: Annotated[
        str | None, typer.Option(help="Current location of the encoder, if it was moved.")
    ] = None,
    skip_invalid_metadata: _SkipInvalid = False,
) -> None:
    """Add records, or replace those with the same ids. Of several with one id, the last is stored.

    Example: [bold]idiolect index add products-index new.jsonl --field title[/bold]
    """
    from rich.console import Console

    from idiolect.search.index import Index
    from idiolect.search.item_files import read_items
    from idiolect.search.store.store import Store

    console = Console()
    skipped = Skipped()
    began = time.perf_counter()
    items = read_items(
        sources,
        id_field=id_field,
        fields=fields or (),
        metadata=metadata,
        max_unreadable=max_unreadable,
        skipped=skipped,
    )
    store = Store.open(index)
    with Index(store, load_encoder(store, encoder)) as opened:
        counts = opened.add(
            items,
            namespace=namespace,
            progress=True,
            skip_invalid_metadata=skip_invalid_metadata,
        )
        _print_counts(console, counts, skipped, time.perf_counter() - began)


@app.command()
def delete(
    index: _Index,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of the items to delete.")] = None,
    filter: Annotated[
        str | None, typer.Option(help="""Filter instead of ids, such as '{"price": {"$lt": 1}}'""")
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
    """Show the size, namespaces, encoder, language and hybrid search of an index.

    Example: [bold]idiolect index info products-index[/bold]
    """
    from rich.console import Console

    from idiolect.search.hybrid_weight import HybridWeight
    from idiolect.search.store.store import Store

    with Store.open(index) as store:
        console = Console()
        console.print(_overview(index, store.describe()))
        settings = store.settings
        if "encoder" in settings:
            name, source = settings["encoder"][:12], settings.get("source", "")
            console.print(f"encoder {name}… {source}", markup=False)
        shown = f"language {settings['language']}\nhybrid search: {HybridWeight.of(settings)}"
        console.print(shown, markup=False, soft_wrap=True)


@app.command()
def verify(index: _Index) -> None:
    """Check an index for damage, and list it. Exits with status 1 if there is any.

    Example: [bold]idiolect index verify products-index[/bold]
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from idiolect.search.store.store import Store
    from idiolect.training.progress import status

    console = Console()
    with Store.open(index) as store, status("verifying"):
        damages = list(store.verify())
        items = store.describe().items
    if not damages:
        console.print(f"no damage found: {items:,} items, full-text index, filters and graphs")
        return
    table = Table(title=f"{len(damages)} problems")
    for name in ("where", "problem", "repair with"):
        table.add_column(name, overflow="fold")
    for damage in damages:
        repair = "index compact --rebuild" if damage.derived else "index restore"
        table.add_row(*map(escape, (damage.place, damage.problem, repair)))
    console.print(table)
    raise typer.Exit(1)


@app.command()
def compact(
    index: _Index,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Rebuild full-text index, filters and graphs.")
    ] = False,
) -> None:
    """Merge new items into the graphs, and free unused disk space.

    Example: [bold]idiolect index compact products-index[/bold]
    """
    from rich.console import Console

    from idiolect.search.store.store import Store
    from idiolect.training.progress import status

    console = Console()
    with Store.open(index) as store:
        before = store.describe().bytes
        with status("compacting"):
            store.compact(rebuild=rebuild)
        after = store.describe().bytes
    console.print(f"{_size(before)} before, {_size(after)} after")


@app.command()
def snapshot(index: _Index, name: Annotated[str, typer.Argument(help="Snapshot name.")]) -> None:
    """Save a copy of the index, to restore later.

    Example: [bold]idiolect index snapshot products-index before-sale[/bold]
    """
    from idiolect.search.store.store import Store

    with Store.open(index) as store:
        typer.echo(f"{store.snapshot(name)}")


@app.command()
def restore(index: _Index, name: Annotated[str, typer.Argument(help="Snapshot name.")]) -> None:
    """Return an index to the state of a snapshot.

    Example: [bold]idiolect index restore products-index before-sale[/bold]
    """
    from idiolect.search.store.store import Store

    with Store.open(index) as store:
        store.restore(name)
        typer.echo(f"restored {store.describe().items:,} items")


@app.command()
def export(
    index: _Index,
    to: Annotated[Literal["jsonl", "parquet", "milvus"], typer.Option(help="Export format.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Output file.")] = None,
    uri: Annotated[
        str, typer.Option(help="Address of the Milvus cluster.")
    ] = "http://localhost:19530",
    collection: Annotated[str, typer.Option(help="Milvus collection.")] = "idiolect",
    token: Annotated[
        str, typer.Option(help="user:password for the Milvus cluster.", envvar="MILVUS_TOKEN")
    ] = "",
    shards: Annotated[int, typer.Option(help="Shards of a new Milvus collection.", min=1)] = 1,
) -> None:
    """Export all items to a file or to a Milvus cluster.

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
                destination = f"collection {collection} at {uri}"
        elif out is None:
            raise InputError(f"--to {to} needs an output file", hint=f"add --out items.{to}")
        else:
            if out.is_dir() or out.resolve().is_relative_to(index.resolve()):
                raise InputError(
                    f"{out} is a folder or inside the index", hint="choose a file outside the index"
                )
            if not out.parent.is_dir():
                raise InputError(f"folder {out.parent} does not exist", hint="create it first")
            write = write_jsonl if to == "jsonl" else write_parquet
            count = _count(write(store, out), store)
            destination = str(out)
    typer.echo(f"exported {count:,} items to {destination}")


def load_encoder(store: Store, source: str | None) -> Encoder:
    """Load the encoder of an index from `source`, by default from its stored location.

    Raises:
        ConfigError: the index stores no location, and `source` is None.
    """
    from idiolect.encoding.encoder import Encoder

    location = source or store.settings.get("source")
    if not location:
        raise ConfigError(
            "the index does not store the location of its encoder", hint="add --encoder"
        )
    # 8-bit layers make an encoder of their own; bfloat16 would gain nothing for a few queries.
    rounded = store.settings.get("precision") == "int8"
    return Encoder.load(location, **given(precision="int8" if rounded else None))


def _source(encoder: str) -> str:
    """Return the location of an encoder, as an absolute path if it is local."""
    path = Path(encoder)
    return str(path.resolve()) if path.exists() else encoder


def _count(progress: Iterator[int], store: Store) -> int:
    from idiolect.training.progress import track

    batches = -(-sum(store.namespaces().values()) // 1000)
    return max(track(progress, "thousands of items", batches), default=0)


def _print_counts(
    console: Console, counts: Counter[str], skipped: Counter[str], seconds: float
) -> None:
    console.print(
        f"{counts['written']:,} items written, {counts['unchanged']:,} unchanged in"
        f" {seconds:,.1f} s"
    )
    if counts["empty"]:
        console.print(f"skipped {counts['empty']:,} items: their text has no known word")
    report_skipped(skipped)


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
    from rich.filesize import decimal

    return "size unknown" if count is None else decimal(count)
