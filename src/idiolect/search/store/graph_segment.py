"""`GraphSegment`: a DiskANN graph of the merged items of a namespace, with their ledger rows.

A segment is a folder. It is written under a temporary name, flushed and renamed, and never changes
afterwards:

    graph      the graph, in its own format with checksums
    rows       the ledger row of each graph id, -1 for unused ids, with a checksum

A segment can be deleted at any time: the ledger holds everything needed to rebuild it.
"""

from __future__ import annotations

import os
import shutil
import struct
import uuid
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from idiolect.errors import CheckpointError
from idiolect.text.files import flush

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from idiolect.search.diskann.graph import Graph

__all__ = ["GraphSegment"]

_HEADER = struct.Struct("<8sQI")  # magic, rows, CRC-32
_MAGIC = b"IDIOROWS"
_HINT = "run `idiolect index compact` to rebuild it from the ledger"


@dataclass(frozen=True)
class GraphSegment:
    """An open segment: a graph and the ledger rows of its vectors."""

    name: str
    """The name of its folder."""
    graph: Graph
    rows: NDArray[np.int64]
    """(graph.rows,) the ledger row of each graph id; -1 for unused ids."""
    _order: NDArray[np.intp] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_order", np.argsort(self.rows, kind="stable"))

    def graph_ids(self, rows: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return the graph ids of ledger rows; rows that are not in the segment are skipped."""
        places = np.searchsorted(self.rows, rows, sorter=self._order)
        in_range = places < len(self.rows)
        candidates = self._order[places[in_range]]
        ids: NDArray[np.intp] = candidates[self.rows[candidates] == rows[in_range]]
        return ids

    @classmethod
    def open(cls, folder: Path) -> GraphSegment:
        """Open and check a folder.

        Raises:
            CheckpointError: a file is missing or damaged; the message names it.
        """
        from idiolect.search.diskann.graph import Graph  # imports numba, so only when needed

        rows = _read_rows(folder / "rows")
        if not (folder / "graph").exists():
            raise CheckpointError(f"{folder / 'graph'} is missing", hint=_HINT)
        try:
            graph = Graph.open(folder / "graph")
        except CheckpointError as error:
            raise CheckpointError(error.message, hint=_HINT) from error
        if graph.rows != len(rows):
            raise CheckpointError(
                f"{folder} has {len(rows):,} rows for {graph.rows:,} vectors", hint=_HINT
            )
        return cls(folder.name, graph, rows)

    @classmethod
    def write(cls, parent: Path, graph: Graph, rows: NDArray[np.int64]) -> GraphSegment:
        """Write a new folder below `parent`; it appears only when it is complete."""
        name = uuid.uuid4().hex
        temporary = parent / f".{name}"
        temporary.mkdir(parents=True)
        try:
            graph.save(temporary / "graph")
            _write_rows(temporary / "rows", rows)
            flush(temporary)
            temporary.rename(parent / name)
            flush(parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return cls(name, graph, rows)


def _read_rows(path: Path) -> NDArray[np.int64]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}", hint=_HINT) from error
    body = data[_HEADER.size :]
    if len(data) < _HEADER.size:
        raise CheckpointError(f"{path} is truncated", hint=_HINT)
    magic, count, checksum = _HEADER.unpack(data[: _HEADER.size])
    if magic != _MAGIC or len(body) != 8 * count or zlib.crc32(body) != checksum:
        raise CheckpointError(f"{path} is damaged", hint=_HINT)
    return np.frombuffer(body, dtype="<i8").astype(np.int64)


def _write_rows(path: Path, rows: NDArray[np.int64]) -> None:
    body = rows.astype("<i8").tobytes()
    with path.open("xb") as file:
        file.write(_HEADER.pack(_MAGIC, len(rows), zlib.crc32(body)) + body)
        file.flush()
        os.fsync(file.fileno())
