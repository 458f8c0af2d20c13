"""Looking for damage: everything that is kept twice is compared, and every checksum is made again.

The ledger is the truth: damage there is named down to the item, and a snapshot helps. Everything
else was made from it and can be made again.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from idiolect.errors import CheckpointError
from idiolect.search.store.graph_segment import GraphSegment
from idiolect.search.store.metadata_index import scalars
from idiolect.search.store.namespace import Namespace, checksum

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from idiolect.search.filters import Scalar
    from idiolect.search.store.ledger import Ledger

__all__ = ["Flaw", "find_flaws"]

_PAGE = 1000


@dataclass(frozen=True)
class Flaw:
    """One thing that is damaged."""

    place: str
    """The file, and the item in it if one is meant."""
    what: str
    derived: bool
    """Whether it can be made again from the ledger."""


def find_flaws(ledger: Ledger, graphs: Path, dimensions: int) -> Iterator[Flaw]:
    """Yield every flaw of a store; nothing is changed.

    Args:
        ledger: of the store.
        graphs: the folder of its graphs.
        dimensions: of its vectors.
    """
    place = str(ledger.path)
    with ledger.connection() as db:
        try:
            db.execute("BEGIN")
            for (found,) in db.execute("PRAGMA integrity_check(20)"):
                if found != "ok":
                    yield Flaw(place, found, derived=False)
            names = db.execute("SELECT name, number, graph FROM namespaces").fetchall()
            for name, number, graph in names:
                yield from _items(db, Namespace(db, number), place, name, dimensions)
                if graph:
                    yield from _graph(graphs / graph)
        except sqlite3.DatabaseError as error:
            yield Flaw(place, str(error), derived=False)
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")


def _items(
    db: sqlite3.Connection, space: Namespace, place: str, name: str, dimensions: int
) -> Iterator[Flaw]:
    where = f"{place}, namespace {name!r}" if name else place
    numbers = dict(
        db.execute("SELECT name, number FROM fields WHERE namespace = ?", (space.number,))
    )
    after = facts = 0
    while page := space.page(after, _PAGE):
        after = page[-1].row
        vectors = dict(space.vectors([row.row for row in page]))
        sums = dict(
            db.execute(
                "SELECT row, checksum FROM items WHERE row BETWEEN ? AND ?", (page[0].row, after)
            )
        )
        for row in page:
            vector = vectors.get(row.row, b"")
            if (
                len(vector) != 4 * dimensions
                or checksum(row, row.metadata, vector) != sums[row.row]
            ):
                yield Flaw(f"{where}, item {row.id!r}", "its checksum is wrong", derived=False)
            said = list(_said(row.metadata))
            facts += len(said)
            for field, value in said:
                found = db.execute(
                    "SELECT 1 FROM facts WHERE field = ? AND value = ? AND row = ?",
                    (numbers.get(field), value, row.row),
                )
                if found.fetchone() is None:
                    yield Flaw(
                        f"{where}, item {row.id!r}", f"filters miss its {field}", derived=True
                    )
    kept = sum(
        db.execute("SELECT count(*) FROM facts WHERE field = ?", (number,)).fetchone()[0]
        for number in numbers.values()
    )
    if kept != facts:
        yield Flaw(where, f"filters know {kept:,} facts, the items {facts:,}", derived=True)
    try:
        space.words.verify()
    except CheckpointError as error:
        yield Flaw(where, error.message, derived=True)


def _said(metadata: str) -> Iterator[tuple[str, Scalar | bytes]]:
    """The facts of an item's metadata; none where it is damaged, which its checksum tells."""
    with contextlib.suppress(ValueError):
        yield from scalars(json.loads(metadata))


def _graph(folder: Path) -> Iterator[Flaw]:
    try:
        GraphSegment.open(folder)
    except CheckpointError as error:
        yield Flaw(str(folder), error.message, derived=True)
