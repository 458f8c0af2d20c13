"""`View`: an immutable, searchable state of a namespace.

Merged items are searched in the graph. Newer items are held in memory and searched exhaustively, so
a query sees every earlier write. `View.advance` derives the next view from an older one, and reads
only the changes from the ledger.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from idiolect.search.store.batch_search import best_rows
from idiolect.search.store.graph_segment import GraphSegment

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from idiolect.search.diskann.metric import Metric

__all__ = ["View"]

_BLOCK = 4096  # vectors compared at once, which bounds the memory of temporary arrays
_MAX_SELECTIONS = 8  # filters whose matching rows a view caches


@dataclass(frozen=True)
class _Unmerged:
    """Vectors that are not in the graph yet.

    Older views share the buffer: `append` only writes beyond the rows that they see.
    """

    rows: NDArray[np.int64]  # (m,) ascending
    vectors: NDArray[np.float32]  # (m, d), normalized for the cosine metric
    alive: NDArray[np.bool_]  # (m,)
    buffer: tuple[NDArray[np.int64], NDArray[np.float32]]

    @classmethod
    def empty(cls, dimensions: int) -> _Unmerged:
        rows, vectors = np.empty(0, np.int64), np.empty((0, dimensions), np.float32)
        return cls(rows, vectors, np.empty(0, bool), (rows, vectors))

    def without(self, deleted: NDArray[np.int64]) -> _Unmerged:
        alive = self.alive & ~np.isin(self.rows, deleted)
        return _Unmerged(self.rows, self.vectors, alive, self.buffer)

    def append(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> _Unmerged:
        kept, added = len(self.rows), len(rows)
        all_rows, all_vectors = self.buffer
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
        return _Unmerged(all_rows[:end], all_vectors[:end], alive, (all_rows, all_vectors))


@dataclass(frozen=True)
class _Selection:
    """The rows that match a filter, as masks over the graph and the unmerged rows."""

    in_graph: NDArray[np.bool_]
    unmerged: NDArray[np.bool_]


@dataclass(frozen=True)
class View:
    """One state of one namespace.

    (`epoch`, `changes`) identifies the state: a restore sets a new epoch, a write increments
    `changes`.
    """

    number: int
    epoch: str
    changes: int
    metric: Metric
    segment: GraphSegment | None
    alive: NDArray[np.bool_]
    """(graph.rows,) which graph ids hold an item that is not deleted."""
    last_row: int
    last_tombstone: int
    pending: _Unmerged
    _selections: dict[str, _Selection] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _graph_is_current: bool = field(init=False)

    def __post_init__(self) -> None:
        deleted = len(self.alive) - int(self.alive.sum())
        unused = self.segment.graph.rows - len(self.segment.graph) if self.segment else 0
        object.__setattr__(self, "_graph_is_current", deleted == unused)

    @property
    def unmerged(self) -> int:
        """The number of vectors that are searched exhaustively."""
        return int(self.pending.alive.sum())

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
        """Return the view of a namespace in a transaction, derived from an older view if possible.

        Raises:
            CheckpointError: the graph is damaged, or a merge has removed it since the transaction
                began; the message names the file.
        """
        settings = dict(db.execute("SELECT * FROM settings WHERE name IN ('epoch', 'changes')"))
        epoch, changes = settings["epoch"], settings["changes"]
        if old and (old.number, old.epoch, old.changes) == (number, epoch, changes):
            return old
        forgotten, graph, last_row, last_tombstone = db.execute(
            "SELECT forgotten, graph, last_row, last_tombstone FROM namespaces WHERE number = ?",
            (number,),
        ).fetchone()
        if (
            old is not None
            and (old.number, old.epoch) == (number, epoch)
            and graph == (old.segment.name if old.segment else None)
            and forgotten <= old.last_tombstone  # no tombstone was purged before `old` saw it
        ):
            segment, alive, pending = old.segment, old.alive, old.pending
            last_row, last_tombstone = old.last_row, old.last_tombstone
        else:
            segment = GraphSegment.open(folder / graph) if graph else None
            alive = segment.rows >= 0 if segment else np.empty(0, bool)
            pending = _Unmerged.empty(dimensions)
            last_row, last_tombstone = last_row or 0, max(last_tombstone or 0, forgotten)
        tombstones = db.execute(
            "SELECT number, row FROM tombstones WHERE namespace = ? AND number > ? ORDER BY number",
            (number, last_tombstone),
        ).fetchall()
        if tombstones:
            last_tombstone = tombstones[-1][0]
            rows = np.unique(np.array([row for _, row in tombstones], dtype=np.int64))
            if segment:
                alive = alive.copy()
                alive[segment.graph_ids(rows)] = False
            pending = pending.without(rows)
        added = db.execute(
            "SELECT row, vector FROM items JOIN vectors USING (row)"
            " WHERE namespace = ? AND row > ? ORDER BY row",
            (number, last_row),
        ).fetchall()
        if added:
            last_row = added[-1][0]
            vectors = np.frombuffer(b"".join(blob for _, blob in added), dtype="<f4")
            pending = pending.append(
                np.array([row for row, _ in added], dtype=np.int64),
                _prepare(vectors.reshape(len(added), dimensions), metric),
            )
        return cls(
            number, epoch, changes, metric, segment, alive, last_row, last_tombstone, pending
        )

    def search(
        self,
        queries: NDArray[np.float32],
        top_k: int,
        *,
        selection: tuple[str, Callable[[], NDArray[np.int64]]] | None = None,
    ) -> list[list[tuple[int, float]]]:
        """Return the k best (row, score) of each query, larger being better.

        Args:
            queries: (q, dimensions) checked vectors, which the graph answers in one call.
            top_k: how many.
            selection: the text of a filter, and a function that reads its rows; rows are cached.
        """
        queries = _prepare(queries, self.metric)
        chosen = self._selection(*selection) if selection else None
        if len(queries) == 1:
            found = [self._search_pending(queries[0], top_k, chosen)]
        else:
            mask = self.pending.alive if chosen is None else chosen.unmerged
            found = best_rows(
                queries, self.pending.vectors, self.pending.rows, mask, self.metric, top_k
            )
        if self.segment:
            keep: NDArray[np.bool_] | None = self.alive if chosen is None else chosen.in_graph
            if chosen is None and self._graph_is_current:
                keep = None
            if keep is None or keep.any():
                ids, scores = self.segment.graph.search(queries, top_k, mask=keep)
                for pairs, own_ids, own_scores in zip(found, ids, scores, strict=True):
                    valid = own_ids >= 0
                    rows = self.segment.rows[own_ids[valid]]
                    pairs += zip(rows.tolist(), own_scores[valid].tolist(), strict=True)
        for pairs in found:
            pairs.sort(key=lambda pair: (-pair[1], pair[0]))
            del pairs[top_k:]
        return found

    def _search_pending(
        self, query: NDArray[np.float32], k: int, chosen: _Selection | None
    ) -> list[tuple[int, float]]:
        places = np.flatnonzero(self.pending.alive if chosen is None else chosen.unmerged)
        everything = len(places) == len(self.pending.rows)
        scores = np.empty(len(places), np.float32)
        for start in range(0, len(places), _BLOCK):
            part = slice(start, start + _BLOCK)
            vectors = self.pending.vectors[part if everything else places[part]]
            if self.metric == "l2":
                difference = vectors - query
                scores[part] = -np.einsum("nd,nd->n", difference, difference)
            else:
                scores[part] = vectors @ query
        best = np.argpartition(-scores, k - 1)[:k] if k < len(scores) else slice(None)
        rows = self.pending.rows[places[best]]
        return list(zip(rows.tolist(), scores[best].tolist(), strict=True))

    def _selection(self, name: str, read: Callable[[], NDArray[np.int64]]) -> _Selection:
        with self._lock:
            found = self._selections.get(name)
        if found is None:
            rows = read()
            in_graph = np.zeros(len(self.alive), bool)
            if self.segment:
                in_graph[self.segment.graph_ids(rows)] = True
            found = _Selection(
                in_graph & self.alive,
                np.isin(self.pending.rows, rows, assume_unique=True) & self.pending.alive,
            )
            with self._lock:
                while len(self._selections) >= _MAX_SELECTIONS:
                    self._selections.pop(next(iter(self._selections)))
                self._selections[name] = found
        return found


def _prepare(vectors: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    if metric != "cosine":
        return vectors
    normalized: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normalized
