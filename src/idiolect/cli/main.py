"""The `idiolect` command: its subcommands, and how errors are printed."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from idiolect import __version__
from idiolect.cli import (
    demo,
    encode,
    evaluate,
    extension,
    index,
    models,
    pretrain,
    ranking,
    run,
    search,
    tokenizer,
    tune,
    vocabulary,
)
from idiolect.cli.interruption import InterruptibleGroup, ResumableCommand
from idiolect.errors import IdiolectError

__all__ = ["app", "main"]

app = typer.Typer(
    name="idiolect",
    cls=InterruptibleGroup,
    help="Teach a language model your domain's words, then search and rank with it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo", cls=ResumableCommand)(demo.demo)
app.command("init")(run.init)
app.command("run", cls=ResumableCommand)(run.run)
app.command("report")(run.report)
app.command("models")(models.models)
app.command("doctor")(models.doctor)
app.command("audit")(vocabulary.audit)
app.command("extend")(extension.extend)
app.command("distill", cls=ResumableCommand)(extension.distill)
app.command("pretrain", cls=ResumableCommand)(pretrain.pretrain)
app.command("encode", cls=ResumableCommand)(encode.encode)
app.command("search")(search.search)
app.command("rerank")(ranking.rerank)
app.command("similar")(search.similar)
app.add_typer(index.app, name="index")
app.add_typer(tune.app, name="tune")
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(evaluate.app, name="evaluate")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"idiolect {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options before the command."""


def main() -> None:
    """Run the command line. An expected error is one line on standard error and exit status 2."""
    try:
        app()
    except IdiolectError as error:
        typer.echo(f"idiolect: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        typer.echo(f"idiolect: {error.filename or 'system'}: {error.strerror}", err=True)
        sys.exit(2)
