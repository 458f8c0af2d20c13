"""`idiolect index info`, `get`, `update` and `delete`: the contents of an index."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idiolect.cli.index.options import (
    EncoderOption,
    FilterOption,
    IndexArgument,
    JsonOption,
    NamespaceOption,
    open_index,
    shown_size,
)
from idiolect.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from idiolect.search.index import Index
    from idiolect.search.store.description import Description

__all__ = ["delete", "get", "info", "overview", "update"]


def info(index: IndexArgument, as_json: JsonOption = False) -> None:
    """Show the size, namespaces, encoder, language and hybrid search of an index.

    Example: [bold]idiolect index info products-index[/bold]
    """
    from rich.console import Console

    with open_index(index) as opened:
        facts, weight = _facts(index, opened), opened.hybrid_weight
        description = opened.store.describe()
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    console = Console()
    console.print(overview(index, description))
    encoder = facts["encoder"]
    if encoder is None:
        console.print("no encoder: the vectors came with the items")
    else:
        name = f"{encoder['fingerprint'][:12]}… {encoder['location'] or ''}"
        console.print(f"encoder {name}\nhybrid search: {weight}", markup=False, soft_wrap=True)
    console.print(f"language {facts['language']}")
    if facts["label_field"] is not None:
        console.print(f"label field {facts['label_field']}", markup=False)


def get(
    index: IndexArgument,
    ids: Annotated[list[str], typer.Argument(help="Ids of items.")],
    namespace: NamespaceOption = "",
) -> None:
    """Print items with their vectors, one JSON object per line.

    Example: [bold]idiolect index get products-index p1234[/bold]
    """
    with open_index(index) as opened:
        items = opened.store.fetch(ids, namespace=namespace, vectors=True)
    for item in items.values():
        vector = None if item.vector is None else item.vector.tolist()
        record = {"id": item.id, "text": item.text, "metadata": item.metadata, "vector": vector}
        typer.echo(json.dumps(record, ensure_ascii=False))
    if missing := [id for id in ids if id not in items]:
        raise InputError(f"no item {', '.join(map(repr, missing))}", hint="check the namespace")


def update(
    index: IndexArgument,
    id: Annotated[str, typer.Argument(help="Id of the item.")],
    text: Annotated[str | None, typer.Option(help="New text.")] = None,
    metadata: Annotated[
        str | None,
        typer.Option(help="""Fields to set, such as '{"price": 3}'; null removes a field."""),
    ] = None,
    vector: Annotated[
        str | None, typer.Option(help="New vector, a list of numbers such as '[0.5, -1]'.")
    ] = None,
    namespace: NamespaceOption = "",
    encoder: EncoderOption = None,
) -> None:
    """Change the text, metadata or vector of an item; omitted parts stay unchanged.

    Example: [bold]idiolect index update products-index p1234 --metadata '{"price": 3}'[/bold]
    """
    from idiolect.search.own_vectors import parse_vector

    if text is None and metadata is None and vector is None:
        raise InputError("nothing to change", hint="add --text, --metadata or --vector")
    with open_index(index, encoder) as opened:
        opened.update(
            id,
            text=text,
            metadata=None if metadata is None else _object(metadata),
            vector=None if vector is None else parse_vector(vector, "--vector"),
            namespace=namespace,
        )
    typer.echo(f"updated {id}")


def delete(
    index: IndexArgument,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of the items to delete.")] = None,
    filter: FilterOption = None,
    namespace: NamespaceOption = "",
) -> None:
    """Delete items by id or by filter.

    Example: [bold]idiolect index delete products-index --filter '{"brand": "acme"}'[/bold]
    """
    with open_index(index) as opened:
        count = opened.delete(ids or None, filter=filter, namespace=namespace)
    typer.echo(f"deleted {count:,} items")


def overview(index: Path, description: Description) -> Table:
    """Return a table of the namespaces of an index, with its size in the title."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=f"{escape(str(index))}: {description.items:,} items,"
        f" {description.dimensions} dimensions, {description.metric},"
        f" {shown_size(description.bytes)}",
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


def _facts(path: Path, index: Index) -> dict[str, Any]:
    """Return the description of an index, as JSON."""
    settings, weight = index.store.settings, index.hybrid_weight
    encoder = None
    if "encoder" in settings:
        encoder = {
            "fingerprint": settings["encoder"],
            "location": index.encoder_location,
            "precision": settings.get("precision"),
        }
    description = asdict(index.store.describe())
    items = sum(space["items"] for space in description["namespaces"].values())
    return {
        "path": str(path),
        "items": items,
        **description,
        "language": settings.get("language"),
        "label_field": settings.get("label_field"),
        "encoder": encoder,
        "hybrid": {"weights": weight.weights, "evidence": weight.evidence},
    }


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(
            f"metadata is not a JSON object: {text[:60]}", hint="""for example '{"price": 3}'"""
        )
    return value
