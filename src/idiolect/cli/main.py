"""The `idiolect` command: its subcommands, and how errors are printed."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections import UserDict
from importlib import import_module
from inspect import cleandoc
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command, get_group

from idiolect import __version__
from idiolect.cli.endings import (
    InterruptibleGroup,
    ResumableCommand,
    ending_by_signal,
    name_options,
    write_any_text,
)
from idiolect.errors import IdiolectError

__all__ = ["app", "main"]

_COMMANDS: dict[str, tuple[str, str, type[TyperCommand]]] = {
    "demo": ("demo", "demo", ResumableCommand),
    "init": ("run", "init", TyperCommand),
    "run": ("run", "run", ResumableCommand),
    "report": ("run", "report", TyperCommand),
    "models": ("models", "models", TyperCommand),
    "doctor": ("models", "doctor", TyperCommand),
    "audit": ("vocabulary", "audit", TyperCommand),
    "extend": ("extension", "extend", TyperCommand),
    "distill": ("extension", "distill", ResumableCommand),
    "pretrain": ("pretrain", "pretrain", ResumableCommand),
    "merge": ("pretrain", "merge", TyperCommand),
    "encode": ("encode", "encode", ResumableCommand),
    "export": ("export.app", "app", TyperCommand),
    "generate-queries": ("encode", "generate_queries", ResumableCommand),
    "generate": ("generation.writing", "generate", TyperCommand),
    "chat": ("generation.writing", "chat", TyperCommand),
    "translate": ("translate.app", "app", TyperCommand),
    "search": ("index.searching", "search", TyperCommand),
    "answer": ("answers.answering", "answer", TyperCommand),
    "rerank": ("ranking", "rerank", TyperCommand),
    "similar": ("index.searching", "similar", TyperCommand),
    "launch": ("scale.launching", "launch", TyperCommand),
    "mcp": ("mcp.command", "mcp", TyperCommand),
    "index": ("index.app", "app", TyperCommand),
    "serve": ("serve.serving", "serve", TyperCommand),
    "keys": ("serve.keys", "app", TyperCommand),
    "recommend": ("recommend.commands", "app", TyperCommand),
    "words": ("words.app", "app", TyperCommand),
    "tasks": ("tasks.app", "app", TyperCommand),
    "probe": ("tasks.probe", "probe", TyperCommand),
    "prompt": ("prompting.app", "app", TyperCommand),
    "tune": ("tune", "app", TyperCommand),
    "align": ("align.app", "app", TyperCommand),
    "tokenizer": ("tokenizer", "app", TyperCommand),
    "evaluate": ("evaluate", "app", TyperCommand),
}
"""For each command: its module, the function or group there, and how it can be interrupted."""


class _Commands(UserDict[str, Any]):
    """The commands by name, imported on first use, so that a command loads only its own module."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(_COMMANDS))

    def __getitem__(self, name: str) -> Any:
        if name in _COMMANDS and self.data[name] is None:
            module, attribute, kind = _COMMANDS[name]
            found = getattr(import_module(f"idiolect.cli.{module}"), attribute)
            if isinstance(found, typer.Typer):
                command: Any = get_group(found)
            else:
                alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
                alone.command(name, cls=kind)(found)
                command = get_command(alone)
            command.name = name
            _unwrap_help(command)
            self.data[name] = command
        return super().__getitem__(name)


def _unwrap_help(command: Any) -> None:
    """Join the lines of each paragraph of the help, since a terminal wraps them at its own width.

    An example that begins a line stays there, so that it can be copied.
    """
    command.help = re.sub(r"(?<!\n)\n(?!\n|\[bold\]idiolect )", " ", cleandoc(command.help or ""))
    for child in getattr(command, "commands", {}).values():
        _unwrap_help(child)


class _LazyGroup(InterruptibleGroup):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = _Commands()


app = typer.Typer(
    name="idiolect",
    cls=_LazyGroup,
    help="Teach a language model your domain's words, then search, rank and recommend with it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    """Run the command line. An expected error prints one line to stderr and exits with status 2."""
    write_any_text()
    if sys.stderr is None or not sys.stderr.isatty():
        # Progress bars move the cursor, which would become one endless line in a file or pipe.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        with ending_by_signal():
            app()
    except BrokenPipeError:
        # The reader, such as `head`, has closed the pipe.
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
            message = name_options(message, get_command(app), sys.argv[1:])
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
    if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):  # torch's CPU
        return _explain(MemoryError())
    if type(error).__name__ == "OutOfMemoryError":  # from torch, which is not imported here
        return "the accelerator has not enough memory (use smaller batches)"
    return None
