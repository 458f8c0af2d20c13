"""`idiolect mcp`: serve an index to assistants over the Model Context Protocol."""

from __future__ import annotations

from typing import Annotated

import typer

from idiolect.cli.index.options import EncoderOption, IndexArgument, open_index
from idiolect.errors import MissingDependencyError

__all__ = ["mcp"]


def mcp(
    index: IndexArgument,
    writable: Annotated[
        bool, typer.Option("--writable", help="Also offer tools that add and delete items.")
    ] = False,
    encoder: EncoderOption = None,
) -> None:
    r"""Serve an index to an assistant over standard input and output.

    Needs the package mcp: pip install 'idiolect\[mcp]'.

    The tools are search, similar and get. Enter this command in the assistant's list of servers.

    Example: [bold]idiolect mcp products-index[/bold]
    """
    try:
        from idiolect.integrations.mcp_tools import make_server
    except ImportError as error:
        raise MissingDependencyError(
            f"{error.name} is needed to serve an assistant", hint="pip install 'idiolect[mcp]'"
        ) from error
    with open_index(index, encoder) as opened:
        make_server(opened, writable=writable).run("stdio")
