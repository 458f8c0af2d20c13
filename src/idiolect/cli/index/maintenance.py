"""`idiolect index verify`, `compact`, `snapshot`, `restore` and `export`: maintain an index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from idiolect.cli.index.options import IndexArgument, shown_size
from idiolect.cli.refusals import refuse_unused
from idiolect.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from idiolect.search.store.store import Store

__all__ = ["compact", "export", "restore", "snapshot", "verify"]

_Name = Annotated[str, typer.Argument(help="Snapshot name.")]


def verify(index: IndexArgument) -> None:
    """Check an index, and list any damage. Exits with status 1 if there is any.

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


def compact(
    index: IndexArgument,
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
    console.print(f"{shown_size(before)} before, {shown_size(after)} after")


def snapshot(index: IndexArgument, name: _Name) -> None:
    """Save a copy of the index, to restore later.

    Example: [bold]idiolect index snapshot products-index before-sale[/bold]
    """
    from idiolect.search.store.store import Store

    with Store.open(index) as store:
        typer.echo(f"{store.snapshot(name)}")


def restore(index: IndexArgument, name: _Name) -> None:
    """Return an index to the state of a snapshot.

    Example: [bold]idiolect index restore products-index before-sale[/bold]
    """
    from idiolect.search.store.store import Store

    with Store.open(index) as store:
        store.restore(name)
        typer.echo(f"restored {store.describe().items:,} items")


def export(
    context: typer.Context,
    index: IndexArgument,
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

    if to == "milvus":
        refuse_unused(context, "--to milvus writes no file", "out")
    else:
        reason = f"--to {to} writes a file"
        refuse_unused(context, reason, "uri", "collection", "token", "shards")
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


def _count(progress: Iterator[int], store: Store) -> int:
    from idiolect.training.progress import track

    batches = -(-sum(store.namespaces().values()) // 1000)
    return max(track(progress, "thousands of items", batches), default=0)
