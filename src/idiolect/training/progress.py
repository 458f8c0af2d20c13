"""What a run tells while it goes: a line on the terminal, `metrics.jsonl`, TensorBoard events.

A run that is part of something larger does not draw on the terminal itself: whoever has begun to
`listen` hears its steps and shows them among the rest.
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

__all__ = ["Listener", "Reporter", "listen", "showing"]

Listener = Callable[[int, int, str], None]
"""Hears of steps done, of how many, and of what there is to say about the last one."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Let `listener` hear of every step, instead of drawing on the terminal."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def showing(what: str) -> Iterator[None]:
    """Show that something without steps goes on."""
    if listener := _listener.get():
        listener(0, 0, what)
        yield
    else:
        with Console(stderr=True).status(what):
            yield


class Reporter:
    """Reports each step; used as a context.

    Args:
        folder: Where `metrics.jsonl` and the events go; `None` reports on the terminal only.
        steps: How many there will be.
        done: How many there were; metrics of later ones, from a run that was killed, are dropped.
        tensorboard: Whether to write events.

    Raises:
        MissingDependencyError: TensorBoard is wanted and not installed.
    """

    def __init__(
        self, folder: Path | None, *, steps: int, done: int = 0, tensorboard: bool = False
    ) -> None:
        self._file = None
        self._events: Any = None
        self._steps = steps
        self._listener = _listener.get()
        if folder is not None:
            if tensorboard:
                self._events = _event_writer(folder / "events", done)
            _keep(folder / "metrics.jsonl", done)
            self._file = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=folder is None or self._listener is not None or not sys.stderr.isatty(),
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
        """Report a step, the first being 1.

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
                    hint="make room and start again to go on from the last checkpoint",
                ) from error
        if self._events is not None:
            for name, value in metrics.items():
                self._events.add_scalar(name, value, step)
        bits = f"  {metrics['bits_per_byte']:.3f} bits/byte" if "bits_per_byte" in metrics else ""
        text = f"loss {metrics['loss']:.4f}{bits}  {metrics['tokens_per_second']:,.0f} tokens/s"
        self._progress.update(self._task, completed=step, text=text)
        if self._listener is not None:
            self._listener(step, self._steps, text)

    def say(self, text: str) -> None:
        """Tell a person something, once, on standard error."""
        if self._file is not None:
            self._progress.console.print(text)


def _keep(path: Path, steps: int) -> None:
    """Drop the lines of steps that will be done again, and one that was cut off."""
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
