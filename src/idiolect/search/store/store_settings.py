"""The settings of a store, which are checked when it is created and stored in its ledger."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal, get_args

from idiolect.errors import InputError
from idiolect.search.items import check_metric
from idiolect.search.store.graphs.memory_plan import parse_size
from idiolect.search.store.ledger import Ledger

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Memory", "check_label_field", "create_store", "remember_memory"]

Memory = Literal["ram", "disk"]
"""Where graphs keep vectors and edges during a search."""

_MAX_DIMENSIONS = 4096


def remember_memory(
    path: Path, memory: Memory | None, memory_limit: int | str | None, wait: float
) -> None:
    """Store the settings `memory` and `memory_limit`, if they are given and have changed.

    Raises:
        InputError: the memory is unknown, or its limit is not a size.
    """
    if memory is not None and memory not in get_args(Memory):
        raise InputError(f"unknown memory {memory!r}", hint=f"known: {', '.join(get_args(Memory))}")
    limit = None if memory_limit is None else parse_size(memory_limit)
    given = {"memory": memory, "memory_limit": limit}
    ledger = Ledger(path / "ledger.db", wait)
    with contextlib.closing(ledger), ledger.reading() as db:
        stored = dict(db.execute("SELECT * FROM settings"))
    changed = {k: v for k, v in given.items() if v is not None and v != stored.get(k)}
    if changed:
        ledger = Ledger(path / "ledger.db", wait)
        with contextlib.closing(ledger), ledger.writing() as db:
            db.executemany("INSERT OR REPLACE INTO settings VALUES (?, ?)", changed.items())


def check_label_field(field: str, memory: Memory | None) -> str:
    """Return a label field if the store is on disk; others cannot have one.

    Raises:
        InputError: the store is not on disk.
    """
    if memory != "disk":
        raise InputError(
            f"the label field {field!r} is for an index on disk",
            hint="add --on-disk (memory='disk'); in memory, filters are as fast without labels",
        )
    return field


def create_store(path: Path, settings: dict[str, str | int], wait: float) -> None:
    """Create a store with settings, unless it exists.

    Raises:
        InputError: the settings are not valid, or the folder is not empty or cannot be created.
    """
    dimensions = int(settings["dimensions"])
    if not 2 <= dimensions <= _MAX_DIMENSIONS:
        raise InputError(f"{dimensions} dimensions", hint=f"use 2 to {_MAX_DIMENSIONS:,}")
    check_metric(str(settings["metric"]))
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file", hint="an index is a folder; choose another name")
    ledger = path / "ledger.db"
    if path.is_dir() and not ledger.exists() and any(path.iterdir()):
        raise InputError(
            f"{path} is not empty and is not an index; nothing was changed",
            hint="choose another folder",
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot create {path}: {error.strerror}", hint="check its permissions and the disk"
        ) from error
    Ledger.create(ledger, wait, settings)
