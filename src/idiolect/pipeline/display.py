"""One display for a whole road: which steps are done, how far the present one is, what is left.

What is notable: the time that is left is only told for steps of which something is known: the one
at work by its rate, later ones by an earlier run of theirs, or by a step of the same kind that this
run has already done. While some are not known, it says "at least".
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

__all__ = ["Display"]


class Display:
    """Shows a road's steps on standard error: a table that moves on a terminal, else lines.

    Args:
        steps: Their names, in order.
        expected: For each what it took before, in seconds; None where nothing is known.
    """

    def __init__(self, steps: Sequence[str], expected: Sequence[float | None]) -> None:
        self._steps = list(steps)
        self._expected = dict(zip(steps, expected, strict=True))
        self._taken: dict[str, float] = {}
        self._notes: dict[str, str] = {}
        self._current = ""
        self._text = ""
        self._done = self._total = self._offset = 0
        self._began = self._first = time.monotonic()
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=4)
        self._started = time.monotonic()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it."""
        if not self._console.is_terminal:
            yield
            return
        with self._live:
            yield

    def skip(self, step: str) -> None:
        """Say that a step is done already."""
        self._notes[step] = "unchanged"
        self._line(f"{step}: unchanged")

    @contextmanager
    def running(self, step: str) -> Iterator[None]:
        """Show a step while it runs."""
        self._current, self._text = step, ""
        self._done = self._total = self._offset = 0
        self._began = self._first = time.monotonic()
        yield
        self._taken[step] = time.monotonic() - self._began
        self._current = ""
        self._line(f"{step}: {_duration(self._taken[step])}  {self._text}")

    def advance(self, done: int, total: int, text: str) -> None:
        """Hear how far the present step is; a `ProgressCallback` of training.

        Args:
            done: How many of its units are done.
            total: How many there are; 0 if nobody knows.
            text: What there is to say.
        """
        if total != self._total or done < self._done:
            self._first, self._total = time.monotonic(), total
            self._offset = done
        self._done, self._text = done, text

    def _left(self) -> tuple[float, bool]:
        """Return the seconds that are left as far as they are known, and whether all are."""
        left, known = 0.0, True
        for step in self._steps:
            if step in self._taken or step in self._notes:
                continue
            guess = self._step_left() if step == self._current else self._guess(step)
            left, known = left + (guess or 0.0), known and guess is not None
        return left, known

    def _step_left(self) -> float | None:
        moved = self._done - self._offset
        if self._total and moved > 0:
            return (time.monotonic() - self._first) / moved * (self._total - self._done)
        guess = self._guess(self._current)
        return None if guess is None else max(0.0, guess - (time.monotonic() - self._began))

    def _guess(self, step: str) -> float | None:
        if (before := self._expected[step]) is not None:
            return before
        kind = step.rpartition(".")[2]
        alike = [seconds for name, seconds in self._taken.items() if name.endswith(kind)]
        return alike[-1] if alike else None

    def _render(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for step in self._steps:
            if step in self._taken:
                table.add_row("[green]✓[/green]", step, _duration(self._taken[step]), "", "")
            elif step in self._notes:
                table.add_row("[dim]✓[/dim]", step, f"[dim]{self._notes[step]}[/dim]", "", "")
            elif step == self._current:
                elapsed = _duration(time.monotonic() - self._began)
                bar = ProgressBar(self._total or None, self._done, 24, pulse=not self._total)
                table.add_row("[bold]▸[/bold]", f"[bold]{step}[/bold]", elapsed, bar, self._told())
            else:
                table.add_row(" ", f"[dim]{step}[/dim]", "", "", "")
        left, known = self._left()
        last = f"{'' if known else 'at least '}{_duration(left)} left"
        if all(step in self._taken or step in self._notes for step in self._steps):
            last = f"{_duration(time.monotonic() - self._started)} in all"
        return Group(table, Text(last))

    def _told(self) -> str:
        counted = f"{self._done:,}/{self._total:,}  " if self._total else ""
        return escape(counted + self._text)

    def _line(self, text: str) -> None:
        if not self._console.is_terminal:
            self._console.print(text, markup=False, highlight=False)


def _duration(seconds: float) -> str:
    """Write a time for people.

    >>> _duration(75)
    '1:15'
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
