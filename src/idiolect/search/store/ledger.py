"""The ledger: one SQLite file in WAL mode, the source of truth of a store.

A write changes everything in one transaction: items, texts, metadata, vectors, the full-text and
metadata indexes, and a tombstone for each deleted row. A row number is never reused and always
belongs to the same vector. Row numbers therefore serve as the change sequence for derived files:
rows added since a file was made are above its last row, and deleted rows have a tombstone.

`synchronous=FULL`: a write is on disk before it is acknowledged. Any number of processes read while
one writes; a second writer waits.

If the folder is read-only, SQLite cannot create the files that its readers share. The ledger is
then opened read-only: with the log of a writer if there is one, otherwise as an immutable file,
which is reopened when it has changed.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from idiolect.errors import CheckpointError, IdiolectError, InputError
from idiolect.search.index_location import run_inside
from idiolect.search.store.lexical import add_functions
from idiolect.search.store.metadata_index import MetadataIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "APPLICATION_ID",
    "Ledger",
    "LedgerBusyError",
    "check_ledger",
    "damaged",
    "open_database",
]

APPLICATION_ID = 0x1D101EC7
"""The SQLite application id of idiolect's ledgers."""

_VERSION = 2
_LOG_PAGES = 8192
"""Pages (64 MiB) in SQLite's log before a checkpoint copies them to the database. An index page
that many writes change is then copied once; with the default of 1,000 pages, writes take a third
longer."""
_MOST_LOG = 256 << 20
"""Bytes of the log from which a write waits for readers to shorten it; see `Ledger.writing`."""
_LOG_WAIT = 1000  # milliseconds to wait for readers
_CACHE = 64 << 20  # bytes that SQLite caches for each thread
_SCHEMA = f"""
    CREATE TABLE settings (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
    CREATE TABLE namespaces (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        -- The latest purged tombstone. A reader that has not seen it reads the namespace again.
        forgotten INTEGER NOT NULL DEFAULT 0,
        -- The graph segment: its folder, its last row, and the latest tombstone applied to it.
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
    PRAGMA application_id = {APPLICATION_ID};
    PRAGMA user_version = {_VERSION};
"""


class LedgerBusyError(InputError):
    """Another process writes, or the disk is full: the same write may succeed later."""


class Ledger:
    """One ledger file: a connection for each thread, and transactions on it.

    Args:
        path: an existing ledger, see `Ledger.create`.
        wait: seconds a writer waits for another writer.

    Raises:
        InputError: the file is missing, or belongs to another program.
        CheckpointError: the file is damaged, or was written by another version.
    """

    def __init__(self, path: Path, wait: float) -> None:
        self.path = path
        self._wait = wait
        self._local = threading.local()
        self._connections: list[_ThreadConnection] = []
        self._lock = threading.Lock()
        self._cache = _CACHE
        self._most_log = _MOST_LOG
        if not path.is_file():
            hint = run_inside(path.parent) or "check the path, or build one"
            raise InputError(f"no index at {path.parent}", hint=hint)
        with self.reading() as db:
            check_ledger(db, path)

    @property
    def cache(self) -> int:
        """Bytes that SQLite caches for each thread."""
        return self._cache

    @cache.setter
    def cache(self, size: int) -> None:
        self._cache = size
        with self._lock:
            for one in self._connections:
                _set_cache(one.db, size)

    @classmethod
    def create(cls, path: Path, wait: float, settings: dict[str, str | int]) -> None:
        """Create the file if it does not exist. Other processes never see it without its tables.

        Raises:
            InputError: a file of another program exists at the path.
        """
        db = open_database(path, wait)
        try:
            with _one_line_errors(path):
                if _has_tables(db):  # before the id, which another process creates with them
                    if _application_id(db) != APPLICATION_ID:
                        raise _not_a_ledger(path)
                    return
                db.execute("PRAGMA page_size = 8192")
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("BEGIN IMMEDIATE")
                if _application_id(db) != APPLICATION_ID:  # another process may have created it
                    for statement in _SCHEMA.split(";"):
                        db.execute(statement)
                    initial = {"epoch": uuid.uuid4().hex, "changes": 0, **settings}
                    db.executemany("INSERT INTO settings VALUES (?, ?)", initial.items())
                db.execute("COMMIT")
        finally:
            db.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Begin a read transaction, which sees one state, unaffected by concurrent writes."""
        db = self._connection()
        with _one_line_errors(self.path):
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("ROLLBACK")

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Begin a write transaction. It commits to disk at the end, or rolls back on an error.

        Raises:
            LedgerBusyError: another process was still writing after the wait, or the disk is full.
            CheckpointError: the file was removed or replaced since it was opened.
        """
        self.check_writable()
        db = self._connection()
        self._check_in_place()
        with _one_line_errors(self.path):
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("UPDATE settings SET value = value + 1 WHERE name = 'changes'")
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            self._shorten_log(db)

    def _shorten_log(self, db: sqlite3.Connection) -> None:
        """Empty SQLite's log if it has become long.

        SQLite's own checkpoints do not wait for readers, and are incomplete if there are any. If
        searches always overlap, the log would grow without end. If a reader takes too long, the
        next attempt is made when the log has grown as much again.
        """
        try:
            size = _log(self.path).stat().st_size
        except FileNotFoundError:
            return
        if size < self._most_log:
            return
        db.execute(f"PRAGMA busy_timeout = {_LOG_WAIT}")
        try:
            (is_busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError:  # such as a full disk; the write itself is complete
            is_busy = 1
        db.execute(f"PRAGMA busy_timeout = {int(1000 * self._wait)}")
        self._most_log = size + _MOST_LOG if is_busy else _MOST_LOG

    @property
    def is_writable(self) -> bool:
        """Whether the folder and the ledger may be written."""
        return _is_writable(self.path)

    def check_writable(self) -> None:
        """Raise an error if the store is read-only.

        Raises:
            InputError: the folder or the ledger cannot be written.
        """
        if not self.is_writable:
            raise InputError(
                f"{self.path.parent} cannot be written; it is open for reading",
                hint="nothing was changed; copy the index to a folder that you may write",
            )

    def _check_in_place(self) -> None:
        """Raise an error if the file was removed or moved: what is written would be lost."""
        if self._local.inode != _inode(self.path):
            raise CheckpointError(
                f"{self.path} was removed or replaced since it was opened",
                hint="nothing was changed; open the index again",
            )

    @contextlib.contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Return this thread's connection without a transaction, for VACUUM and the like."""
        with _one_line_errors(self.path):
            yield self._connection()

    @contextlib.contextmanager
    def writable_copy(self) -> Iterator[sqlite3.Connection]:
        """Return `connection()`, or one to a temporary copy if the ledger is read-only."""
        if _is_writable(self.path):
            with self.connection() as db:
                yield db
            return
        with tempfile.TemporaryDirectory() as folder:
            db = open_database(Path(folder) / self.path.name, self._wait)
            try:
                with _one_line_errors(self.path):
                    self._connection().backup(db)
                    yield db
            finally:
                db.close()

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._lock:
            for one in self._connections:
                one.db.close()
            self._connections.clear()
            self._local = threading.local()

    def _connection(self) -> sqlite3.Connection:
        """Return this thread's connection. A forked process must not use its parent's."""
        own = getattr(self._local, "process", None) == os.getpid()
        if own and self._local.stamp not in (None, _stamp(self.path)):
            self._close(lambda one: one.db is self._local.db)
            own = False
        if not own:
            self._local.stamp = None if _is_writable(self.path) else _stamp(self.path)
            self._local.db = open_database(self.path, self._wait)
            self._local.inode = _inode(self.path)
            self._local.process = os.getpid()
            _set_cache(self._local.db, self._cache)
            # Each merge has a thread of its own, whose connection nobody else closes.
            self._close(lambda one: one.process == os.getpid() and not one.thread.is_alive())
            opened = _ThreadConnection(self._local.db, threading.current_thread(), os.getpid())
            with self._lock:
                self._connections.append(opened)
        db: sqlite3.Connection = self._local.db
        return db

    def _close(self, chosen: Callable[[_ThreadConnection], bool]) -> None:
        with self._lock:
            for one in [one for one in self._connections if chosen(one)]:
                self._connections.remove(one)
                one.db.close()


@dataclass(frozen=True, eq=False)
class _ThreadConnection:
    """A connection, and the thread and process that use it."""

    db: sqlite3.Connection
    thread: threading.Thread
    process: int


def _is_writable(path: Path) -> bool:
    """Return whether a ledger and its folder are writable."""
    return os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))


def _inode(path: Path) -> int:
    """Return the number of a file; 0 if there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _stamp(path: Path) -> tuple[int, ...]:
    """Return file attributes that change when the ledger or its log is written."""
    found = [file.stat() for file in (path, _log(path)) if file.exists()]
    return tuple(value for one in found for value in (one.st_mtime_ns, one.st_size, one.st_ino))


def open_database(path: Path, wait: float) -> sqlite3.Connection:
    """Open an SQLite file; the caller begins and ends transactions explicitly."""
    name, uri = str(path), not _is_writable(path) and path.exists()
    if uri:
        log = _log(path)
        unchanged = "" if log.exists() and log.stat().st_size else "&immutable=1"
        name = f"{path.resolve().as_uri()}?mode=ro{unchanged}"
    try:
        db = sqlite3.connect(
            name, timeout=wait, isolation_level=None, check_same_thread=False, uri=uri
        )
    except sqlite3.OperationalError as error:
        raise InputError(f"cannot open {path}: {error}", hint="check its permissions") from None
    try:
        with _one_line_errors(path):
            db.execute("PRAGMA synchronous = FULL")
            add_functions(db)
            db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            _set_cache(db, _CACHE)
    except CheckpointError:
        db.close()
        raise
    return db


def _set_cache(db: sqlite3.Connection, size: int) -> None:
    db.execute(f"PRAGMA cache_size = {-size // 1024}")  # negative: KiB


def _application_id(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA application_id").fetchone()[0])


def _has_tables(db: sqlite3.Connection) -> bool:
    return bool(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def check_ledger(db: sqlite3.Connection, path: Path) -> None:
    """Check that a file is a ledger of this version.

    Raises:
        InputError: the file belongs to another program.
        CheckpointError: it was written by another version.
    """
    if _application_id(db) != APPLICATION_ID:
        raise _not_a_ledger(path)
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != _VERSION:
        newer = version > _VERSION
        raise CheckpointError(
            f"{path} is of version {version}; this program reads version {_VERSION}",
            hint="update idiolect"
            if newer
            else "it was built by an older idiolect; build the index again, in another folder",
        )


def damaged(path: Path, problem: object) -> CheckpointError:
    """Return the error for a ledger with damaged content."""
    return CheckpointError(
        f"{path} is damaged, or is not an index: {problem}",
        hint="run `idiolect index verify` for details; restore a snapshot",
    )


def _not_a_ledger(path: Path) -> InputError:
    return InputError(
        f"{path} is a database of another program; nothing was changed",
        hint="choose another folder",
    )


@contextlib.contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    """Raise SQLite's errors as one-line errors."""
    try:
        yield
    except IdiolectError:
        raise
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise LedgerBusyError(
                f"{path.parent} is being written by another process",
                hint="nothing was changed; try again when it has finished",
            ) from error
        if code == sqlite3.SQLITE_FULL:
            raise LedgerBusyError(
                f"no space left to write {path}",
                hint="nothing was changed; free disk space and try again",
            ) from error
        raise CheckpointError(f"{path}: {error}", hint="check the disk and permissions") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # SQLite's message may be damaged
        raise damaged(path, error) from error
