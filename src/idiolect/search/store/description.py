"""A summary of a store: its size, its namespaces and its snapshots."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from idiolect.search.store.metadata_index import MetadataIndex
from idiolect.search.store.snapshots import snapshot_names

if TYPE_CHECKING:
    from pathlib import Path

    from idiolect.search.diskann.metric import Metric
    from idiolect.search.store.ledger import Ledger

__all__ = ["Description", "NamespaceDescription", "describe"]


@dataclass(frozen=True)
class NamespaceDescription:
    """A summary of one namespace."""

    items: int
    unmerged: int
    """Items that searches compare one by one, until the next merge adds them to the graph."""
    fields: tuple[str, ...] | None
    """Metadata fields that filters can use; None if the store does not list them."""


@dataclass(frozen=True)
class Description:
    """A summary of a store."""

    dimensions: int
    metric: Metric
    bytes: int | None
    """Size on disk; None if the store does not report it."""
    snapshots: tuple[str, ...]
    namespaces: dict[str, NamespaceDescription]

    @property
    def items(self) -> int:
        """The number of items in all namespaces."""
        return sum(namespace.items for namespace in self.namespaces.values())


def describe(ledger: Ledger, folder: Path) -> Description:
    """Describe the store in a folder."""
    with ledger.reading() as db:
        settings = dict(db.execute("SELECT * FROM settings"))
        rows = db.execute(
            "SELECT name, number, (SELECT count(*) FROM items WHERE namespace = number),"
            " (SELECT count(*) FROM items WHERE namespace = number AND row > ifnull(last_row, 0))"
            " FROM namespaces ORDER BY name"
        ).fetchall()
        namespaces = {
            name: NamespaceDescription(items, unmerged, tuple(MetadataIndex(db, number).names()))
            for name, number, items, unmerged in rows
        }
    return Description(
        settings["dimensions"],
        settings["metric"],
        _size_on_disk(folder),
        tuple(snapshot_names(folder / "snapshots")),
        namespaces,
    )


def _size_on_disk(folder: Path) -> int:
    """Return the size of all files, in bytes, while merges rename and delete some of them."""
    size = 0
    for inside, _, names in os.walk(folder):  # unlike `rglob`, it passes over what has gone
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += os.lstat(os.path.join(inside, name)).st_size
    return size
