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
from typing import TYPE_CHECKING

import numpy as np

from idiolect.errors import CheckpointError
from idiolect.search.merged import Merged

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from idiolect.search.diskann.graph import Graph
    from idiolect.search.items import Metric
    from idiolect.search.ledger import Ledger

__all__ = ["due", "merge"]

_LOG = logging.getLogger(__name__)


def due(db: sqlite3.Connection, number: int, limit: int) -> bool:
    """Whether a namespace has at least `limit` rows that its graph does not know of, or lost."""
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


def merge(
    ledger: Ledger,
    folder: Path,
    number: int,
    metric: Metric,
    dimensions: int,
    *,
    smallest: int,
    rebuild: bool = False,
) -> None:
    """Bring the graph of one namespace up to date.

    Args:
        ledger: the truth.
        folder: where graphs are, each in a folder of its own.
        number: of the namespace.
        metric: of the store.
        dimensions: of the store.
        smallest: with fewer items than this a namespace gets no graph; comparing one by one is
            as quick.
        rebuild: make it from the start, whatever there is.
    """
    folder.mkdir(exist_ok=True)
    with _alone(folder):
        with ledger.reading() as db:
            found = db.execute(
                "SELECT graph, last_row FROM namespaces WHERE number = ?", (number,)
            ).fetchone()
            if found is None:  # dropped meanwhile
                return
            graph, last_row = found
            epoch = _epoch(db)
            tombstone = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'tombstones'")
            last_tombstone = (tombstone.fetchone() or (0,))[0]
            rows = _numbers(db, number)
            merged = None
            if len(rows) >= smallest:
                old = None if rebuild or not graph else _open(folder / graph)
                made = _next(db, old, rows, metric, dimensions)
                if made is None:
                    return
                merged = Merged.write(folder, *made)
            elif graph is None:
                return
        with ledger.writing() as db:
            if _epoch(db) == epoch:  # otherwise a snapshot was restored: nothing of this holds
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
        with ledger.reading() as db:
            named = {
                name for (name,) in db.execute("SELECT graph FROM namespaces WHERE graph NOTNULL")
            }
        for leftover in folder.iterdir():
            if leftover.is_dir() and leftover.name not in named:
                shutil.rmtree(leftover, ignore_errors=True)


def _next(
    db: sqlite3.Connection,
    old: Merged | None,
    rows: NDArray[np.int64],
    metric: Metric,
    dimensions: int,
) -> tuple[Graph, NDArray[np.int64]] | None:
    """Make the graph of `rows`; None where the old one is that already."""
    from idiolect.search.diskann.graph import Graph

    return Graph.build(_vectors(db, rows, dimensions), metric=metric), rows


def _open(folder: Path) -> Merged | None:
    try:
        return Merged.open(folder)
    except CheckpointError as error:
        _LOG.warning("%s; making it again from the ledger", error.message)
        return None


def _vectors(
    db: sqlite3.Connection, rows: NDArray[np.int64], dimensions: int
) -> NDArray[np.float32]:
    vectors = np.empty((len(rows), dimensions), np.float32)
    query = "SELECT vector FROM vectors WHERE row = ?"
    for place, row in enumerate(rows.tolist()):
        vectors[place] = np.frombuffer(db.execute(query, (row,)).fetchone()[0], "<f4")
    return vectors


def _numbers(db: sqlite3.Connection, number: int) -> NDArray[np.int64]:
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
