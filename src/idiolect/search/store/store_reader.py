"""`StoreReader`: the read operations of a store.

Any number of readers in any number of processes can use a store.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from idiolect.errors import CheckpointError
from idiolect.search.diskann.metric import Metric
from idiolect.search.filters import parse
from idiolect.search.items import (
    Hit,
    Hits,
    Item,
    check_count,
    check_name,
    check_queries,
    check_query,
    distinct,
)
from idiolect.search.store.description import Description, describe
from idiolect.search.store.graphs.memory_plan import LEDGER_CACHE
from idiolect.search.store.graphs.segment_opener import SegmentOpener
from idiolect.search.store.ledger import Ledger, damaged
from idiolect.search.store.namespace import Namespace, Row
from idiolect.search.store.view import View

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["StoreReader", "load_items"]

_PAGE = 1000
_HELD = 512 << 20
"""Bytes of vectors without a graph that are kept in memory between searches."""
_HELD_ON_DISK = 64 << 20
"""The same for an index whose graphs are on disk."""


class StoreReader:
    """Reads a store. `idiolect.search.store.store.Store` adds the write operations.

    Args:
        path: the folder of the store.
        wait: seconds to wait for another process.
    """

    def __init__(self, path: Path, wait: float) -> None:
        self.path = path
        self._ledger = Ledger(path / "ledger.db", wait)
        self._views: dict[str, View] = {}  # in the order of their last use
        self._held, self._used = _HELD, 0
        self._opener = SegmentOpener(path / "graphs")
        self._lock = threading.Lock()
        settings = self.settings
        try:
            self.dimensions = int(settings["dimensions"])
            self.metric: Metric = settings["metric"]
        except (KeyError, TypeError, ValueError) as error:
            self._ledger.close()
            raise damaged(self._ledger.path, f"its settings are {settings}") from error
        if settings.get("memory") == "disk":
            self._ledger.cache, self._held = LEDGER_CACHE, _HELD_ON_DISK

    @property
    def settings(self) -> dict[str, Any]:
        """All stored settings, including the dimensions and the metric."""
        with self._ledger.reading() as db:
            return dict(db.execute("SELECT * FROM settings"))

    def fetch(
        self, ids: Iterable[str], *, namespace: str = "", vectors: bool = False
    ) -> dict[str, Item]:
        """Return the items with the given ids, in that order; unknown ids are skipped."""
        unique_ids = distinct(ids)
        with self._ledger.reading() as db:
            space = Namespace.find(db, namespace)
            if space is None:
                return {}
            rows = list(space.rows(unique_ids))
            found = {
                item.id: item
                for item in load_items(space, rows, self._ledger.path, vectors=vectors)
            }
        return {id: found[id] for id in unique_ids if id in found}

    def items(self, *, namespace: str = "", vectors: bool = False) -> Iterator[Item]:
        """Stream all items in the order in which they were written.

        Concurrent writes may be included.
        """
        after = 0
        while True:
            with self._ledger.reading() as db:
                space = Namespace.find(db, namespace)
                if space is None:
                    return
                page = space.page(after, _PAGE)
                found = list(load_items(space, page, self._ledger.path, vectors=vectors))
            if not page:
                return
            yield from found
            after = page[-1].row

    def list(
        self, prefix: str = "", *, after: str = "", limit: int = 100, namespace: str = ""
    ) -> Sequence[str]:
        """Return up to `limit` sorted ids that start with `prefix` and come after `after`."""
        for name, what in ((prefix, "prefix"), (after, "id"), (namespace, "namespace")):
            check_name(name, what)
        with self._ledger.reading() as db:
            cursor = db.execute(
                "SELECT id FROM items JOIN namespaces ON number = namespace"
                " WHERE name = ? AND id >= ? AND id > ? AND substr(id, 1, ?) = ?"
                " ORDER BY id LIMIT ?",
                (namespace, prefix, after, len(prefix), prefix, limit),
            )
            return [id for (id,) in cursor]

    def namespaces(self) -> dict[str, int]:
        """Return the number of items in each namespace."""
        with self._ledger.reading() as db:
            return dict(
                db.execute(
                    "SELECT name, (SELECT count(*) FROM items WHERE namespace = number)"
                    " FROM namespaces ORDER BY name"
                )
            )

    def describe(self) -> Description:
        """Return the size and the contents of the store."""
        return describe(self._ledger, self.path)

    def query(
        self,
        vector: ArrayLike,
        top_k: int = 10,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
    ) -> Hits:
        """Return the k nearest items, best first; fewer if fewer items match.

        Args:
            vector: (dimensions,) the query.
            top_k: the number of results, 1 to 10,000.
            filter: see `idiolect.search.filters`; a mapping or JSON text.
            namespace: where to search; an unknown namespace has no items.

        Returns:
            Hits. The score is the cosine, the inner product, or the negative squared distance.

        Raises:
            InputError: the vector, k or the filter is not valid.
            CheckpointError: a derived file is damaged; the message names it.
        """
        checked = check_query(vector, self.dimensions, self.metric)
        return self._query(checked[None], top_k, filter, namespace)[0]

    def query_many(
        self,
        vectors: ArrayLike,
        top_k: int = 10,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
    ) -> Sequence[Hits]:
        """Return the k nearest items of each query; all queries see one state of the store.

        Args:
            vectors: (q, dimensions) the queries. They are searched in one call of the graph.
            top_k: as in `query`.
            filter: as in `query`.
            namespace: as in `query`.

        Raises:
            InputError: as in `query`; the message names the row of a vector.
            CheckpointError: as in `query`.
        """
        checked = check_queries(vectors, self.dimensions, self.metric)
        return self._query(checked, top_k, filter, namespace)

    def _query(
        self,
        queries: NDArray[np.float32],
        top_k: int,
        filter: Mapping[str, Any] | str | None,
        namespace: str,
    ) -> Sequence[Hits]:
        check_count(top_k)
        node = None if filter is None else parse(filter)
        with self._current_view(namespace) as (space, view):
            if space is None or view is None:
                return [[] for _ in queries]
            selection = None
            if node is not None:
                selection = (repr(node), lambda: space.matching(node))
            return self._hits(space, view.search(queries, top_k, selection=selection))

    def match(
        self,
        text: str,
        top_k: int = 10,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
        marks: tuple[str, str] | None = None,
    ) -> Hits:
        """Return the k items with the best BM25 score for the words of a query, best first.

        Args:
            text: any text.
            top_k: the number of results, 1 to 10,000.
            filter: see `idiolect.search.filters`; a mapping or JSON text.
            namespace: where to search; an unknown namespace has no items.
            marks: strings to insert before and after each matched word in `Hit.highlight`.

        Raises:
            InputError: k or the filter is not valid.
        """
        check_count(top_k)
        node = None if filter is None else parse(filter)
        with self._ledger.reading() as db:
            space = Namespace.find(db, namespace)
            if space is None:
                return []
            allowed = None
            if node is not None:
                allowed = set(space.matching(node).tolist())
            found = space.lexical.search(text, top_k, allowed)
            (hits,) = self._hits(space, [found])
            if marks is None:
                return hits
            marked = space.lexical.highlight(text, [row for row, _ in found], *marks)
            return [
                replace(hit, highlight=marked.get(row, ""))
                for hit, (row, _) in zip(hits, found, strict=True)
            ]

    @contextlib.contextmanager
    def _current_view(self, name: str) -> Iterator[tuple[Namespace | None, View | None]]:
        """Yield a namespace and its view, both of the same state of the ledger."""
        for last_attempt in (False, False, True):
            with self._ledger.reading() as db:
                # The first read fixes the state. Take the lock before it, so views only advance.
                with self._lock:
                    space = Namespace.find(db, name)
                    if space is None and name in self._views:
                        self._forget_dropped(db)
                    try:
                        view = (
                            self._advance_view(db, name, space.number)
                            if space is not None
                            else None
                        )
                    except CheckpointError:
                        if last_attempt:
                            raise
                        continue  # a merge may have replaced the graph
                yield space, view
                return

    def _advance_view(self, db: sqlite3.Connection, name: str, number: int) -> View:
        old = self._views.get(name)
        if old is None or old.number != number:
            self._forget_dropped(db)
        view = View.advance(old, db, number, self._opener, self.dimensions, self.metric)
        self._release(name)
        self._views[name] = view
        self._used += view.size
        self._release_unused()
        return view

    def _release_unused(self) -> None:
        """Release the vectors of the namespaces that were not searched for the longest time.

        A store with a namespace for each of many users would otherwise have all its vectors in
        memory. Namespaces with a graph are kept: opening it takes longer than many searches.
        """
        if self._used <= self._held:
            return
        *others, _ = self._views  # the last one is being searched
        for name in others:
            if self._views[name].size:
                self._release(name)
            if self._used <= self._held:
                return

    def _release(self, name: str) -> None:
        if (view := self._views.pop(name, None)) is not None:
            self._used -= view.size

    def _forget_dropped(self, db: sqlite3.Connection) -> None:
        """Release the vectors and graphs of namespaces that were dropped, here or elsewhere."""
        query = "SELECT 1 FROM namespaces WHERE number = ?"
        for name, view in list(self._views.items()):
            if db.execute(query, (view.number,)).fetchone() is None:
                self._release(name)
                self._opener.forget(view.number)

    def _hits(
        self, space: Namespace, found: Sequence[Sequence[tuple[int, float]]]
    ) -> Sequence[Hits]:
        """Return the hits of each list of (row, score); an item in several lists is read once."""
        numbers = dict.fromkeys(row for pairs in found for row, _ in pairs)
        path = self._ledger.path
        rows = {row.row: (row.id, row.text, _fields(row, path)) for row in space.by_row(numbers)}
        if len(rows) < len(numbers):
            raise damaged(self._ledger.path, f"it lacks {len(numbers) - len(rows)} rows")

        def hit(number: int, score: float) -> Hit:
            id, text, metadata = rows[number]
            return Hit(id, score, text, metadata)

        return [[hit(row, score) for row, score in pairs] for pairs in found]


def load_items(
    space: Namespace, rows: Sequence[Row], path: Path, *, vectors: bool
) -> Iterator[Item]:
    """Yield the items of rows, optionally with their vectors.

    Args:
        space: the namespace of the rows.
        rows: as stored.
        path: the path of the ledger, for messages.
        vectors: whether to read the vectors.

    Raises:
        CheckpointError: the metadata of an item is damaged; the message names the item.
    """
    blobs = dict(space.vectors([row.row for row in rows])) if vectors else {}
    for row in rows:
        blob = blobs.get(row.row)
        vector = None if blob is None else np.frombuffer(blob, "<f4")
        yield Item(row.id, row.text, _fields(row, path), vector)


def _fields(row: Row, path: Path) -> dict[str, Any]:
    """Return the metadata of an item in the ledger at `path`.

    Raises:
        CheckpointError: it is damaged; the message names the item.
    """
    try:
        return row.fields()
    except ValueError as error:
        raise damaged(path, error) from error
