"""`Namespace`: the items of one namespace, written and read through one connection.

A vector that changes gets a new row and leaves a tombstone behind; a text or metadata that changes
stays in its row, so that a derived graph has nothing to follow. Words, facts and checksums change
with the item, in the same transaction.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from idiolect.search.items import Item
from idiolect.search.store.lexical import Lexical
from idiolect.search.store.metadata_index import MetadataIndex

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from idiolect.search.filters import Filter

__all__ = ["Namespace", "Row", "checksum"]

_AT_ONCE = 10_000  # bindings of one statement

_Value = TypeVar("_Value")


class Row(NamedTuple):
    """An item as it is kept."""

    row: int
    id: str
    text: str
    metadata: str
    """JSON text."""


class Namespace:
    """One namespace, seen through one connection that is inside a transaction."""

    def __init__(self, db: sqlite3.Connection, number: int) -> None:
        self._db = db
        self.number = number
        self.facts = MetadataIndex(db, number)
        self.words = Lexical(db, number)

    @classmethod
    def find(cls, db: sqlite3.Connection, name: str) -> Namespace | None:
        """Return the namespace of a name, or None where there is none."""
        found = db.execute("SELECT number FROM namespaces WHERE name = ?", (name,)).fetchone()
        return cls(db, found[0]) if found else None

    @classmethod
    def create(cls, db: sqlite3.Connection, name: str) -> Namespace:
        """Return the namespace of a name; it is made where there is none."""
        if (found := cls.find(db, name)) is not None:
            return found
        number = db.execute(
            "INSERT INTO namespaces (name) VALUES (?) RETURNING number", (name,)
        ).fetchone()[0]
        namespace = cls(db, number)
        namespace.words.create()
        return namespace

    def count(self) -> int:
        """Return how many items there are."""
        query = "SELECT count(*) FROM items WHERE namespace = ?"
        return int(self._db.execute(query, (self.number,)).fetchone()[0])

    def put(
        self, items: Sequence[Item], metadata: Sequence[str], vectors: NDArray[np.float32]
    ) -> None:
        """Add items or replace those with their ids; unchanged ones are left alone.

        Args:
            items: n items with different ids, checked.
            metadata: (n,) the metadata of each as JSON text.
            vectors: (n, dimensions) the vector of each.
        """
        old = {row.id: row for row in self.rows(item.id for item in items)}
        old_vectors = dict(self.vectors([row.row for row in old.values()]))
        new: list[tuple[Item, str, bytes]] = []
        replaced: list[Row] = []
        for item, encoded, vector in zip(items, metadata, vectors, strict=True):
            blob = vector.tobytes()
            before = old.get(item.id)
            if before is None:
                new.append((item, encoded, blob))
            elif old_vectors[before.row] != blob:
                replaced.append(before)
                new.append((item, encoded, blob))
            elif (before.text, before.metadata) != (item.text, encoded):
                self._rewrite(before, item, encoded, blob)
        self.remove(replaced)
        self._insert(new)

    def _insert(self, new: Sequence[tuple[Item, str, bytes]]) -> None:
        last = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'items'").fetchone()
        first = last[0] + 1 if last else 1
        numbered = list(enumerate(new, first))
        self._db.executemany(
            "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?)",
            (
                (row, self.number, item.id, item.text, encoded, checksum(item, encoded, blob))
                for row, (item, encoded, blob) in numbered
            ),
        )
        self._db.executemany(
            "INSERT INTO vectors VALUES (?, ?)", ((row, blob) for row, (_, _, blob) in numbered)
        )
        self.words.add((row, item.text) for row, (item, _, _) in numbered if item.text)
        self.facts.add((row, item.metadata) for row, (item, _, _) in numbered if item.metadata)

    def _rewrite(self, before: Row, item: Item, encoded: str, blob: bytes) -> None:
        """Change text and metadata in place."""
        row = before.row
        if before.text:
            self.words.remove([(row, before.text)])
        self.facts.remove([(row, before.metadata)])
        self._db.execute(
            "UPDATE items SET text = ?, metadata = ?, checksum = ? WHERE row = ?",
            (item.text, encoded, checksum(item, encoded, blob), row),
        )
        if item.text:
            self.words.add([(row, item.text)])
        self.facts.add([(row, item.metadata)])

    def remove(self, rows: Sequence[Row]) -> None:
        """Remove rows for good."""
        self.words.remove((row.row, row.text) for row in rows if row.text)
        self.facts.remove((row.row, row.metadata) for row in rows)
        numbers = [(row.row,) for row in rows]
        self._db.executemany("DELETE FROM items WHERE row = ?", numbers)
        self._db.executemany("DELETE FROM vectors WHERE row = ?", numbers)
        self._db.executemany(
            "INSERT INTO tombstones (namespace, row) VALUES (?, ?)",
            ((self.number, row.row) for row in rows),
        )

    def drop(self) -> None:
        """Remove the namespace and everything in it; its number is not used again."""
        self.facts.drop()
        self.words.drop()
        for statement in (
            "DELETE FROM vectors WHERE row IN (SELECT row FROM items WHERE namespace = ?)",
            "DELETE FROM items WHERE namespace = ?",
            "DELETE FROM tombstones WHERE namespace = ?",
            "DELETE FROM namespaces WHERE number = ?",
        ):
            self._db.execute(statement, (self.number,))

    def rows(self, ids: Iterable[str]) -> Iterator[Row]:
        """Yield the items of ids; unknown ones are left out."""
        for chunk in _chunks(list(ids)):
            places = ",".join("?" * len(chunk))
            cursor = self._db.execute(
                "SELECT row, id, text, metadata FROM items"
                f" WHERE namespace = ? AND id IN ({places})",
                (self.number, *chunk),
            )
            yield from map(Row._make, cursor)

    def numbered(self, numbers: Iterable[int]) -> Iterator[Row]:
        """Yield the items of row numbers; those that are gone are left out."""
        for chunk in _chunks(list(numbers)):
            places = ",".join("?" * len(chunk))
            cursor = self._db.execute(
                f"SELECT row, id, text, metadata FROM items WHERE row IN ({places})", chunk
            )
            yield from map(Row._make, cursor)

    def matching(self, node: Filter) -> NDArray[np.int64]:
        """Return the row numbers a filter matches, ascending.

        Raises:
            InputError: it compares a field that no item has, and there are items.
        """
        return self.facts.rows(node) if self.count() else np.empty(0, np.int64)

    def page(self, after: int, limit: int) -> list[Row]:
        """Return the next items in the order they were written, after a row number."""
        cursor = self._db.execute(
            "SELECT row, id, text, metadata FROM items WHERE namespace = ? AND row > ?"
            " ORDER BY row LIMIT ?",
            (self.number, after, limit),
        )
        return list(map(Row._make, cursor))

    def vectors(self, numbers: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Yield (row, its vector's bytes)."""
        for chunk in _chunks(numbers):
            places = ",".join("?" * len(chunk))
            yield from self._db.execute(f"SELECT * FROM vectors WHERE row IN ({places})", chunk)

    def rebuild(self) -> None:
        """Make words and facts again from the items."""
        self.words.rebuild()
        self.facts.drop()
        after = 0
        while page := self.page(after, _AT_ONCE):
            self.facts.add((row.row, json.loads(row.metadata)) for row in page)
            after = page[-1].row


def checksum(item: Item | Row, metadata: str, vector: bytes) -> int:
    """Return the CRC-32 of everything an item is, in its own order."""
    value = 0
    for part in (item.id, item.text, metadata):
        value = zlib.crc32(part.encode(), value)
        value = zlib.crc32(b"\x00", value)
    return zlib.crc32(vector, value)


def _chunks(values: Sequence[_Value]) -> Iterator[Sequence[_Value]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]
