"""`Namespace`: reads and writes the items of one namespace on one connection.

If the vector or the label of an item changes, the item gets a new row, and the old row a tombstone.
Other changes of text or metadata keep the row, so the graph does not change. The full-text index,
the metadata index and the checksums change with the item, in the same transaction.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from idiolect.search.items import Item, check_name
from idiolect.search.metadata import same_metadata
from idiolect.search.store.lexical import Lexical
from idiolect.search.store.metadata_index import MetadataIndex

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from idiolect.search.filters import Filter

__all__ = ["Namespace", "Row", "checksum"]

_MAX_PARAMETERS = 10_000  # of one SQL statement
_INSERTED = 100  # rows of one statement

_Value = TypeVar("_Value")


class Row(NamedTuple):
    """An item as stored."""

    row: int
    id: str
    text: str
    metadata: str
    """JSON text."""

    def fields(self) -> dict[str, Any]:
        """Return the metadata.

        Raises:
            ValueError: it is damaged; the message names the item.
        """
        try:
            fields = json.loads(self.metadata)
        except (TypeError, ValueError) as error:
            raise ValueError(f"metadata of the item {self.id!r}: {error}") from error
        if not isinstance(fields, dict):
            raise ValueError(f"metadata of the item {self.id!r} is not an object")
        return fields


class Namespace:
    """One namespace on a connection that is in a transaction."""

    def __init__(self, db: sqlite3.Connection, number: int) -> None:
        self._db = db
        self.number = number
        self.metadata_index = MetadataIndex(db, number)
        self.lexical = Lexical(db, number)

    @classmethod
    def find(cls, db: sqlite3.Connection, name: str) -> Namespace | None:
        """Return the namespace with a name, or None if it does not exist.

        Raises:
            InputError: the name is not valid.
        """
        check_name(name, "namespace")
        found = db.execute("SELECT number FROM namespaces WHERE name = ?", (name,)).fetchone()
        return cls(db, found[0]) if found else None

    @classmethod
    def create(cls, db: sqlite3.Connection, name: str) -> Namespace:
        """Return the namespace with a name; create it if it does not exist."""
        if (found := cls.find(db, name)) is not None:
            return found
        number = db.execute(
            "INSERT INTO namespaces (name) VALUES (?) RETURNING number", (name,)
        ).fetchone()[0]
        namespace = cls(db, number)
        namespace.lexical.create()
        return namespace

    def count(self) -> int:
        """Return the number of items."""
        query = "SELECT count(*) FROM items WHERE namespace = ?"
        return int(self._db.execute(query, (self.number,)).fetchone()[0])

    def put(
        self,
        items: Sequence[Item],
        metadata: Sequence[str],
        vectors: NDArray[np.float32],
        label_field: str | None = None,
    ) -> None:
        """Add items, or replace those with the same ids; unchanged items are not written.

        Args:
            items: n checked items with distinct ids and metadata in JSON types.
            metadata: (n,) the metadata of each item as JSON text.
            vectors: (n, dimensions) the vector of each item.
            label_field: the metadata field that is the label of an item; see `Store.open`.
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
            elif old_vectors[before.row] != blob or not _has_label(before, item, label_field):
                replaced.append(before)
                new.append((item, encoded, blob))
            elif before.text != item.text or not _has_metadata(before, encoded, item):
                self._rewrite(before, item, encoded, blob)
        self.remove(replaced)
        self._insert(new)

    def _insert(self, new: Sequence[tuple[Item, str, bytes]]) -> None:
        last = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'items'").fetchone()
        first = last[0] + 1 if last else 1
        stored: list[Any] = []
        vectors: list[Any] = []
        texts: list[tuple[int, str]] = []
        fields: list[tuple[int, Mapping[str, Any]]] = []
        for row, (item, encoded, blob) in enumerate(new, first):
            text, metadata = item.text, item.metadata
            stored += row, self.number, item.id, text, encoded, checksum(item, encoded, blob)
            vectors += row, blob
            if text:
                texts.append((row, text))
            if metadata:
                fields.append((row, metadata))
        _insert_values(self._db, "items", 6, stored)
        _insert_values(self._db, "vectors", 2, vectors)
        self.lexical.add(texts)
        self.metadata_index.add(fields)

    def _rewrite(self, before: Row, item: Item, encoded: str, blob: bytes) -> None:
        """Change the text and metadata of a row in place."""
        row = before.row
        if before.text:
            self.lexical.remove([(row, before.text)])
        self._remove_metadata([before])
        self._db.execute(
            "UPDATE items SET text = ?, metadata = ?, checksum = ? WHERE row = ?",
            (item.text, encoded, checksum(item, encoded, blob), row),
        )
        if item.text:
            self.lexical.add([(row, item.text)])
        self.metadata_index.add([(row, item.metadata)])

    def remove(self, rows: Sequence[Row]) -> None:
        """Remove rows, and add a tombstone for each."""
        self.lexical.remove((row.row, row.text) for row in rows if row.text)
        self._remove_metadata(rows)
        numbers = [(row.row,) for row in rows]
        self._db.executemany("DELETE FROM items WHERE row = ?", numbers)
        self._db.executemany("DELETE FROM vectors WHERE row = ?", numbers)
        self._db.executemany(
            "INSERT INTO tombstones (namespace, row) VALUES (?, ?)",
            ((self.number, row.row) for row in rows),
        )

    def _remove_metadata(self, rows: Sequence[Row]) -> None:
        """Remove rows from the metadata index, also those whose metadata is damaged."""
        intact: list[tuple[int, dict[str, Any]]] = []
        damaged: list[int] = []
        for row in rows:
            try:
                intact.append((row.row, row.fields()))
            except ValueError:
                damaged.append(row.row)
        self.metadata_index.remove(intact)
        self.metadata_index.remove_unknown(damaged)

    def drop(self) -> None:
        """Remove the namespace with all its items; its number is never reused."""
        self.metadata_index.drop()
        self.lexical.drop()
        for statement in (
            "DELETE FROM vectors WHERE row IN (SELECT row FROM items WHERE namespace = ?)",
            "DELETE FROM items WHERE namespace = ?",
            "DELETE FROM tombstones WHERE namespace = ?",
            "DELETE FROM namespaces WHERE number = ?",
        ):
            self._db.execute(statement, (self.number,))

    def rows(self, ids: Iterable[str]) -> Iterator[Row]:
        """Yield the items with the given ids; unknown ids are skipped."""
        for chunk in _chunks(list(ids)):
            places = ",".join("?" * len(chunk))
            cursor = self._db.execute(
                "SELECT row, id, text, metadata FROM items"
                f" WHERE namespace = ? AND id IN ({places})",
                (self.number, *chunk),
            )
            yield from map(Row._make, cursor)

    def by_row(self, numbers: Iterable[int]) -> Iterator[Row]:
        """Yield the items with the given row numbers; deleted rows are skipped."""
        for chunk in _chunks(list(numbers)):
            places = ",".join("?" * len(chunk))
            cursor = self._db.execute(
                f"SELECT row, id, text, metadata FROM items WHERE row IN ({places})", chunk
            )
            yield from map(Row._make, cursor)

    def matching(self, node: Filter) -> NDArray[np.int64]:
        """Return the row numbers that match a filter, ascending.

        Raises:
            InputError: the filter compares a field that no item has, and the namespace has items.
        """
        return self.metadata_index.rows(node) if self.count() else np.empty(0, np.int64)

    def page(self, after: int, limit: int) -> list[Row]:
        """Return up to `limit` items after a row number, in the order of writing."""
        cursor = self._db.execute(
            "SELECT row, id, text, metadata FROM items WHERE namespace = ? AND row > ?"
            " ORDER BY row LIMIT ?",
            (self.number, after, limit),
        )
        return list(map(Row._make, cursor))

    def vectors(self, numbers: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Yield (row, vector as float32 bytes)."""
        for chunk in _chunks(numbers):
            places = ",".join("?" * len(chunk))
            yield from self._db.execute(f"SELECT * FROM vectors WHERE row IN ({places})", chunk)

    def rebuild(self) -> None:
        """Rebuild the full-text and metadata indexes from the items.

        Raises:
            ValueError: the metadata of an item is damaged; the message names the item.
        """
        self.lexical.rebuild()
        self.metadata_index.drop()
        after = 0
        while page := self.page(after, _MAX_PARAMETERS):
            self.metadata_index.add((row.row, row.fields()) for row in page)
            after = page[-1].row


def checksum(item: Item | Row, metadata: str, vector: bytes) -> int:
    """Return the CRC-32 of id, text, metadata and vector, in this order."""
    return zlib.crc32(vector, zlib.crc32(f"{item.id}\0{item.text}\0{metadata}\0".encode()))


def _has_metadata(row: Row, encoded: str, item: Item) -> bool:
    """Return whether a row has the metadata of an item; damaged metadata never matches."""
    if row.metadata == encoded:
        return True
    try:
        return same_metadata(row.fields(), item.metadata)
    except ValueError:
        return False


def _has_label(row: Row, item: Item, field: str | None) -> bool:
    """Return whether a row has the label of an item."""
    if field is None:
        return True
    try:
        return same_metadata({field: row.fields().get(field)}, {field: item.metadata.get(field)})
    except ValueError:
        return False


def _insert_values(db: sqlite3.Connection, table: str, columns: int, values: Sequence[Any]) -> None:
    """Insert rows into a table, several per statement, which takes a third less time.

    Args:
        db: a connection in a transaction.
        table: the name of the table.
        columns: the number of its columns.
        values: (rows * columns,) the values of all rows.
    """
    row = f"({','.join('?' * columns)})"
    for start in range(0, len(values), _INSERTED * columns):
        part = values[start : start + _INSERTED * columns]
        rows = len(part) // columns
        if rows == _INSERTED:
            db.execute(f"INSERT INTO {table} VALUES {','.join([row] * rows)}", part)
        else:
            each = (part[place : place + columns] for place in range(0, len(part), columns))
            db.executemany(f"INSERT INTO {table} VALUES {row}", each)


def _chunks(values: Sequence[_Value]) -> Iterator[Sequence[_Value]]:
    for start in range(0, len(values), _MAX_PARAMETERS):
        yield values[start : start + _MAX_PARAMETERS]
