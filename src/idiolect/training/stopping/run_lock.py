"""Lock the folder of a run against other processes, which would delete its temporary files.

Within one process, a run that is started again shares the lock of the one that failed.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path

from idiolect.errors import InputError

__all__ = ["lock_run", "release_run"]

_HELD: dict[str, set[int]] = {}
"""The open handles of each folder that this process has locked; they share one lock."""


def lock_run(folder: Path, owner: object) -> None:
    """Lock a folder until `release_run`, or until the owner or the process ends.

    Raises:
        InputError: Another process has locked it.
    """
    name = str(folder.resolve())
    for held in _HELD.get(name, ()):
        if os.path.samestat(os.fstat(held), folder.stat()):  # else it was deleted and made again
            handle = os.dup(held)
            break
    else:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise InputError(
                f"another process trains in {folder}",
                hint="wait until it ends, or choose another folder",
            ) from None
        except OSError:  # this file system has no locks
            os.close(handle)
            return
    _HELD.setdefault(name, set()).add(handle)
    weakref.finalize(owner, _close, name, handle)


def release_run(folder: Path) -> None:
    """Release the lock of a folder, if this process holds it."""
    name = str(folder.resolve())
    for handle in [*_HELD.get(name, ())]:
        _close(name, handle)


def _close(name: str, handle: int) -> None:
    if handle in _HELD.get(name, ()):
        _HELD[name].remove(handle)
        os.close(handle)
