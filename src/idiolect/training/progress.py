"""Progress reporting: a progress bar, `metrics.jsonl` and TensorBoard events.

A caller that draws its own display, such as the pipeline, sets a callback with `report_to`. The run
then calls it after each step and draws nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from idiolect.errors import CheckpointError, MissingDependencyError
from idiolect.text.files import write_atomic

__all__ = ["ProgressCallback", "Reporter", "report_to", "status"]

ProgressCallback = Callable[[int, int, str], None]
"""Called with the completed steps, the total steps and a line of text."""

_callback: ContextVar[ProgressCallback | None] = ContextVar("callback", default=None)


@contextmanager
def report_to(callback: ProgressCallback) -> Iterator[None]:
    """Call `callback` after every step, instead of drawing on the terminal."""
    token = _callback.set(callback)
    try:
        yield
    finally:
        _callback.reset(token)


@contextmanager
def status(text: str) -> Iterator[None]:
    """Show a line of text during work that has no steps."""
    if callback := _callback.get():
        callback(0, 0, text)
        yield
    else:
        with Console(stderr=True).status(text):
            yield


class Reporter:
    """Reports each step; a context manager.

    Args:
        folder: Where to write `metrics.jsonl` and events. With `None` nothing is written or drawn;
            only the callback of `report_to` is called.
        steps: Steps of the whole run.
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
        self._steps = steps
        self._callback = _callback.get()
        if folder is not None:
            if tensorboard:
                self._events = _event_writer(folder / "events", done)
            _truncate_metrics(folder / "metrics.jsonl", done)
            self._file = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=folder is None or self._callback is not None or not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task("", total=steps, completed=done, text="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
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
        self._progress.update(self._task, completed=step, text=text)
        if self._callback is not None:
            self._callback(step, self._steps, text)

    def print(self, text: str) -> None:
        """Print a line on standard error; the first process only."""
        if self._file is not None:
            self._progress.console.print(text)


def _truncate_metrics(path: Path, steps: int) -> None:
    """Delete the lines of steps that will be repeated, and a line that is incomplete."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] > steps:
                break
        except ValueError:
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
