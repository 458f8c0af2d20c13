"""What Ctrl-C does: one line on standard error and exit status 130."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["InterruptibleGroup", "ResumableCommand"]

_EXIT_STATUS = 130
"""What shells report for SIGINT: 128 + 2."""


class ResumableCommand(TyperCommand):
    """A command that continues where it stopped when it is run again."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted; run it again to resume", err=True)
            raise typer.Exit(_EXIT_STATUS) from None


class InterruptibleGroup(TyperGroup):
    """The outermost group: reports an interrupt of commands that cannot be resumed."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(_EXIT_STATUS) from None
