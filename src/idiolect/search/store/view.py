"""`View`: an immutable, searchable state of a namespace.

Merged items are searched in the graph. Newer items are held in memory and searched exhaustively, so
a query sees every earlier write. `View.advance` derives the next view from an older one, and reads
only the changes from the ledger. After a merge, views keep the old graph until the new one is open.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from idiolect.search.diskann.row_mask import RowMask
from idiolect.search.store.batch_search import best_rows
from idiolect.search.store.unmerged import Unmerged

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from numpy.typing import NDArray

    from idiolect.search.diskann.metric import Metric
    from idiolect.search.store.graphs.graph_segment import GraphSegment
    from idiolect.search.store.graphs.segment_opener import SegmentOpener

__all__ = ["View"]

_MAX_SELECTIONS = 8  # filters whose matching rows a view caches


@dataclass(frozen=True)
class _Selection:
    """The rows that match a filter, in the graph and among the unmerged rows."""

    in_graph: RowMask | None
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
    graph: str | None
    """The name of the newest graph, which may not be open yet."""
    segment: GraphSegment | None
    """The graph that is searched."""
    alive: NDArray[np.bool_]
    """(graph.rows,) True for graph ids of items that are not deleted."""
    last_row: int
    last_tombstone: int
    pending: Unmerged
    _selections: dict[str, _Selection] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _alive_mask: RowMask | None = field(init=False)
    """The rows of the graph that are not deleted, or None if all are or there is no graph."""

    def __post_init__(self) -> None:
        mask = None
        if self.segment:
            alive = RowMask(self.alive)
            mask = alive if alive.count < len(self.segment.graph) else None
        object.__setattr__(self, "_alive_mask", mask)

    @property
    def unmerged(self) -> int:
        """The number of vectors that are searched exhaustively."""
        return len(self.pending)

    @property
    def size(self) -> int:
        """The bytes of the vectors in memory; 0 if the namespace has a graph."""
        return 0 if self.segment else self.pending.vectors.nbytes

    @property
    def _has_newest_graph(self) -> bool:
        return self.graph == (self.segment.name if self.segment else None)

    @classmethod
    def advance(
        cls,
        old: View | None,
        db: sqlite3.Connection,
        number: int,
        opener: SegmentOpener,
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
        if old is not None and (old.number, old.epoch) != (number, epoch):
            old = None
        if old is not None and old.changes == changes and old._has_newest_graph:
            return old
        forgotten, graph, last_row, last_tombstone = db.execute(
            "SELECT forgotten, graph, last_row, last_tombstone FROM namespaces WHERE number = ?",
            (number,),
        ).fetchone()
        if old is not None and forgotten > old.last_tombstone:
            old = None  # a tombstone was purged before `old` saw it
        segment = None
        if graph and (old is None or old.segment is None or old.segment.name != graph):
            segment = opener.open(number, graph) if old is None else opener.take(number, graph)
        if segment is not None:
            alive = segment.rows >= 0
            pending = old.pending.after(last_row) if old else Unmerged.empty(dimensions)
            seen_row = max(last_row, old.last_row) if old else last_row
            seen_tombstone = last_tombstone
        elif old is not None and (graph or old.segment is None):
            segment, alive, pending = old.segment, old.alive, old.pending
            seen_row, seen_tombstone = old.last_row, old.last_tombstone
        else:
            alive, pending = np.empty(0, bool), Unmerged.empty(dimensions)
            seen_row, seen_tombstone = 0, forgotten
        tombstones = db.execute(
            "SELECT number, row FROM tombstones WHERE namespace = ? AND number > ? ORDER BY number",
            (number, seen_tombstone),
        ).fetchall()
        if tombstones:
            seen_tombstone = tombstones[-1][0]
            rows = np.unique(np.array([row for _, row in tombstones], dtype=np.int64))
            if segment:
                alive = alive.copy()
                alive[segment.graph_ids(rows)] = False
            pending = pending.without(rows)
        added = db.execute(
            "SELECT row, vector FROM items JOIN vectors USING (row)"
            " WHERE namespace = ? AND row > ? ORDER BY row",
            (number, seen_row),
        ).fetchall()
        if added:
            seen_row = added[-1][0]
            vectors = np.frombuffer(b"".join(blob for _, blob in added), dtype="<f4")
            pending = pending.append(
                np.array([row for row, _ in added], dtype=np.int64),
                _prepare(vectors.reshape(len(added), dimensions), metric),
            )
        return cls(
            number, epoch, changes, metric, graph, segment, alive, seen_row, seen_tombstone, pending
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
            queries: (q, dimensions) checked vectors. They are searched in one call of the graph.
            top_k: number of results per query.
            selection: the text of a filter, and a function that reads the matching rows; these are
                cached by the text.
        """
        queries = _prepare(queries, self.metric)
        chosen = self._selection(*selection) if selection else None
        mask = None if chosen is None else chosen.unmerged
        if len(queries) == 1:
            coded = self.segment is not None
            found = [self.pending.search(queries[0], self.metric, top_k, mask, coded=coded)]
        else:
            own = self.pending
            mask = own.alive if mask is None else mask
            found = best_rows(queries, own.vectors, own.rows, mask, self.metric, top_k)
        if self.segment:
            keep = self._alive_mask if chosen is None else chosen.in_graph
            if keep is None or keep.count:
                ids, scores = self.segment.graph.search(queries, top_k, mask=keep)
                for pairs, own_ids, own_scores in zip(found, ids, scores, strict=True):
                    valid = own_ids >= 0
                    rows = self.segment.rows[own_ids[valid]]
                    pairs += zip(rows.tolist(), own_scores[valid].tolist(), strict=True)
        for pairs in found:
            pairs.sort(key=lambda pair: (-pair[1], pair[0]))
            del pairs[top_k:]
        return found

    def _selection(self, name: str, read: Callable[[], NDArray[np.int64]]) -> _Selection:
        with self._lock:
            found = self._selections.get(name)
        if found is None:
            rows = read()
            in_graph = None
            if self.segment:
                mask = np.zeros(len(self.alive), bool)
                mask[self.segment.graph_ids(rows)] = True
                in_graph = RowMask(mask & self.alive)
            found = _Selection(
                in_graph,
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
