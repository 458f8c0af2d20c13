"""`MetadataIndex`: an inverted index of metadata with entries (field, value, row), for filters.

A condition of a filter reads one range of the index's key as a sorted array of rows. `$and`, `$or`
and `$not` are set operations on such arrays. The cost of a filter therefore grows with its matches,
not with the size of the store.

SQLite orders numbers before texts before blobs in any column. Booleans are stored as blobs of one
byte, and a range of numbers ends where texts start, so values of different types never compare.

The table of entries is named `facts`.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from idiolect.errors import InputError
from idiolect.search.filters import And, Condition, Filter, Not, Or, Scalar, conditions
from idiolect.text.suggestions import did_you_mean

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

__all__ = ["MetadataIndex", "scalars"]

_LARGE = 2**63  # SQLite's integers are smaller
_NO_ROWS = np.empty(0, dtype=np.int64)

# `:begin` and `:end` limit an open range to values of the same type.
_RANGES = {
    "$gt": "value > :value AND value < :end",
    "$gte": "value >= :value AND value < :end",
    "$lt": "value < :value AND value >= :begin",
    "$lte": "value <= :value AND value >= :begin",
}


class MetadataIndex:
    """The metadata index of one namespace, on one connection."""

    SCHEMA = """
        CREATE TABLE fields (
            number INTEGER PRIMARY KEY,
            namespace INTEGER NOT NULL,
            name TEXT NOT NULL,
            UNIQUE (namespace, name)
        );
        CREATE TABLE facts (
            field INTEGER NOT NULL, value NOT NULL, row INTEGER NOT NULL,
            PRIMARY KEY (field, value, row)
        ) WITHOUT ROWID;
    """

    def __init__(self, db: sqlite3.Connection, namespace: int) -> None:
        self._db = db
        self._namespace = namespace
        self._numbers: dict[str, int] = dict(
            db.execute("SELECT name, number FROM fields WHERE namespace = ?", (namespace,))
        )

    def add(self, rows: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Add the entries of each row's metadata."""
        self._db.executemany("INSERT INTO facts VALUES (?, ?, ?)", self._entries(rows))

    def remove(self, rows: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Remove the entries of each row's metadata."""
        self._db.executemany(
            "DELETE FROM facts WHERE field = ? AND value = ? AND row = ?", self._entries(rows)
        )

    def remove_unknown(self, rows: Iterable[int]) -> None:
        """Remove the entries of rows whose metadata is unknown; this scans all entries."""
        self._db.executemany(
            "DELETE FROM facts WHERE field = ? AND row = ?",
            ((field, row) for row in rows for field in self._numbers.values()),
        )

    def drop(self) -> None:
        """Remove all entries and fields of the namespace."""
        for number in self._numbers.values():
            self._db.execute("DELETE FROM facts WHERE field = ?", (number,))
        self._db.execute("DELETE FROM fields WHERE namespace = ?", (self._namespace,))
        self._numbers.clear()

    def names(self) -> list[str]:
        """Return the fields of which at least one item has a value, in alphabetical order."""
        query = "SELECT EXISTS (SELECT 1 FROM facts WHERE field = ?)"
        return sorted(
            name
            for name, number in self._numbers.items()
            if self._db.execute(query, (number,)).fetchone()[0]
        )

    def rows(self, node: Filter) -> NDArray[np.int64]:
        """Return the rows that match a filter, ascending.

        Raises:
            InputError: the filter compares a field that no item has; `$exists` is allowed.
        """
        names = set(self.names())
        for condition in conditions(node):
            if condition.operator != "$exists" and condition.field not in names:
                raise InputError(
                    f"filter: no item has the field {condition.field!r}",
                    hint=did_you_mean(condition.field, sorted(names), "available:"),
                )
        return self._match(node)

    def labels(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Number the values of a field from 0; return the number for each of `rows`, -1 for none.

        `rows` must be ascending.
        """
        number = self._numbers.get(name)
        labels = np.full(len(rows), -1, np.int32)
        query = "SELECT value, row FROM facts WHERE field = ? ORDER BY value, row"
        groups = groupby(self._db.execute(query, (number,)), itemgetter(0))
        for label, (_, entries) in enumerate(groups):
            found = np.fromiter((row for _, row in entries), np.int64)
            labels[np.searchsorted(rows, found)] = label
        return labels

    def _match(self, node: Filter) -> NDArray[np.int64]:
        match node:
            case Condition():
                return self._match_condition(node)
            case And(parts):
                excluded = [part.part for part in parts if isinstance(part, Not)]
                found = [self._match(part) for part in parts if not isinstance(part, Not)]
                found.sort(key=len)
                matched = found[0] if found else self._all()
                for other in found[1:]:
                    matched = np.intersect1d(matched, other, assume_unique=True)
                for part in excluded:
                    matched = np.setdiff1d(matched, self._match(part), assume_unique=True)
                return matched
            case Or(parts):
                return np.unique(np.concatenate([self._match(part) for part in parts]))
            case Not(part):
                return np.setdiff1d(self._all(), self._match(part), assume_unique=True)

    def _match_condition(self, condition: Condition) -> NDArray[np.int64]:
        number = self._numbers.get(condition.field)
        if number is None:
            return _NO_ROWS
        value = condition.value
        if condition.operator == "$exists":
            return np.unique(self._read("SELECT row FROM facts WHERE field = ?", (number,)))
        values = value if isinstance(value, tuple) else (value,)
        if condition.operator in ("$eq", "$in"):
            query = "SELECT row FROM facts WHERE field = ? AND value = ?"
            distinct = {_stored(one) for one in values}
            matches = [self._read(query, (number, one)) for one in distinct]
            return matches[0] if len(matches) == 1 else np.unique(np.concatenate(matches))
        text = isinstance(values[0], str)
        bounds = {
            "field": number,
            "value": values[0],
            "begin": "" if text else -float("inf"),
            "end": b"" if text else "",
        }
        range_ = _RANGES[condition.operator]
        query = f"SELECT row FROM facts WHERE field = :field AND {range_}"
        return np.unique(self._read(query, bounds))

    def _all(self) -> NDArray[np.int64]:
        return self._read(
            "SELECT row FROM items WHERE namespace = ? ORDER BY row", (self._namespace,)
        )

    def _read(self, query: str, bindings: Any) -> NDArray[np.int64]:
        cursor = self._db.execute(query, bindings)
        return np.fromiter((row for (row,) in cursor), dtype=np.int64)

    def _entries(
        self, rows: Iterable[tuple[int, Mapping[str, Any]]]
    ) -> Iterator[tuple[int, Scalar | bytes, int]]:
        numbers = self._numbers
        for row, metadata in rows:
            for name, value in metadata.items():
                for stored in _values(value):
                    yield numbers.get(name) or self._number(name), stored, row

    def _number(self, name: str) -> int:
        number = self._numbers.get(name)
        if number is None:
            number = self._db.execute(
                "INSERT INTO fields (namespace, name) VALUES (?, ?) RETURNING number",
                (self._namespace, name),
            ).fetchone()[0]
            self._numbers[name] = number
        return number


def scalars(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Scalar | bytes]]:
    r"""Yield each distinct (field, value as stored in SQLite); lists contribute their elements.

    Values that filters do not support (null, objects, nested lists) are skipped.

    >>> list(scalars({"tags": ["a", "b", "a"], "new": True, "box": {"h": 3}}))
    [('tags', 'a'), ('tags', 'b'), ('new', b'\x01')]
    """
    for name, value in metadata.items():
        for stored in _values(value):
            yield name, stored


def _values(value: Any) -> Iterable[Scalar | bytes]:
    """Return the distinct values of a field as stored."""
    kind = type(value)  # most values are stored unchanged
    if kind is str or kind is float or (kind is int and -_LARGE < value < _LARGE):
        return (value,)
    values = value if isinstance(value, list | tuple) else (value,)
    supported = (one for one in values if isinstance(one, str | bool | int | float))
    return dict.fromkeys(map(_stored, supported))


def _stored(value: Scalar) -> Scalar | bytes:
    if isinstance(value, bool):
        return bytes([value])
    if isinstance(value, int) and abs(value) >= _LARGE:
        return float(value) if abs(value) < 2**1023 else str(value)
    return value
