"""`StoreReader`: the reading half of a store; any number of them, in any number of processes."""

from __future__ import annotations

import contextlib
import json
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
    check_query,
    distinct,
)
from idiolect.search.store.description import Description, describe
from idiolect.search.store.ledger import Ledger
from idiolect.search.store.namespace import Namespace, Row
from idiolect.search.store.view import View

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike

__all__ = ["StoreReader", "read_items"]

_PAGE = 1000


class StoreReader:
    """Reads a store; see `idiolect.search.store.store.Store`, which also writes.

    Args:
        path: the folder of the store.
        wait: seconds to wait for another process.
    """

    def __init__(self, path: Path, wait: float) -> None:
        self.path = path
        self._ledger = Ledger(path / "ledger.db", wait)
        self._views: dict[str, View] = {}
        self._lock = threading.Lock()
        settings = self.settings
        self.dimensions = int(settings["dimensions"])
        self.metric: Metric = settings["metric"]

    @property
    def settings(self) -> dict[str, Any]:
        """Everything the store was told to remember, its dimensions and metric among it."""
        with self._ledger.reading() as db:
            return dict(db.execute("SELECT * FROM settings"))

    def fetch(
        self, ids: Iterable[str], *, namespace: str = "", vectors: bool = False
    ) -> dict[str, Item]:
        """Return the items of ids, in their order; unknown ones are left out."""
        wanted = distinct(ids)
        with self._ledger.reading() as db:
            space = Namespace.find(db, namespace)
            if space is None:
                return {}
            found = {i.id: i for i in read_items(space, list(space.rows(wanted)), vectors=vectors)}
        return {id: found[id] for id in wanted if id in found}

    def items(self, *, namespace: str = "", vectors: bool = False) -> Iterator[Item]:
        """Stream all items in the order they were written; what is written meanwhile may show."""
        after = 0
        while True:
            with self._ledger.reading() as db:
                space = Namespace.find(db, namespace)
                if space is None:
                    return
                page = space.page(after, _PAGE)
                found = list(read_items(space, page, vectors=vectors))
            if not page:
                return
            yield from found
            after = page[-1].row

    def list(
        self, prefix: str = "", *, after: str = "", limit: int = 100, namespace: str = ""
    ) -> Sequence[str]:
        """Return up to `limit` ids that begin with `prefix`, in order, after the id `after`."""
        with self._ledger.reading() as db:
            cursor = db.execute(
                "SELECT id FROM items JOIN namespaces ON number = namespace"
                " WHERE name = ? AND id >= ? AND id > ? AND substr(id, 1, ?) = ?"
                " ORDER BY id LIMIT ?",
                (namespace, prefix, after, len(prefix), prefix, limit),
            )
            return [id for (id,) in cursor]

    def namespaces(self) -> dict[str, int]:
        """Return how many items each namespace has."""
        with self._ledger.reading() as db:
            return dict(
                db.execute(
                    "SELECT name, (SELECT count(*) FROM items WHERE namespace = number)"
                    " FROM namespaces ORDER BY name"
                )
            )

    def describe(self) -> Description:
        """Return what the store holds."""
        return describe(self._ledger, self.path)

    def query(
        self,
        vector: ArrayLike,
        k: int = 10,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
    ) -> Hits:
        """Return the k nearest items, best first; fewer where there are fewer.

        Args:
            vector: (dimensions,) the query.
            k: how many, 1 to 10,000.
            filter: see `idiolect.search.filters`; an object or JSON text.
            namespace: where to search; an unknown one is empty.

        Returns:
            Hits whose score is the cosine, the inner product, or minus the squared distance.

        Raises:
            InputError: the vector, k or filter is bad.
            CheckpointError: a derived file is damaged; the message names it.
        """
        checked = check_query(vector, self.dimensions, self.metric)
        check_count(k)
        node = None if filter is None else parse(filter)
        with self._seeing(namespace) as (space, view):
            if space is None or view is None:
                return []
            selection = None
            if node is not None:
                selection = (repr(node), lambda: space.matching(node))
            return _hits(space, view.search(checked, k, selection=selection))

    def match(
        self,
        text: str,
        k: int = 10,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
        marks: tuple[str, str] | None = None,
    ) -> Hits:
        """Return the k items whose texts match a query's words best (BM25), best first.

        Args:
            text: any text.
            k: how many, 1 to 10,000.
            filter: see `idiolect.search.filters`; an object or JSON text.
            namespace: where to search; an unknown one is empty.
            marks: what to put before and after each word found, in `Hit.highlight`.

        Raises:
            InputError: k or the filter is bad.
        """
        check_count(k)
        node = None if filter is None else parse(filter)
        with self._ledger.reading() as db:
            space = Namespace.find(db, namespace)
            if space is None:
                return []
            among = None
            if node is not None:
                among = set(space.matching(node).tolist())
            found = space.words.search(text, k, among)
            hits = _hits(space, found)
            if marks is None:
                return hits
            marked = space.words.highlight(text, [row for row, _ in found], *marks)
            return [
                replace(hit, highlight=marked.get(row, ""))
                for hit, (row, _) in zip(hits, found, strict=True)
            ]

    @contextlib.contextmanager
    def _seeing(self, name: str) -> Iterator[tuple[Namespace | None, View | None]]:
        """One state of a namespace, in the ledger and in memory alike."""
        for last in (False, False, True):
            with self._ledger.reading() as db:
                # The lock is held from the first read on, so that states only go forward.
                with self._lock:
                    space = Namespace.find(db, name)
                    try:
                        view = self._view(db, name, space.number) if space is not None else None
                    except CheckpointError:
                        if last:
                            raise
                        continue  # a merge may have put a newer graph in its place
                yield space, view
                return

    def _view(self, db: sqlite3.Connection, name: str, number: int) -> View:
        view = View.advance(
            self._views.get(name), db, number, self.path / "graphs", self.dimensions, self.metric
        )
        self._views[name] = view
        return view


def read_items(space: Namespace, rows: Sequence[Row], *, vectors: bool) -> Iterator[Item]:
    """Yield the items of rows, with their vectors or without."""
    known = dict(space.vectors([row.row for row in rows])) if vectors else {}
    for row in rows:
        blob = known.get(row.row)
        vector = None if blob is None else np.frombuffer(blob, "<f4")
        yield Item(row.id, row.text, json.loads(row.metadata), vector)


def _hits(space: Namespace, found: Sequence[tuple[int, float]]) -> list[Hit]:
    rows = {row.row: row for row in space.numbered(row for row, _ in found)}
    return [
        Hit(rows[row].id, score, rows[row].text, json.loads(rows[row].metadata))
        for row, score in found
    ]
