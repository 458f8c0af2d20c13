"""The `idiolect` command: its subcommands, and how errors are printed."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from idiolect import __version__
from idiolect.cli import (
    demo,
    encode,
    evaluate,
    extension,
    models,
    pretrain,
    ranking,
    run,
    tokenizer,
    tune,
    vocabulary,
)
from idiolect.cli.endings import (
    InterruptibleGroup,
    ResumableCommand,
    ending_by_signal,
    name_options,
    write_any_text,
)
from idiolect.cli.index import app as index_app
from idiolect.cli.index import searching
from idiolect.cli.recommend import commands as recommend_commands
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
app.command("merge")(pretrain.merge)
app.command("encode", cls=ResumableCommand)(encode.encode)
app.command("export")(encode.export)
app.command("generate-queries", cls=ResumableCommand)(encode.generate_queries)
app.command("search")(searching.search)
app.command("rerank")(ranking.rerank)
app.command("similar")(searching.similar)
app.add_typer(index_app.app, name="index")
app.add_typer(tune.app, name="tune")
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(recommend_commands.app, name="recommend")


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
    write_any_text()
    if sys.stderr is None or not sys.stderr.isatty():
        # Its bars move the cursor, which a file or a pipe would keep as one endless line.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        with ending_by_signal():
            app()
    except BrokenPipeError:
        # The reader, such as `head`, has what it wanted.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except (IdiolectError, OSError, MemoryError, OverflowError, RuntimeError) as error:
        message = _explain(error)
        if message is None:
            raise
        typer.echo(f"idiolect: {message}", err=True)
        sys.exit(2)


def _explain(error: Exception) -> str | None:
    """Return an expected error in one line; None for other errors."""
    if isinstance(error, IdiolectError):
        message = " ".join(str(error).splitlines())
        if "_" in message or "=" in message:
            message = name_options(message, typer.main.get_command(app), sys.argv[1:])
        return message
    if isinstance(error, OSError):
        where = error.filename if error.filename is not None else "system"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = " (free some space and run it again)" if full else ""
        return f"{where}: {error.strerror or error}{hint}"
    if isinstance(error, OverflowError):
        return f"a number is too large: {error}"
    if isinstance(error, MemoryError):
        return "there is not enough memory (use smaller batches, or less data at a time)"
    if type(error).__name__ == "OutOfMemoryError":  # of torch, which is not imported here
        return "the accelerator has not enough memory (use smaller batches)"
    return None
