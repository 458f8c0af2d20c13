"""`SegmentOpener`: opens the graphs of a store, in the background if a search need not wait.

Opening a graph reads and checks its files, which takes as long as many searches. After a merge,
searches use the old graph and the newest vectors until the new graph is open.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from idiolect.errors import CheckpointError
from idiolect.search.store.graphs.graph_segment import GraphSegment

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SegmentOpener"]


class SegmentOpener:
    """Opens the segments of a folder. It is safe for concurrent use.

    Args:
        folder: the parent folder of the segments.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._threads: dict[int, tuple[str, threading.Thread]] = {}
        self._opened: dict[int, GraphSegment] = {}

    def open(self, number: int, name: str) -> GraphSegment:
        """Return a segment of a namespace; open it now if it is not open yet.

        Raises:
            CheckpointError: a file is missing or damaged; the message names it.
        """
        with self._lock:
            segment = self._opened.pop(number, None)
        if segment is not None and segment.name == name:
            return segment
        return GraphSegment.open(self._folder / name)

    def prepare(self, number: int, name: str) -> None:
        """Open a segment, so that the next search uses it.

        Raises:
            CheckpointError: a file is missing or damaged; the message names it.
        """
        segment = GraphSegment.open(self._folder / name)
        with self._lock:
            self._opened[number] = segment

    def take(self, number: int, name: str) -> GraphSegment | None:
        """Return a segment of a namespace if it is open, otherwise open it in the background.

        Raises:
            CheckpointError: opening it in the background has failed.
        """
        with self._lock:
            segment = self._opened.get(number)
            if segment is not None and segment.name == name:
                return self._opened.pop(number)
            started, thread = self._threads.get(number, ("", None))
            if thread is not None and thread.is_alive():
                return None
            if started != name:
                thread = threading.Thread(target=self._open_for_later, args=(number, name))
                self._threads[number] = name, thread
                thread.start()
                return None
        return self.open(number, name)  # the thread failed; this raises the error

    def _open_for_later(self, number: int, name: str) -> None:
        with contextlib.suppress(CheckpointError):
            self.prepare(number, name)

    def forget(self, number: int) -> None:
        """Release what was opened for a namespace, which was dropped."""
        with self._lock:
            self._opened.pop(number, None)
            self._threads.pop(number, None)

    def wait(self) -> None:
        """Wait for the segments that are being opened."""
        with self._lock:
            threads = [thread for _, thread in self._threads.values()]
        for thread in threads:
            thread.join()

    def close(self) -> None:
        """Wait, and release the segments that were opened."""
        self.wait()
        self._opened.clear()
