"""Merging: what is new in the ledger goes into a derived graph, while others read and write.

    1. read one state of the ledger: its last row, its last tombstone, the vectors
    2. make the next graph, from the one before it or from the start, beside the old one
    3. in one short write, name the new graph and forget the tombstones it knows
    4. remove the folders that nobody names any more

Killed anywhere, a merge leaves the old graph in place and at worst a folder that the next merge
removes. One process merges at a time; a lock on a file is given back by the system itself when its
process dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import shutil
import threading
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from idiolect.errors import CheckpointError, IdiolectError
from idiolect.search.store.graph_segment import GraphSegment

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from idiolect.search.diskann.metric import Metric
    from idiolect.search.store.ledger import Ledger

__all__ = ["Merger"]

_LOG = logging.getLogger(__name__)
_MOST_CHANGED = 0.5  # of a graph; where more has changed, building again is as quick


class Merger:
    """Merges the namespaces of one store, when told to or when it is time.

    Args:
        ledger: the truth.
        folder: where graphs are, each in a folder of its own.
        metric: of the store.
        dimensions: of the store.
        smallest: how many unmerged items make it time to merge; with fewer items than this a
            namespace gets no graph, since comparing one by one is as quick.
        background: whether merges begin by themselves, beside reads and writes.
    """

    def __init__(
        self,
        ledger: Ledger,
        folder: Path,
        metric: Metric,
        dimensions: int,
        *,
        smallest: int,
        background: bool,
    ) -> None:
        self._ledger = ledger
        self._folder = folder
        self._metric: Metric = metric
        self._dimensions = dimensions
        self._smallest = smallest
        self._background = background
        self._written = Counter[int]()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def close(self) -> None:
        """Wait for a merge that is under way."""
        if self._thread:
            self._thread.join()

    def wrote(self, number: int, count: int) -> None:
        """Take note of a write, and begin a merge of the namespace if it is time."""
        if not self._background:
            return
        with self._lock:
            self._written[number] += count
            if self._written[number] < self._smallest // 10:
                return
            self._written[number] = 0
            if self._thread and self._thread.is_alive():
                return
            with self._ledger.reading() as db:
                if _is_due(db, number, self._smallest):
                    self._thread = threading.Thread(target=self._merge_quietly, args=(number,))
                    self._thread.start()

    def _merge_quietly(self, number: int) -> None:
        """A merge that fails loses nothing: items stay searchable one by one."""
        try:
            self.merge(number)
        except (IdiolectError, OSError) as error:
            _LOG.warning("%s: a merge failed and will be tried again: %s", self._folder, error)

    def merge(self, number: int, *, rebuild: bool = False) -> None:
        """Bring the graph of one namespace up to date now.

        Args:
            number: of the namespace.
            rebuild: make it from the start, whatever there is.
        """
        self._folder.mkdir(exist_ok=True)
        with _alone(self._folder):
            with self._ledger.reading() as db:
                found = db.execute(
                    "SELECT graph FROM namespaces WHERE number = ?", (number,)
                ).fetchone()
                if found is None:  # dropped meanwhile
                    return
                epoch = _epoch(db)
                tombstone = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'tombstones'")
                last_tombstone = (tombstone.fetchone() or (0,))[0]
                rows = _rows(db, number)
                merged = None
                if len(rows) >= self._smallest:
                    old = None if rebuild or not found[0] else _open(self._folder / found[0])
                    merged = self._next(db, old, rows)
            with self._ledger.writing() as db:
                if _epoch(db) == epoch:  # otherwise a snapshot was put back: nothing of this holds
                    db.execute(
                        "UPDATE namespaces SET graph = ?, last_row = ?, last_tombstone = ?,"
                        " forgotten = ? WHERE number = ?",
                        (
                            merged.name if merged else None,
                            int(rows[-1]) if merged else None,
                            last_tombstone if merged else None,
                            last_tombstone,
                            number,
                        ),
                    )
                    db.execute(
                        "DELETE FROM tombstones WHERE namespace = ? AND number <= ?",
                        (number, last_tombstone),
                    )
            self._sweep()

    def _sweep(self) -> None:
        """Remove the graphs that nobody names any more."""
        with self._ledger.reading() as db:
            named = {
                name for (name,) in db.execute("SELECT graph FROM namespaces WHERE graph NOTNULL")
            }
        for leftover in self._folder.iterdir():
            if leftover.is_dir() and leftover.name not in named:
                shutil.rmtree(leftover, ignore_errors=True)

    def _next(
        self, db: sqlite3.Connection, old: GraphSegment | None, rows: NDArray[np.int64]
    ) -> GraphSegment:
        """Write the graph that holds exactly `rows`, ascending; an old one is gone on with."""
        from idiolect.search.diskann.graph import Graph

        if old is not None:
            known = old.rows[old.rows >= 0]
            new = np.setdiff1d(rows, known, assume_unique=True)
            gone = old.numbers(np.setdiff1d(known, rows, assume_unique=True))
            if not len(new) and not len(gone):
                return old
            if len(new) + len(gone) <= _MOST_CHANGED * len(known):
                graph = old.graph
                graph.delete(gone)
                graph.merge()
                places = graph.insert(self._vectors(db, new))
                held = np.full(graph.rows, -1, np.int64)
                held[: len(old.rows)] = old.rows
                held[gone] = -1
                held[places] = new
                return GraphSegment.write(self._folder, graph, held)
        graph = Graph.build(self._vectors(db, rows), metric=self._metric)
        return GraphSegment.write(self._folder, graph, rows)

    def _vectors(self, db: sqlite3.Connection, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        vectors = np.empty((len(rows), self._dimensions), np.float32)
        query = "SELECT vector FROM vectors WHERE row = ?"
        for place, row in enumerate(rows.tolist()):
            vectors[place] = np.frombuffer(db.execute(query, (row,)).fetchone()[0], "<f4")
        return vectors


def _is_due(db: sqlite3.Connection, number: int, limit: int) -> bool:
    """Whether at least `limit` rows of a namespace came or went since its graph was made."""
    row = db.execute("SELECT last_row FROM namespaces WHERE number = ?", (number,)).fetchone()
    if row is None:
        return False
    changed = db.execute(
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM items WHERE namespace = :n AND row > :row"
        " LIMIT :limit)) + (SELECT count(*) FROM (SELECT 1 FROM tombstones WHERE namespace = :n"
        " LIMIT :limit))",
        {"n": number, "row": row[0] or 0, "limit": limit},
    ).fetchone()[0]
    return bool(changed >= limit)


def _open(folder: Path) -> GraphSegment | None:
    try:
        return GraphSegment.open(folder)
    except CheckpointError as error:
        _LOG.warning("%s; making it again from the ledger", error.message)
        return None


def _rows(db: sqlite3.Connection, number: int) -> NDArray[np.int64]:
    cursor = db.execute("SELECT row FROM items WHERE namespace = ? ORDER BY row", (number,))
    return np.fromiter((row for (row,) in cursor), dtype=np.int64)


def _epoch(db: sqlite3.Connection) -> str:
    return str(db.execute("SELECT value FROM settings WHERE name = 'epoch'").fetchone()[0])


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, waiting for it."""
    with (folder / ".lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
