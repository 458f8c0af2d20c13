"""Report progress on standard error: a bar on a terminal, otherwise a line at intervals.

All long-running tasks report here: training, encoding, index builds, evaluation. A nested task
appears as a note of the outermost one, so there is one bar or line at a time. A caller that draws
its own display, such as the pipeline, sets a callback with `report_to`; then nothing else is drawn.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar, Token
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from idiolect.errors import CheckpointError, MissingDependencyError
from idiolect.text.files import write_atomic

__all__ = [
    "Activity",
    "ProgressCallback",
    "Reporter",
    "draws_bars",
    "duration",
    "lines_of",
    "notice",
    "print_line",
    "report_to",
    "show_progress",
    "status",
    "track",
]

ProgressCallback = Callable[[int, int, str], None]
"""Called with the completed units, the total (0 if unknown) and a line of text."""

_FIRST_LINE, _OTHER_LINES = 10.0, 30.0
"""Seconds until the first line, and between lines, if there is no terminal."""

_Value = TypeVar("_Value")
_callback: ContextVar[ProgressCallback | None] = ContextVar("callback", default=None)
_notices: ContextVar[Callable[[str], None] | None] = ContextVar("notices", default=None)
_outermost: ContextVar[Activity | None] = ContextVar("outermost", default=None)


class Activity:
    """A task in progress.

    Args:
        text: Description, such as `encoding`.
        total: Number of units; 0 if unknown.
        changed: Called after each change.
    """

    def __init__(self, text: str, total: int = 0, changed: Callable[[], None] | None = None):
        self.text, self.total = text, total
        self.done, self.note, self.detail = 0, "", ""
        self.changed = changed or (lambda: None)
        self._began = time.monotonic()
        self._first = 0

    def update(self, done: int | None = None, note: str | None = None) -> None:
        """Report the number of completed units, and a note such as the loss."""
        self.done = self.done if done is None else done
        self.note = self.note if note is None else note
        self.changed()

    def advance(self, count: int = 1) -> None:
        """Report more completed units."""
        self.update(self.done + count)

    def start_at(self, done: int) -> None:
        """Report units completed earlier, which do not count in estimating the remaining time."""
        self._first = done
        self.update(done)

    @property
    def counted(self) -> str:
        """The completed units and the total: `1,200/5,000`."""
        if self.total:
            return f"{self.done:,}/{self.total:,}"
        return f"{self.done:,}" if self.done else ""

    @property
    def notes(self) -> str:
        """The note, and the progress of a nested task."""
        return ": ".join(part for part in (self.note, self.detail) if part)

    def line(self) -> str:
        """Return everything in one line."""
        spent = time.monotonic() - self._began
        times = duration(spent)
        if self.total and self.done > self._first:
            left = spent / (self.done - self._first) * (self.total - self.done)
            times += f", about {duration(left)} left"
        head = f"{self.text}: " if self.text else ""
        return head + "  ".join(part for part in (self.counted, self.notes, times) if part)


@contextmanager
def report_to(
    callback: ProgressCallback, notices: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Call `callback` for progress, and `notices` for messages, instead of drawing."""
    with ExitStack() as stack:
        stack.callback(_callback.reset, _callback.set(callback))
        stack.callback(_notices.reset, _notices.set(notices))
        stack.callback(_outermost.reset, _outermost.set(None))
        yield


@contextmanager
def show_progress(text: str, total: int = 0, *, shown: bool = True) -> Iterator[Activity]:
    """Show the progress of a task with countable units.

    Args:
        text: Description of the task.
        total: Number of units; 0 if unknown.
        shown: Whether to draw. If not, only the enclosing task or the callback of `report_to`
            receives the progress.
    """
    activity = Activity(text, total)
    with ExitStack() as stack:
        if outer := _outermost.get():
            stack.callback(_inside(activity, outer))
        else:
            token = _outermost.set(activity)
            stack.callback(_forget, token)
            if callback := _callback.get():
                activity.changed = lambda: callback(
                    activity.done, activity.total, activity.notes or activity.text
                )
                activity.changed()
                stack.callback(lambda: callback(activity.done, activity.total, activity.note))
            elif shown:
                stack.enter_context(_drawn(activity))
            else:
                # This task is not displayed, so nested tasks may draw.
                _outermost.set(None)
        yield activity


@contextmanager
def status(text: str) -> Iterator[None]:
    """Show that a task without countable units is in progress."""
    with show_progress(text):
        yield


def track(
    values: Iterable[_Value], text: str, total: int = 0, *, shown: bool = True
) -> Iterator[_Value]:
    """Show the progress of a loop over values."""
    with show_progress(text, total, shown=shown) as activity:
        for value in values:
            yield value
            activity.advance()


def notice(text: str) -> None:
    """Print a message on a separate line, without disturbing the progress display."""
    if show := _notices.get():
        show(text)
    else:
        print_line(text)


def draws_bars() -> bool:
    """Return whether standard error is a terminal that can move its cursor.

    Console libraries also treat a file as a terminal if variables such as `FORCE_COLOR` are set.
    """
    try:
        terminal = sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # closed
        return False
    return terminal and not Console(stderr=True).is_dumb_terminal


@contextmanager
def lines_of(describe: Callable[[], str]) -> Iterator[None]:
    """Print a line on standard error at intervals, even if the task does not report progress."""
    ended = threading.Event()

    def print_lines() -> None:
        pause = _FIRST_LINE
        while not ended.wait(pause):
            pause = _OTHER_LINES
            if text := describe():
                print_line(text)

    thread = threading.Thread(target=print_lines, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def duration(seconds: float) -> str:
    """Format a duration.

    >>> duration(75)
    '1:15'
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _forget(token: Token[Activity | None]) -> None:
    # A generator may start in one thread and end in another with a different context.
    with contextlib.suppress(ValueError):
        _outermost.reset(token)


def _inside(activity: Activity, outer: Activity) -> Callable[[], None]:
    """Show a task as a note of the enclosing one; return a function that ends this."""

    def show(text: str) -> None:
        outer.detail = text
        outer.changed()

    def changed() -> None:
        parts = (activity.text, activity.counted, activity.note)
        show(" ".join(part for part in parts if part))

    activity.changed = changed
    changed()
    return lambda: show("")


@contextmanager
def _drawn(activity: Activity) -> Iterator[None]:
    if not draws_bars():
        with lines_of(activity.line):
            yield
        return
    counted = (BarColumn(), TextColumn("{task.fields[counted]}", markup=False))
    bar = Progress(
        *(() if activity.total else (SpinnerColumn(),)),
        TextColumn("{task.description}", markup=False),
        *(counted if activity.total else counted[1:]),
        TextColumn("{task.fields[notes]}", markup=False),
        TimeRemainingColumn() if activity.total else TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(activity.text, total=activity.total or None, counted="", notes="")
        activity.changed = lambda: bar.update(
            task, completed=activity.done, counted=activity.counted, notes=activity.notes
        )
        yield


def print_line(text: str) -> None:
    """Print a line on standard error."""
    # The pipe may be closed; the task itself continues.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class Reporter:
    """Reports each step of training, and writes `metrics.jsonl`; a context manager.

    Args:
        folder: Folder for `metrics.jsonl` and events. With `None` nothing is written or drawn;
            only the callback of `report_to` is called.
        steps: Number of steps of the whole run.
        done: Completed steps. Metrics of later steps, left by a killed run, are deleted.
        tensorboard: Whether to write events.

    Raises:
        MissingDependencyError: `tensorboard` is set, and TensorBoard is not installed.
    """

    def __init__(
        self, folder: Path | None, *, steps: int, done: int = 0, tensorboard: bool = False
    ) -> None:
        self._file = None
        self._events: Any = None
        self._steps, self._done = steps, done
        self._activity = Activity("training", steps)
        self._shown = ExitStack()
        if folder is not None:
            if tensorboard:
                self._events = _event_writer(folder / "events", done)
            _truncate_metrics(folder / "metrics.jsonl", done)
            self._file = (folder / "metrics.jsonl").open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        shown = show_progress("training", self._steps, shown=self._file is not None)
        self._activity = self._shown.enter_context(shown)
        self._activity.start_at(self._done)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._shown.close()
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            self._events.close()

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Report a step, counted from 1.

        Raises:
            CheckpointError: The disk is full or fails.
        """
        if self._file is not None:
            try:
                self._file.write(json.dumps({"step": step, **metrics}) + "\n")
                self._file.flush()
            except OSError as error:
                raise CheckpointError(
                    f"cannot write {self._file.name}: {error.strerror}",
                    hint="make room and run again to resume from the last checkpoint",
                ) from error
        if self._events is not None:
            for name, value in metrics.items():
                self._events.add_scalar(name, value, step)
        bits = f"  {metrics['bits_per_byte']:.3f} bits/byte" if "bits_per_byte" in metrics else ""
        text = f"loss {metrics['loss']:.4f}{bits}  {metrics['tokens_per_second']:,.0f} tokens/s"
        self._activity.update(step, text)


def _truncate_metrics(path: Path, steps: int) -> None:
    """Delete the lines of steps that will be repeated, and an incomplete last line."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] > steps:
                break
        except (ValueError, KeyError, TypeError):
            break
        kept.append(f"{line}\n")
    write_atomic(path, "".join(kept).encode())


def _event_writer(folder: Path, done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError(
            "TensorBoard is not installed", hint="pip install 'idiolect[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder), purge_step=done + 1 if done else None)
