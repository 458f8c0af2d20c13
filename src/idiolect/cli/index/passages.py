"""`idiolect index passages`: split the items of an index into passages, for answers."""

from __future__ import annotations

from typing import Annotated

import typer

from idiolect.cli.index.options import (
    EncoderOption,
    IndexArgument,
    NamespaceOption,
    check_namespace,
    open_index,
)
from idiolect.search.passages import PASSAGE_LENGTH

__all__ = ["passages"]


def passages(
    index: IndexArgument,
    max_length: Annotated[
        int, typer.Option(help="Maximum words of a passage.", min=8, max=10_000)
    ] = PASSAGE_LENGTH,
    namespace: NamespaceOption = "",
    encoder: EncoderOption = None,
) -> None:
    """Split the items into passages, which `idiolect answer` then searches.

    Passages follow later changes of the items. Run it again to resume.

    Example: [bold]idiolect index passages products-index --max-length 96[/bold]
    """
    with open_index(index, encoder) as opened:
        check_namespace(opened, namespace)
        items = opened.store.namespaces().get(namespace, 0)
        count = opened.add_passages(max_length, namespace=namespace, progress=True)
    typer.echo(f"{count:,} passages of {items:,} items")
