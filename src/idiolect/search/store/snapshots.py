"""Snapshots: whole copies of the ledger, taken while others write, and put back in one step.

A copy is made by SQLite itself, of one state, under a temporary name; it appears when it is whole.
Putting one back is one transaction as well: killed in the middle, the store is as it was before.
What is put back gets a new epoch, so that no reader goes on with what it remembers, and no graph:
the next merge makes it again.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from idiolect.errors import CheckpointError, InputError
from idiolect.search.store.ledger import open_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from idiolect.search.store.ledger import Ledger

__all__ = ["put_back", "snapshot_names", "take"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def snapshot_names(folder: Path) -> list[str]:
    """Return the names of the snapshots in a folder, in alphabetical order."""
    return sorted(path.stem for path in folder.glob("*.db") if not path.name.startswith("."))


def take(ledger: Ledger, folder: Path, name: str) -> Path:
    """Copy the ledger's present state to a new file, and return its path.

    Raises:
        InputError: the name cannot be a file's, or is taken.
    """
    path = _path(folder, name)
    folder.mkdir(exist_ok=True)
    if path.exists():
        raise InputError(f"there is a snapshot {name!r} already", hint="choose another name")
    with tempfile.TemporaryDirectory(prefix=".taking-", dir=folder) as place:
        copy = Path(place) / "ledger.db"
        with ledger.connection() as db:
            db.execute("VACUUM INTO ?", (str(copy),))
        with copy.open("rb+") as file:
            os.fsync(file.fileno())
        os.link(copy, path)  # unlike a renaming, never over another one
    return path


def put_back(ledger: Ledger, folder: Path, name: str) -> None:
    """Make the ledger what it was when a snapshot was taken.

    Raises:
        InputError: there is no such snapshot.
        CheckpointError: it is damaged.
    """
    path = _path(folder, name)
    if not path.is_file():
        there = ", ".join(snapshot_names(folder)) or "none"
        raise InputError(f"no snapshot {name!r}", hint=f"there are: {there}")
    with tempfile.TemporaryDirectory(prefix=".putting-", dir=folder) as place:
        copy = Path(place) / "ledger.db"
        shutil.copyfile(path, copy)
        with _checked(copy, path) as source, ledger.connection() as db:
            source.execute("UPDATE namespaces SET graph = NULL, last_row = NULL")
            source.execute("UPDATE namespaces SET last_tombstone = NULL")
            source.execute(
                "UPDATE settings SET value = ? WHERE name = 'epoch'", (uuid.uuid4().hex,)
            )
            source.backup(db)


@contextlib.contextmanager
def _checked(copy: Path, path: Path) -> Iterator[sqlite3.Connection]:
    try:
        db = open_database(copy, 0)
    except CheckpointError as error:
        raise CheckpointError(f"{path} is damaged", hint="use another snapshot") from error
    try:
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise CheckpointError(f"{path} is damaged: {found}", hint="use another snapshot")
        yield db
    except sqlite3.DatabaseError as error:
        raise CheckpointError(f"{path} is damaged: {error}", hint="use another snapshot") from error
    finally:
        db.close()


def _path(folder: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot be a snapshot's name", hint="use letters, digits, dot, dash"
        )
    return folder / f"{name}.db"
