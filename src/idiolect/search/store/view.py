"""`View`: one state of a namespace, ready to be searched.

What a graph holds is searched in the graph; what is newer is held in memory and compared one by
one, so a read sees every write that came before it. A view never changes: `advance` makes the next
one, and reads from the ledger only what happened since.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from idiolect.search.store.graph_segment import GraphSegment

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from idiolect.search.diskann.metric import Metric

__all__ = ["View"]

_AT_ONCE = 4096  # rows compared at once, so that what is held besides them stays small
_MOST_SELECTIONS = 8  # filters whose rows are remembered for one state


@dataclass(frozen=True)
class _Fresh:
    """Vectors that are in no graph yet; growing fills a buffer that older states share."""

    rows: NDArray[np.int64]  # (m,) ascending
    vectors: NDArray[np.float32]  # (m, d), normalised under cosine
    alive: NDArray[np.bool_]  # (m,)
    capacity: tuple[NDArray[np.int64], NDArray[np.float32]]

    @classmethod
    def empty(cls, dimensions: int) -> _Fresh:
        rows, vectors = np.empty(0, np.int64), np.empty((0, dimensions), np.float32)
        return cls(rows, vectors, np.empty(0, bool), (rows, vectors))

    def without(self, gone: NDArray[np.int64]) -> _Fresh:
        alive = self.alive & ~np.isin(self.rows, gone)
        return _Fresh(self.rows, self.vectors, alive, self.capacity)

    def plus(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> _Fresh:
        kept, added = len(self.rows), len(rows)
        all_rows, all_vectors = self.capacity
        alive = self.alive
        if kept + added > len(all_rows):
            live = np.flatnonzero(alive)
            size = 2 * (len(live) + added)
            all_rows = np.empty(size, np.int64)
            all_vectors = np.empty((size, vectors.shape[1]), np.float32)
            kept = len(live)
            all_rows[:kept], all_vectors[:kept] = self.rows[live], self.vectors[live]
            alive = np.ones(kept, bool)
        end = kept + added
        all_rows[kept:end], all_vectors[kept:end] = rows, vectors
        alive = np.concatenate([alive, np.ones(added, bool)])
        return _Fresh(all_rows[:end], all_vectors[:end], alive, (all_rows, all_vectors))


@dataclass(frozen=True)
class _Selection:
    """The rows a filter matches, as masks over both halves."""

    merged: NDArray[np.bool_]
    fresh: NDArray[np.bool_]


@dataclass(frozen=True)
class View:
    """One state of one namespace.

    A state is named by (`epoch`, `changes`); see `idiolect.search.store.ledger`.
    """

    number: int
    epoch: str
    changes: int
    metric: Metric
    merged: GraphSegment | None
    alive: NDArray[np.bool_]
    last_row: int
    last_tombstone: int
    fresh: _Fresh
    _selections: dict[str, _Selection] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _whole: bool = field(init=False)

    def __post_init__(self) -> None:
        gone = len(self.alive) - int(self.alive.sum())
        free = self.merged.graph.rows - len(self.merged.graph) if self.merged else 0
        object.__setattr__(self, "_whole", gone == free)

    @property
    def unmerged(self) -> int:
        """How many vectors are compared one by one."""
        return int(self.fresh.alive.sum())

    @classmethod
    def advance(
        cls,
        old: View | None,
        db: sqlite3.Connection,
        number: int,
        folder: Path,
        dimensions: int,
        metric: Metric,
    ) -> View:
        """Return the state of a namespace inside a transaction, from an older one if there is one.

        Raises:
            CheckpointError: the graph is damaged; the message names the file.
            FileNotFoundError: a newer graph has replaced it meanwhile; begin again.
        """
        settings = dict(db.execute("SELECT * FROM settings WHERE name IN ('epoch', 'changes')"))
        epoch, changes = settings["epoch"], settings["changes"]
        if old and (old.number, old.epoch, old.changes) == (number, epoch, changes):
            return old
        forgotten, graph, last_row, last_tombstone = db.execute(
            "SELECT forgotten, graph, last_row, last_tombstone FROM namespaces WHERE number = ?",
            (number,),
        ).fetchone()
        known = old is not None and (old.number, old.epoch) == (number, epoch)
        if (
            old is not None
            and known
            and graph == (old.merged.name if old.merged else None)
            and forgotten <= old.last_tombstone
        ):
            merged, alive, fresh = old.merged, old.alive, old.fresh
            last_row, last_tombstone = old.last_row, old.last_tombstone
        else:
            merged = GraphSegment.open(folder / graph) if graph else None
            alive = merged.rows >= 0 if merged else np.empty(0, bool)
            fresh = _Fresh.empty(dimensions)
            last_row, last_tombstone = last_row or 0, max(last_tombstone or 0, forgotten)
        gone = db.execute(
            "SELECT number, row FROM tombstones WHERE namespace = ? AND number > ? ORDER BY number",
            (number, last_tombstone),
        ).fetchall()
        if gone:
            last_tombstone = gone[-1][0]
            rows = np.unique(np.array([row for _, row in gone], dtype=np.int64))
            if merged:
                alive = alive.copy()
                alive[merged.numbers(rows)] = False
            fresh = fresh.without(rows)
        added = db.execute(
            "SELECT row, vector FROM items JOIN vectors USING (row)"
            " WHERE namespace = ? AND row > ? ORDER BY row",
            (number, last_row),
        ).fetchall()
        if added:
            last_row = added[-1][0]
            vectors = np.frombuffer(b"".join(blob for _, blob in added), dtype="<f4")
            fresh = fresh.plus(
                np.array([row for row, _ in added], dtype=np.int64),
                _prepare(vectors.reshape(len(added), dimensions), metric),
            )
        return cls(number, epoch, changes, metric, merged, alive, last_row, last_tombstone, fresh)

    def search(
        self,
        query: NDArray[np.float32],
        k: int,
        *,
        selection: tuple[str, Callable[[], NDArray[np.int64]]] | None = None,
    ) -> list[tuple[int, float]]:
        """Return the k best (row, score), larger being better.

        Args:
            query: (dimensions,), checked.
            k: how many.
            selection: a filter's text, and how to read its rows; they are remembered.
        """
        query = _prepare(query[None], self.metric)[0]
        chosen = self._selection(*selection) if selection else None
        found = self._search_fresh(query, k, chosen)
        if self.merged:
            keep: NDArray[np.bool_] | None = self.alive if chosen is None else chosen.merged
            if chosen is None and self._whole:
                keep = None
            if keep is None or keep.any():
                numbers, scores = self.merged.graph.search(query[None], k, mask=keep)
                there = numbers[0] >= 0
                rows = self.merged.rows[numbers[0][there]]
                found += zip(rows.tolist(), scores[0][there].tolist(), strict=True)
        found.sort(key=lambda pair: (-pair[1], pair[0]))
        return found[:k]

    def _search_fresh(
        self, query: NDArray[np.float32], k: int, chosen: _Selection | None
    ) -> list[tuple[int, float]]:
        places = np.flatnonzero(self.fresh.alive if chosen is None else chosen.fresh)
        everything = len(places) == len(self.fresh.rows)
        scores = np.empty(len(places), np.float32)
        for start in range(0, len(places), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            some = self.fresh.vectors[part if everything else places[part]]
            if self.metric == "l2":
                difference = some - query
                scores[part] = -np.einsum("nd,nd->n", difference, difference)
            else:
                scores[part] = some @ query
        best = np.argpartition(-scores, k - 1)[:k] if k < len(scores) else slice(None)
        rows = self.fresh.rows[places[best]]
        return list(zip(rows.tolist(), scores[best].tolist(), strict=True))

    def _selection(self, name: str, read: Callable[[], NDArray[np.int64]]) -> _Selection:
        with self._lock:
            found = self._selections.get(name)
        if found is None:
            rows = read()
            merged = np.zeros(len(self.alive), bool)
            if self.merged:
                merged[self.merged.numbers(rows)] = True
            found = _Selection(
                merged & self.alive,
                np.isin(self.fresh.rows, rows, assume_unique=True) & self.fresh.alive,
            )
            with self._lock:
                while len(self._selections) >= _MOST_SELECTIONS:
                    self._selections.pop(next(iter(self._selections)))
                self._selections[name] = found
        return found


def _prepare(vectors: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    if metric != "cosine":
        return vectors
    normalised: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normalised
