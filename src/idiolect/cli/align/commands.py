"""Several commands from one function, each with only the options that it supports."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

__all__ = ["command_of"]


def command_of(
    function: Callable[..., None], name: str, doc: str, *, without: Collection[str] = ()
) -> Callable[..., None]:
    """Return a typer command that calls a function with a name as its first argument.

    Args:
        function: Its first parameter is the name; the others are arguments and options.
        name: The command's name.
        doc: The help text of the command.
        without: Options that the command does not offer; they keep their defaults.
    """
    signature = inspect.signature(function, eval_str=True)
    _, *parameters = signature.parameters.values()
    defaults = {one.name: one.default for one in parameters if one.name in without}

    def command(**options: Any) -> None:
        function(name, **defaults, **options)

    kept = [one for one in parameters if one.name not in without]
    command.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in kept}
    command.__name__, command.__doc__ = name, doc
    return command
