"""`GraphWriter`: writes the next graph of a namespace, in memory or on disk.

`prepare` reads the ledger in a transaction. The function that it returns then builds and writes the
graph outside of the transaction: while one is open, SQLite's log keeps growing with the writes of
others.
"""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from idiolect.errors import InputError
from idiolect.search.store.graphs.graph_segment import GraphSegment
from idiolect.search.store.graphs.memory_plan import plan_memory
from idiolect.search.store.metadata_index import MetadataIndex

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from idiolect.search.diskann import Graph
    from idiolect.search.diskann.disk.flat_vectors import FlatVectors
    from idiolect.search.diskann.metric import Metric

__all__ = ["VECTORS", "GraphWriter"]

VECTORS = ".vectors-"
"""The start of the names of temporary files with vectors."""

_MAX_CHANGED = 0.5  # fraction of a graph; beyond it, rebuilding is as fast as updating
_CHUNK = 4096  # vectors read at once
_FULL = "free disk space and merge again; nothing was lost: new items are compared one by one"


@dataclass(frozen=True)
class _Changes:
    new: NDArray[np.int64]  # ledger rows
    deleted: NDArray[np.intp]  # graph ids


@dataclass(frozen=True)
class GraphWriter:
    """Writes the graphs of one store."""

    folder: Path
    """The parent folder of the segments."""
    metric: Metric
    dimensions: int
    on_disk: bool
    """Whether vectors and edges stay on disk when the graph is searched."""
    memory_limit: int | None
    """Memory limit of the process in bytes; see `plan_memory` for the default."""
    unmerged: int
    """The number of unmerged items that a search holds in memory."""
    label_field: str | None
    """The metadata field for whose values a graph on disk has label edges."""

    def prepare(
        self,
        db: sqlite3.Connection,
        number: int,
        old: GraphSegment | None,
        rows: NDArray[np.int64],
    ) -> Callable[[], str]:
        """Read the input of the next segment, and return a function that writes the segment.

        The old segment is updated if possible. The function returns the name of the segment.

        Args:
            db: a connection in a transaction.
            number: the number of the namespace.
            old: the current segment.
            rows: the ledger rows of the next segment, ascending.

        Raises:
            InputError: the memory limit is too small, or the disk is full.
        """
        from idiolect.search.diskann import DiskGraph

        changes = None
        if old is not None and isinstance(old.graph, DiskGraph) == self.on_disk:
            known = old.rows[old.rows >= 0]
            new = np.setdiff1d(rows, known, assume_unique=True)
            deleted = old.graph_ids(np.setdiff1d(known, rows, assume_unique=True))
            if not len(new) and not len(deleted):
                return lambda: old.name
            if len(new) + len(deleted) <= _MAX_CHANGED * len(known):
                changes = _Changes(new, deleted)
        if not self.on_disk:
            return self._prepare_in_memory(db, old, rows, changes)
        labels = None
        if self.label_field is not None:
            labels = MetadataIndex(db, number).labels(self.label_field, rows)
        return self._prepare_on_disk(db, old, rows, changes, labels)

    def _prepare_in_memory(
        self,
        db: sqlite3.Connection,
        old: GraphSegment | None,
        rows: NDArray[np.int64],
        changes: _Changes | None,
    ) -> Callable[[], str]:
        from idiolect.search.diskann import Graph

        vectors = self._vectors(db, changes.new if changes else rows)

        def write() -> str:
            if changes is None or old is None:
                graph, row_of = Graph.build(vectors, metric=self.metric), rows
            else:
                assert isinstance(old.graph, Graph)
                graph, row_of = _update(old.graph, old.rows, changes, vectors)
            return self._write(row_of, lambda folder: graph.save(folder / "graph"))

        return write

    def _prepare_on_disk(
        self,
        db: sqlite3.Connection,
        old: GraphSegment | None,
        rows: NDArray[np.int64],
        changes: _Changes | None,
        labels: NDArray[np.int32] | None,
    ) -> Callable[[], str]:
        from idiolect.search.diskann import DiskGraph
        from idiolect.search.diskann.disk.disk_update import update_bytes, update_disk_graph
        from idiolect.search.diskann.disk.partitioned_build import build_partitioned

        plan = plan_memory(self.memory_limit, len(rows), self.dimensions, self.unmerged)
        if changes is not None and old is not None and self.metric != "inner":
            count = len(changes.new) + len(changes.deleted)
            if count * update_bytes(self.dimensions, labels=labels is not None) <= plan.available:
                graph, deleted = old.graph, changes.deleted
                assert isinstance(graph, DiskGraph)
                vectors = self._vectors(db, changes.new)
                return lambda: self._write(
                    rows,
                    lambda folder: update_disk_graph(
                        folder / "disk_graph", graph, deleted, vectors, labels=labels
                    ),
                )
        file = self._copy_vectors(db, rows)

        def write() -> str:
            with contextlib.closing(file):
                return self._write(
                    rows,
                    lambda folder: build_partitioned(
                        folder / "disk_graph", file, metric=self.metric,
                        max_rows=plan.shard_rows, labels=labels, code_width=plan.code_width,
                    ),
                )  # fmt: skip

        return write

    def _write(self, rows: NDArray[np.int64], write: Callable[[Path], None]) -> str:
        try:
            return GraphSegment.write(self.folder, rows, write)
        except InputError as error:
            raise InputError(error.message, hint=_FULL) from error

    def _copy_vectors(self, db: sqlite3.Connection, rows: NDArray[np.int64]) -> FlatVectors:
        """Copy vectors to a file that the system removes when it is closed."""
        from idiolect.search.diskann.disk.flat_vectors import FlatVectors

        def chunks() -> Iterator[NDArray[np.float32]]:
            for start in range(0, len(rows), _CHUNK):
                vectors = self._vectors(db, rows[start : start + _CHUNK])
                if self.metric == "cosine":
                    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
                yield vectors

        path = self.folder / f"{VECTORS}{uuid.uuid4().hex}"
        try:
            return FlatVectors.create(path, self.dimensions, chunks())
        except InputError as error:
            raise InputError(error.message, hint=_FULL) from error
        finally:
            path.unlink(missing_ok=True)

    def _vectors(self, db: sqlite3.Connection, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        vectors = np.empty((len(rows), self.dimensions), np.float32)
        query = "SELECT vector FROM vectors WHERE row = ?"
        for place, row in enumerate(rows.tolist()):
            vectors[place] = np.frombuffer(db.execute(query, (row,)).fetchone()[0], "<f4")
        return vectors


def _update(
    graph: Graph, rows: NDArray[np.int64], changes: _Changes, vectors: NDArray[np.float32]
) -> tuple[Graph, NDArray[np.int64]]:
    """Change a graph in memory; return it, and the ledger row of each graph id."""
    graph.delete(changes.deleted)
    graph.merge()
    inserted = graph.insert(vectors)
    row_of = np.full(graph.rows, -1, np.int64)
    row_of[: len(rows)] = rows
    row_of[changes.deleted] = -1
    row_of[inserted] = changes.new
    return graph, row_of
