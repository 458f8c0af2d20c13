"""Merging: add new items of the ledger to a derived graph, while others read and write.

    1. read one state of the ledger: its last row, its last tombstone, the vectors
    2. write the next graph next to the old one, either updated from it or built from scratch
    3. in one short write transaction, publish the new graph and purge the tombstones applied to it
    4. remove the graph folders that the ledger no longer names

A merge that is killed leaves the old graph in use, and at worst files that the next merge removes.
A file lock lets one process merge at a time; the system releases it if the process dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import shutil
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from idiolect.errors import CheckpointError, IdiolectError
from idiolect.search.diskann.thread_pool import work_in_background
from idiolect.search.store.graphs.graph_segment import GraphSegment
from idiolect.search.store.graphs.graph_writer import VECTORS
from idiolect.search.store.graphs.merge_kernels import load_kernels

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from idiolect.search.store.graphs.graph_writer import GraphWriter
    from idiolect.search.store.ledger import Ledger

__all__ = ["Merger"]

_LOG = logging.getLogger(__name__)
_PAUSE = 0.05  # seconds without a write after which a background merge starts
_LOOK = 10.0  # seconds between looks at the writes of other processes
_MAX_PAUSES = 10  # maximum number of pauses to wait


class Merger:
    """Merges the namespaces of one store, on request or in the background.

    Args:
        ledger: the source of truth.
        folder: the parent folder of the graph segments.
        writer: writes the graphs.
        min_items: the number of unmerged items that triggers a background merge. A namespace with
            fewer items gets no graph, since an exhaustive search is as fast.
        background: whether writes trigger merges in a background thread.
    """

    def __init__(
        self,
        ledger: Ledger,
        folder: Path,
        writer: GraphWriter,
        *,
        min_items: int,
        background: bool,
    ) -> None:
        self._ledger = ledger
        self._folder = folder
        self._writer = writer
        self._min_items = min_items
        self._background = background
        self._written = Counter[int]()
        self._writes = 0
        self._candidates = set[int]()  # namespaces that may be due
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._looked_at: object = None  # the state of the ledger
        self._looks_again = 0.0
        self._is_busy = False  # whether the thread will look for candidates again

    def close(self) -> None:
        """Wait for a running merge."""
        self._closing.set()
        if self._thread:
            self._thread.join()

    def record_write(self, number: int, count: int) -> None:
        """Count a write, and start a background merge of the namespace if it is due."""
        if not self._background:
            return
        with self._lock:
            self._writes += 1
            self._written[number] += count
            if self._written[number] < self._min_items // 10:
                return
            self._written[number] = 0
            self._candidates.add(number)
            self._start()

    def start_due(self) -> None:
        """Start background merges of the namespaces that are due after writes of any process.

        It looks at most every ten seconds, and only if there were writes.
        """
        if not self._background or time.monotonic() < self._looks_again:
            return
        self._looks_again = time.monotonic() + _LOOK
        query = "SELECT value FROM settings WHERE name IN ('changes', 'epoch') ORDER BY name"
        with self._ledger.reading() as db:
            state = db.execute(query).fetchall()
            numbers = {number for (number,) in db.execute("SELECT number FROM namespaces")}
        if state != self._looked_at:
            self._looked_at = state
            with self._lock:
                self._candidates |= numbers
                self._start()

    def _start(self) -> None:
        """Merge the candidates that are due in a thread, unless one runs, which will see them."""
        if self._is_busy and self._thread and self._thread.is_alive():
            return
        number = self._next_due()
        self._is_busy = number is not None
        if number is not None:
            self._thread = threading.Thread(target=self._merge_all, args=(number,))
            self._thread.start()

    def _next_due(self) -> int | None:
        """Take a candidate that is due."""
        while self._candidates and not self._closing.is_set():
            number = self._candidates.pop()
            with self._ledger.reading() as db:
                if _is_due(db, number, self._min_items):
                    return number
        return None

    def _merge_all(self, number: int | None) -> None:
        """Merge a namespace, and then those that have become due in the meantime."""
        while number is not None:
            self._merge_or_warn(number)
            with self._lock:
                number = self._next_due()
                self._is_busy = number is not None

    def _merge_or_warn(self, number: int) -> None:
        """Merge, and only log an error: unmerged items stay searchable."""
        self._wait_for_pause()
        try:
            load_kernels(on_disk=self._writer.on_disk)
            work_in_background()
            self.merge(number)
        except (IdiolectError, OSError) as error:
            _LOG.warning("%s: a merge failed and will be retried: %s", self._folder, error)

    def _wait_for_pause(self) -> None:
        """Wait until writes pause, for half a second at most.

        Items that are loaded in many batches are then merged once, and the merge does not compete
        with the loading for processors and the GIL.
        """
        for _ in range(_MAX_PAUSES):
            before = self._writes
            if self._closing.wait(_PAUSE) or self._writes == before:
                return

    def merge(self, number: int, *, rebuild: bool = False) -> str | None:
        """Update the graph of one namespace now, and return its new segment, if it has one.

        Args:
            number: the number of the namespace.
            rebuild: build the graph from scratch even if it could be updated.
        """
        self._ledger.check_writable()
        self._folder.mkdir(exist_ok=True)
        with _exclusive_lock(self._folder):
            with self._ledger.reading() as db:
                found = db.execute(
                    "SELECT graph, ifnull(last_tombstone, 0) FROM namespaces WHERE number = ?",
                    (number,),
                ).fetchone()
                if found is None:  # the namespace was dropped in the meantime
                    return None
                epoch = _epoch(db)
                sequence = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'tombstones'")
                last_tombstone = (sequence.fetchone() or (0,))[0]
                rows = _rows(db, number)
                write = None
                if len(rows) >= self._min_items:
                    old = None if rebuild or not found[0] else _open(self._folder / found[0])
                    write = self._writer.prepare(db, number, old, rows)
            # Outside of the transaction: SQLite's log would grow with the writes of others.
            graph = write() if write else None
            published: str | None = None
            with self._ledger.writing() as db:
                # After a restore, row numbers have another meaning, so discard the merge.
                if _epoch(db) == epoch:
                    # Readers of the old graph still need the tombstones added after it was built.
                    forgotten = found[1] if graph else last_tombstone
                    db.execute(
                        "UPDATE namespaces SET graph = ?, last_row = ?, last_tombstone = ?,"
                        " forgotten = max(forgotten, ?) WHERE number = ?",
                        (
                            graph,
                            int(rows[-1]) if graph else None,
                            last_tombstone if graph else None,
                            forgotten,
                            number,
                        ),
                    )
                    db.execute(
                        "DELETE FROM tombstones WHERE namespace = ? AND number <= ?",
                        (number, forgotten),
                    )
                    published = graph
            self._remove_unused()
        return None if published == found[0] else published

    def clean(self) -> None:
        """Remove files that nobody uses, unless a merge is running, which does so at its end."""
        with contextlib.suppress(OSError), _exclusive_lock(self._folder, wait=False):
            self._remove_unused()

    def _remove_unused(self) -> None:
        """Remove the graph folders that the ledger no longer names, and files of killed merges."""
        with self._ledger.reading() as db:
            used = {
                name for (name,) in db.execute("SELECT graph FROM namespaces WHERE graph NOTNULL")
            }
        for path in self._folder.iterdir():
            if path.is_dir() and path.name not in used:
                shutil.rmtree(path, ignore_errors=True)
            elif path.name.startswith(VECTORS):
                path.unlink(missing_ok=True)


def _is_due(db: sqlite3.Connection, number: int, limit: int) -> bool:
    """Return whether there were at least `limit` insertions and deletions since the last merge."""
    query = "SELECT ifnull(last_row, 0), ifnull(last_tombstone, 0) FROM namespaces WHERE number = ?"
    merged = db.execute(query, (number,)).fetchone()
    if merged is None:
        return False
    changed = db.execute(
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM items WHERE namespace = :n AND row > :row"
        " LIMIT :limit)) + (SELECT count(*) FROM (SELECT 1 FROM tombstones WHERE namespace = :n"
        " AND number > :tombstone LIMIT :limit))",
        {"n": number, "row": merged[0], "tombstone": merged[1], "limit": limit},
    ).fetchone()[0]
    return bool(changed >= limit)


def _open(folder: Path) -> GraphSegment | None:
    try:
        return GraphSegment.open(folder)
    except CheckpointError as error:
        _LOG.warning("%s; rebuilding it from the ledger", error.message)
        return None


def _rows(db: sqlite3.Connection, number: int) -> NDArray[np.int64]:
    cursor = db.execute("SELECT row FROM items WHERE namespace = ? ORDER BY row", (number,))
    return np.fromiter((row for (row,) in cursor), dtype=np.int64)


def _epoch(db: sqlite3.Connection) -> str:
    return str(db.execute("SELECT value FROM settings WHERE name = 'epoch'").fetchone()[0])


@contextlib.contextmanager
def _exclusive_lock(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Wait for the folder's lock, and hold it.

    Raises:
        BlockingIOError: another process or thread holds it, and this one should not wait.
    """
    with (folder / ".lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
