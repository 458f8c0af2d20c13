"""`idiolect keys`: the API keys of a server, in a file that it reloads when it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["add", "app", "list_keys", "revoke"]

app = typer.Typer(
    help="Create, list and revoke the keys of `idiolect serve RUN --keys FILE`. A running server"
    " notices changes.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
_File = Annotated[Path, typer.Argument(help="File of keys; only hashes are stored.")]


@app.command("add")
def add(
    file: _File,
    name: Annotated[str, typer.Argument(help="Name of the key, for logs.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="search, encode, generate, write or metrics; repeatable. Default: all."),
    ] = None,
    days: Annotated[
        float | None, typer.Option(help="Days until it expires.", min=0.0001, max=36_500)
    ] = None,
) -> None:
    """Create a key and print it; it is shown only once.

    Example: [bold]idiolect keys add keys.json web --scope search --days 90[/bold]
    """
    from idiolect.serve.access.api_keys import SCOPES, add_key

    typer.echo(add_key(file, name, scope or SCOPES, days))


@app.command("list")
def list_keys(file: _File) -> None:
    """List names, scopes and expiry dates.

    Example: [bold]idiolect keys list keys.json[/bold]
    """
    from idiolect.serve.access.api_keys import read_keys

    for key in read_keys(file):
        typer.echo(f"{key.name}  {','.join(key.scopes)}  expires {key.expires or 'never'}")


@app.command("revoke")
def revoke(file: _File, name: Annotated[str, typer.Argument(help="Name of the key.")]) -> None:
    """Remove a key.

    Example: [bold]idiolect keys revoke keys.json web[/bold]
    """
    from idiolect.serve.access.api_keys import revoke_key

    revoke_key(file, name)
    typer.echo(f"revoked {name}")
