"""Early ends of commands: one line on standard error, and an exit status.

130, 143, 129   Ctrl-C, SIGTERM, SIGHUP: 128 + signal number, as in shells
2               an expected error; the message names options as they are typed
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = [
    "InterruptibleGroup",
    "ResumableCommand",
    "ending_by_signal",
    "name_options",
    "write_any_text",
]

_INTERRUPTED = 128 + signal.SIGINT
_TERMINATED = (128 + signal.SIGTERM, 128 + signal.SIGHUP)
_ASSIGNED = re.compile(r"(?<![\w./-])([a-z]\w*)=('[^']*'|\"[^\"]*\"|[\w.+-]+)")
_NAMED = re.compile(r"(?<![\w./=-])([a-z]+(?:_[a-z0-9]+)+)(?![\w/(]|\.\w)")
_OTHER_NAMES = {"output_dir": "out", "target_modules": "lora_target_modules", "r": "lora_r"}
"""Function arguments whose options have another name."""


class ResumableCommand(TyperCommand):
    """A command that continues where it stopped when it is run again."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _reporting_signals("; run it again to resume"):
            return super().invoke(ctx)


class InterruptibleGroup(TyperGroup):
    """The root group: reports the interruption of commands that cannot be resumed."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            with _reporting_signals(""):
                return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = _plain_problem(error.message)
            raise


def _plain_problem(message: str) -> str:
    """Return what is wrong with an option's value, in plain words instead of the parser's.

    >>> _plain_problem("Input should be a valid integer, unable to parse string as an integer")
    'it must be a whole number'
    >>> _plain_problem("'hybird' is not one of 'hybrid', 'dense'")
    "'hybird' is not one of 'hybrid', 'dense'. Did you mean 'hybrid'?"
    """
    message = re.sub(r"^Value error, |, unable to parse string as an? \w+$", "", message)
    message = message.replace("Input should be", "it must be").rstrip(".")
    message = message.replace("a valid integer", "a whole number")
    message = message.replace("a valid number", "a number")
    choice = re.fullmatch(r"'(.*)' is not one of ('.*')", message)
    if choice and (near := get_close_matches(choice[1], choice[2].strip("'").split("', '"), 1)):
        return f"{message}. Did you mean '{near[0]}'?"
    return message


@contextmanager
def _reporting_signals(advice: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted{advice}", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    except SystemExit as error:
        if error.code not in _TERMINATED:
            raise
        typer.echo(f"terminated{advice}", err=True)
        raise typer.Exit(int(error.code or 0)) from None


@contextmanager
def ending_by_signal() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into exceptions, so that files are cleaned up.

    Ignored signals, as under `nohup`, stay ignored.
    """

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    signals = (signal.SIGTERM, signal.SIGHUP)
    caught = [one for one in signals if signal.getsignal(one) == signal.SIG_DFL]
    for one in caught:
        signal.signal(one, end)
    try:
        yield
    finally:
        for one in caught:
            signal.signal(one, signal.SIG_DFL)


def write_any_text() -> None:
    """Replace characters that the encoding of the output lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")


def name_options(message: str, command: Any, words: Sequence[str]) -> str:
    """Replace Python argument names in an error message with the options of the command.

    `use mode='lexical'` becomes `use --mode lexical`, and `max_length is 0` becomes
    `--max-length is 0`.

    Args:
        message: The message.
        command: The root command.
        words: The command-line arguments after the program's name.
    """
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    options = {
        parameter.name: max(parameter.opts, key=len)
        for parameter in getattr(command, "params", ())
        if parameter.opts[0].startswith("-")
    }

    def option(name: str) -> str | None:
        return options.get(name) or options.get(_OTHER_NAMES.get(name, ""))

    def assigned(match: re.Match[str]) -> str:
        name, value = option(match[1]), match[2].strip("'\"")
        if name is None:
            return match[0]
        return name if value == "True" else f"{name} {value}"

    message = _ASSIGNED.sub(assigned, message)
    return _NAMED.sub(lambda match: option(match[1]) or match[0], message)
