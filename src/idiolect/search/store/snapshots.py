"""Snapshots: complete copies of the ledger, taken during writes, and restored atomically.

SQLite copies one state to a temporary file, which gets its final name when it is complete. A
restore is one transaction: if it is interrupted, the store is unchanged. A restored ledger has a
new epoch, so that readers discard their cached views, and no graphs, which the next merge rebuilds.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from idiolect.errors import CheckpointError, InputError
from idiolect.search.store.ledger import check_ledger, open_database
from idiolect.text.files import flush, working_folder
from idiolect.text.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from idiolect.search.store.ledger import Ledger

__all__ = ["restore_snapshot", "snapshot_names", "take_snapshot"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def snapshot_names(folder: Path) -> list[str]:
    """Return the names of the snapshots in a folder, in alphabetical order."""
    return sorted(path.stem for path in folder.glob("*.db") if not path.name.startswith("."))


def take_snapshot(ledger: Ledger, folder: Path, name: str) -> Path:
    """Copy the current state of the ledger to a new file, and return its path.

    Raises:
        InputError: the name is not valid, or already exists, or the store cannot be written.
    """
    path = _path(folder, name)
    ledger.check_writable()
    folder.mkdir(exist_ok=True)
    if path.exists():
        raise InputError(f"snapshot {name!r} already exists", hint="choose another name")
    with working_folder(folder, ".taking-") as temporary:
        copy = temporary / "ledger.db"
        with ledger.connection() as db:
            db.execute("VACUUM INTO ?", (str(copy),))
        with copy.open("rb+") as file:
            os.fsync(file.fileno())
        os.link(copy, path)  # unlike a rename, it never replaces an existing file
        flush(folder)
        flush(folder.parent)
    return path


def restore_snapshot(ledger: Ledger, folder: Path, name: str) -> None:
    """Replace the content of the ledger with a snapshot.

    Raises:
        InputError: the snapshot does not exist.
        CheckpointError: the snapshot is damaged.
    """
    path = _path(folder, name)
    if not path.is_file():
        hint = did_you_mean(name, snapshot_names(folder), "available:")
        raise InputError(f"no snapshot {name!r}", hint=hint)
    with working_folder(folder, ".restoring-") as temporary:
        copy = temporary / "ledger.db"
        shutil.copyfile(path, copy)
        with _open_checked(copy, path) as source, ledger.connection() as db:
            source.execute("UPDATE namespaces SET graph = NULL, last_row = NULL")
            source.execute("UPDATE namespaces SET last_tombstone = NULL")
            source.execute(
                "UPDATE settings SET value = ? WHERE name = 'epoch'", (uuid.uuid4().hex,)
            )
            source.backup(db)


@contextlib.contextmanager
def _open_checked(copy: Path, path: Path) -> Iterator[sqlite3.Connection]:
    """Open a copy of a snapshot after an integrity check; errors name the original path."""
    try:
        db = open_database(copy, 0)
    except CheckpointError as error:
        raise CheckpointError(f"{path} is damaged", hint="use another snapshot") from error
    try:
        result = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if result != "ok":
            raise CheckpointError(f"{path} is damaged: {result}", hint="use another snapshot")
        check_ledger(db, path)
        yield db
    except sqlite3.DatabaseError as error:
        raise CheckpointError(f"{path} is damaged: {error}", hint="use another snapshot") from error
    finally:
        db.close()


def _path(folder: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} is not a valid snapshot name",
            hint="use letters, digits, dots, dashes and underscores",
        )
    return folder / f"{name}.db"
