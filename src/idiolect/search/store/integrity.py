"""Verification: compare all redundant data of a store, and recompute every checksum.

The ledger is the source of truth. Damage to it is located down to the item, and is repaired by
restoring a snapshot. Everything else is derived from the ledger and can be rebuilt.
"""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from idiolect.errors import CheckpointError
from idiolect.search.store.graphs.graph_segment import GraphSegment
from idiolect.search.store.lexical import Lexical
from idiolect.search.store.metadata_index import scalars
from idiolect.search.store.namespace import Namespace, Row, checksum

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from idiolect.search.filters import Scalar
    from idiolect.search.store.ledger import Ledger

__all__ = ["Damage", "find_damage"]

_PAGE = 1000


@dataclass(frozen=True)
class Damage:
    """One damaged part of a store."""

    place: str
    """The file, and the item if only one is damaged."""
    problem: str
    derived: bool
    """Whether it can be rebuilt from the ledger."""


def find_damage(ledger: Ledger, graphs: Path, dimensions: int) -> Iterator[Damage]:
    """Yield all damage of a store, without changing anything.

    The full-text indexes are checked last, because SQLite needs the write lock for it. If the
    ledger is read-only, they are checked in a temporary copy.

    Args:
        ledger: the ledger of the store.
        graphs: the parent folder of the graph segments.
        dimensions: width of the vectors.

    Raises:
        InputError: another process was still writing at the end of the wait.
    """
    place = str(ledger.path)
    try:
        with ledger.connection() as db:
            numbers = yield from _ledger_damage(db, graphs, place, dimensions)
        with ledger.writable_copy() as db:
            for number in numbers:
                yield from _lexical_damage(db, number, place)
    except CheckpointError as error:
        yield Damage(place, error.message, derived=False)


def _ledger_damage(
    db: sqlite3.Connection, graphs: Path, place: str, dimensions: int
) -> Generator[Damage, None, list[int]]:
    """Check one state of the ledger, and the graphs it names; return the namespaces' numbers.

    A graph whose namespace was merged or dropped meanwhile may have been removed.
    """
    db.execute("BEGIN")
    try:
        for (result,) in db.execute("PRAGMA integrity_check(20)"):
            if result != "ok":
                yield Damage(place, result, derived=False)
        namespaces = db.execute("SELECT name, number, graph FROM namespaces").fetchall()
        for name, number, _ in namespaces:
            yield from _item_damage(db, Namespace(db, number), _where(place, name), dimensions)
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
    for _, _, graph in namespaces:
        found = list(_graph_damage(graphs / graph)) if graph else []
        named = "SELECT 1 FROM namespaces WHERE graph = ?"
        if found and db.execute(named, (graph,)).fetchone() is not None:
            yield from found
    return [number for _, number, _ in namespaces]


def _item_damage(
    db: sqlite3.Connection, space: Namespace, where: str, dimensions: int
) -> Iterator[Damage]:
    numbers = dict(
        db.execute("SELECT name, number FROM fields WHERE namespace = ?", (space.number,))
    )
    after = entries = 0
    while page := space.page(after, _PAGE):
        after = page[-1].row
        vectors = dict(space.vectors([row.row for row in page]))
        checksums = dict(
            db.execute(
                "SELECT row, checksum FROM items WHERE row BETWEEN ? AND ?", (page[0].row, after)
            )
        )
        for row in page:
            place = f"{where}, item {row.id!r}"
            vector = vectors.get(row.row, b"")
            if (
                len(vector) != 4 * dimensions
                or checksum(row, row.metadata, vector) != checksums[row.row]
            ):
                yield Damage(place, "its checksum is wrong", derived=False)
            expected = list(_index_entries(row))
            entries += len(expected)
            for field, value in expected:
                found = db.execute(
                    "SELECT 1 FROM facts WHERE field = ? AND value = ? AND row = ?",
                    (numbers.get(field), value, row.row),
                )
                if found.fetchone() is None:
                    yield Damage(place, f"its {field} is missing from the filters", derived=True)
    indexed = sum(
        db.execute("SELECT count(*) FROM facts WHERE field = ?", (number,)).fetchone()[0]
        for number in numbers.values()
    )
    if indexed != entries:
        problem = f"the filters have {indexed:,} entries, the items {entries:,}"
        yield Damage(where, problem, derived=True)


def _index_entries(row: Row) -> Iterator[tuple[str, Scalar | bytes]]:
    """Yield the expected entries of the metadata index; none for JSON that is damaged."""
    with contextlib.suppress(ValueError):
        yield from scalars(row.fields())


def _graph_damage(folder: Path) -> Iterator[Damage]:
    try:
        GraphSegment.open(folder, verify=True)
    except CheckpointError as error:
        yield Damage(str(folder), error.message, derived=True)


def _lexical_damage(db: sqlite3.Connection, number: int, place: str) -> Iterator[Damage]:
    """Check a full-text index; FTS5 does so in a statement that needs the write lock."""
    problem, name = "", ""
    db.execute("BEGIN IMMEDIATE")
    try:
        found = db.execute("SELECT name FROM namespaces WHERE number = ?", (number,)).fetchone()
        if found is None:  # the namespace was dropped meanwhile
            return
        (name,) = found
        Lexical(db, number).verify()
    except CheckpointError as error:
        problem = error.message
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
    if problem:
        yield Damage(_where(place, name), problem, derived=True)


def _where(place: str, namespace: str) -> str:
    return f"{place}, namespace {namespace!r}" if namespace else place
