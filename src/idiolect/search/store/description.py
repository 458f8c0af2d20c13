"""What a store holds, told to a person."""

from __future__ import annotations

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
    """What a namespace holds."""

    items: int
    unmerged: int
    """Items that are compared one by one until the next merge."""
    fields: tuple[str, ...] | None
    """Metadata fields that can be filtered by; None where the store does not list them."""


@dataclass(frozen=True)
class Description:
    """What a store holds."""

    dimensions: int
    metric: Metric
    bytes: int | None
    """On the disk; None where the store does not tell."""
    snapshots: tuple[str, ...]
    namespaces: dict[str, NamespaceDescription]

    @property
    def items(self) -> int:
        """How many there are in all namespaces."""
        return sum(namespace.items for namespace in self.namespaces.values())


def describe(ledger: Ledger, folder: Path) -> Description:
    """Describe the store in a folder."""
    with ledger.reading() as db:
        settings = dict(db.execute("SELECT * FROM settings"))
        found = db.execute(
            "SELECT name, number, (SELECT count(*) FROM items WHERE namespace = number),"
            " (SELECT count(*) FROM items WHERE namespace = number AND row > ifnull(last_row, 0))"
            " FROM namespaces ORDER BY name"
        ).fetchall()
        namespaces = {
            name: NamespaceDescription(items, unmerged, tuple(MetadataIndex(db, number).names()))
            for name, number, items, unmerged in found
        }
    files = (file for file in folder.rglob("*") if file.is_file())
    return Description(
        settings["dimensions"],
        settings["metric"],
        sum(file.stat().st_size for file in files),
        tuple(snapshot_names(folder / "snapshots")),
        namespaces,
    )
