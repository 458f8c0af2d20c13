"""The ledger: one SQLite file in WAL mode, the only truth of a store.

Everything a store knows is written here in one transaction: items, texts, metadata, vectors, the
words and facts that find them, and a tombstone for every row that went. A row number is never used
twice and belongs to one vector for good, so row numbers are the change sequence that derived files
follow: what is newer than a file is above its last row, what is gone has a tombstone.

`synchronous=FULL`: a write is on the disk before it is acknowledged. Any number of processes read
while one writes; a second writer waits its turn.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import uuid
from typing import TYPE_CHECKING

from idiolect.errors import CheckpointError, IdiolectError, InputError
from idiolect.search.store.metadata_index import MetadataIndex

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["APPLICATION", "Ledger", "open_database"]

APPLICATION = 0x1D101EC7
"""SQLite's application id of our files."""

_VERSION = 1
_SCHEMA = f"""
    CREATE TABLE settings (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
    CREATE TABLE namespaces (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        -- The latest tombstone that is no longer kept: who has not seen it reads everything again.
        forgotten INTEGER NOT NULL DEFAULT 0,
        -- The derived graph: its folder, its last row, and the latest tombstone it knows.
        graph TEXT, last_row INTEGER, last_tombstone INTEGER
    );
    CREATE TABLE items (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        namespace INTEGER NOT NULL,
        id TEXT NOT NULL,
        text TEXT NOT NULL,
        metadata TEXT NOT NULL,
        checksum INTEGER NOT NULL,
        UNIQUE (namespace, id)
    );
    CREATE INDEX items_by_row ON items (namespace, row);
    CREATE TABLE vectors (row INTEGER PRIMARY KEY, vector BLOB NOT NULL);
    CREATE TABLE tombstones (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        namespace INTEGER NOT NULL,
        row INTEGER NOT NULL
    );
    CREATE INDEX tombstones_of ON tombstones (namespace, number);
    {MetadataIndex.SCHEMA}
    PRAGMA application_id = {APPLICATION};
    PRAGMA user_version = {_VERSION};
"""


class Ledger:
    """Connections to one ledger file, one for each thread, and transactions on them.

    Args:
        path: the file, which exists and is ours: see `Ledger.create`.
        wait: seconds a writer waits for another one.

    Raises:
        InputError: the file is missing, or another program's.
        CheckpointError: it is damaged, or of a newer version.
    """

    def __init__(self, path: Path, wait: float) -> None:
        self.path = path
        self._wait = wait
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        if not path.is_file():
            raise InputError(f"no index at {path.parent}", hint="build one first")
        with self.reading() as db:
            _check(db, path)

    @classmethod
    def create(cls, path: Path, wait: float, settings: dict[str, str | int]) -> None:
        """Create the file unless it is there; it is never seen without its tables.

        Raises:
            InputError: a file of another program is there.
        """
        db = open_database(path, wait)
        try:
            with _told(path):
                if _owner(db) == APPLICATION:
                    return
                if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise _foreign(path)
                db.execute("PRAGMA page_size = 8192")
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("BEGIN IMMEDIATE")
                if _owner(db) != APPLICATION:  # another process may have been quicker
                    for statement in _SCHEMA.split(";"):
                        db.execute(statement)
                    named = {"epoch": uuid.uuid4().hex, "changes": 0, **settings}
                    db.executemany("INSERT INTO settings VALUES (?, ?)", named.items())
                db.execute("COMMIT")
        finally:
            db.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One state of the store, however much is written meanwhile."""
        db = self._connection()
        with _told(self.path):
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("ROLLBACK")

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; on the disk when the block is left.

        Raises:
            InputError: another process was still writing when the wait was over.
        """
        db = self._connection()
        with _told(self.path):
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("UPDATE settings SET value = value + 1 WHERE name = 'changes'")
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A connection outside any transaction, for what SQLite does as a whole."""
        with _told(self.path):
            yield self._connection()

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._lock:
            for db in self._open:
                db.close()
            self._open.clear()
            self._local = threading.local()

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection; one must not be carried over a fork."""
        if getattr(self._local, "process", None) != os.getpid():
            self._local.db = open_database(self.path, self._wait)
            self._local.process = os.getpid()
            with self._lock:
                self._open.append(self._local.db)
        db: sqlite3.Connection = self._local.db
        return db


def open_database(path: Path, wait: float) -> sqlite3.Connection:
    """Open an SQLite file; transactions are begun and ended by hand."""
    try:
        db = sqlite3.connect(path, timeout=wait, isolation_level=None, check_same_thread=False)
    except sqlite3.OperationalError as error:
        raise InputError(f"cannot open {path}: {error}", hint="check its permissions") from None
    try:
        with _told(path):
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA cache_size = -65536")  # KiB
    except CheckpointError:
        db.close()
        raise
    return db


def _owner(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA application_id").fetchone()[0])


def _check(db: sqlite3.Connection, path: Path) -> None:
    if _owner(db) != APPLICATION:
        raise _foreign(path)
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != _VERSION:
        raise CheckpointError(
            f"{path} is of version {version}; this program knows version {_VERSION}",
            hint="update idiolect",
        )


def _foreign(path: Path) -> InputError:
    return InputError(
        f"{path} is another program's database; nothing was changed", hint="choose another folder"
    )


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into one line."""
    try:
        yield
    except IdiolectError:
        raise
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise InputError(
                f"{path.parent} is being written by another process",
                hint="nothing was changed; try again when it is done",
            ) from error
        if code == sqlite3.SQLITE_FULL:
            raise InputError(
                f"no room to write {path}", hint="nothing was changed; make room and try again"
            ) from error
        raise CheckpointError(f"{path}: {error}", hint="check the disk and permissions") from error
    except sqlite3.DatabaseError as error:
        raise CheckpointError(
            f"{path} is damaged, or no index: {error}",
            hint="`idiolect index verify` looks closer; restore a snapshot",
        ) from error
