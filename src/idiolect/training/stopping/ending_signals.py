"""Delay termination signals until a step is finished and its state is saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = ["caught_signals", "raise_signal"]

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect the first termination signal; a second one ends the process immediately.

    Signals that are ignored, as under `nohup`, stay ignored.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    usual = {number: signal.getsignal(number) for number in _ENDING}
    usual = {number: handler for number, handler in usual.items() if handler != signal.SIG_IGN}

    def note(number: int, frame: object) -> None:
        caught.append(number)
        signal.signal(number, usual[signal.Signals(number)])

    for number in usual:
        signal.signal(number, note)
    try:
        yield caught
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def raise_signal(caught: Sequence[int], state: str) -> None:
    """Raise the exception of a delayed signal."""
    if signal.SIGINT in caught:
        raise KeyboardInterrupt(state)
    # Another process of the run may have received it.
    raise SystemExit(128 + (caught[0] if caught else signal.SIGTERM))
