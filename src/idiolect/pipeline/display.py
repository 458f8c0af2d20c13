"""Progress display of a whole run: finished stages, the current one, and the time left.

On a terminal it is a live table; otherwise it prints a line for each finished stage, and some
during a stage.

The remaining time is estimated for stages with a known speed: the current one from its progress,
later ones from an earlier run or from the same stage of another control. While some stages have no
estimate, as in a first run, the display shows only the number of the current stage and its own
remaining time: a sum over the others would be far too small.
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

from idiolect.training.progress import draws_bars, duration, lines_of, print_line

__all__ = ["Display"]


class Display:
    """Display a run on standard error: a live table on a terminal, plain lines otherwise.

    Args:
        stages: Names of the stages, in order.
        expected: Seconds that each stage took before; None if unknown.
    """

    def __init__(self, stages: Sequence[str], expected: Sequence[float | None]) -> None:
        self._stages = list(stages)
        self._expected = dict(zip(stages, expected, strict=True))
        self._taken: dict[str, float] = {}
        self._notes: dict[str, str] = {}
        self._current = ""
        self._text = ""
        self._done = self._total = self._offset = 0
        self._began = self._first = time.monotonic()
        self._live: Live | None = None
        if draws_bars():
            console = Console(stderr=True)
            self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4)
        self._started = time.monotonic()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the display."""
        with self._live or lines_of(self._describe):
            yield

    def say(self, text: str) -> None:
        """Print a remark on a separate line."""
        if self._live is None:
            print_line(text)
        else:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def skip(self, stage: str) -> None:
        """Report that a stage is unchanged."""
        self._notes[stage] = "unchanged"
        self._line(f"{stage}: unchanged")

    @contextmanager
    def running(self, stage: str) -> Iterator[None]:
        """Show a stage while it runs."""
        self._current, self._text = stage, ""
        self._done = self._total = self._offset = 0
        self._began = self._first = time.monotonic()
        yield
        self._taken[stage] = time.monotonic() - self._began
        self._current = ""
        self._line(f"{stage}: {duration(self._taken[stage])}  {self._text}".rstrip())

    def advance(self, done: int, total: int, text: str) -> None:
        """Show the progress of the current stage; a `ProgressCallback` of training.

        Args:
            done: Number of completed units.
            total: Total number of units; 0 if unknown.
            text: A note to show beside the progress.
        """
        if total != self._total or done < self._done:
            self._first, self._total = time.monotonic(), total
            self._offset = done
        self._done, self._text = done, text

    def _left(self) -> tuple[float, bool]:
        """Return the estimated seconds left, and whether all stages have an estimate."""
        left, known = 0.0, True
        for stage in self._stages:
            if stage in self._taken or stage in self._notes:
                continue
            guess = self._stage_left() if stage == self._current else self._guess(stage)
            left, known = left + (guess or 0.0), known and guess is not None
        return left, known

    def _remaining(self) -> str:
        """Return what is left of the run, or of its current stage if later ones have no estimate.

        Empty between stages of a run without estimates.
        """
        left, known = self._left()
        if known:
            return f"about {duration(left)} left in all" if left else ""
        if not self._current:
            return ""
        place = f"stage {self._stages.index(self._current) + 1} of {len(self._stages)}"
        own = self._stage_left()
        return f"{place}, about {duration(own)} left in it" if own else place

    def _stage_left(self) -> float | None:
        moved = self._done - self._offset
        if self._total and moved > 0:
            return (time.monotonic() - self._first) / moved * (self._total - self._done)
        guess = self._guess(self._current)
        return None if guess is None else max(0.0, guess - (time.monotonic() - self._began))

    def _guess(self, stage: str) -> float | None:
        if (before := self._expected[stage]) is not None:
            return before
        plain = stage.rpartition(".")[2]
        same = [s for name, s in self._taken.items() if name.rpartition(".")[2] == plain]
        return same[-1] if same else None

    def _render(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for stage in self._stages:
            if stage in self._taken:
                table.add_row("[green]✓[/green]", stage, duration(self._taken[stage]), "", "")
            elif stage in self._notes:
                table.add_row("[dim]✓[/dim]", stage, f"[dim]{self._notes[stage]}[/dim]", "", "")
            elif stage == self._current:
                elapsed = duration(time.monotonic() - self._began)
                bar = ProgressBar(self._total or None, self._done, 24, pulse=not self._total)
                progress = escape(self._progress_text())
                table.add_row("[bold]▸[/bold]", f"[bold]{stage}[/bold]", elapsed, bar, progress)
            else:
                table.add_row(" ", f"[dim]{stage}[/dim]", "", "", "")
        last = self._remaining()
        if all(stage in self._taken or stage in self._notes for stage in self._stages):
            last = f"{duration(time.monotonic() - self._started)} in total"
        return Group(table, Text(last))

    def _progress_text(self) -> str:
        counted = f"{self._done:,}/{self._total:,}  " if self._total else ""
        return (counted + self._text).rstrip()

    def _describe(self) -> str:
        """Return the state of the current stage in one line."""
        if not self._current:
            return ""
        spent = duration(time.monotonic() - self._began)
        parts = (f"{self._current}: {spent}", self._progress_text(), self._remaining())
        return "  ".join(part for part in parts if part)

    def _line(self, text: str) -> None:
        if self._live is None:
            print_line(text)
