"""`GraphSegment`: the derived half of a namespace, a DiskANN graph and its ledger rows.

A folder that is written under a temporary name, flushed and renamed, and never changed afterwards:

    graph      the graph itself, in its own checked format
    rows       the ledger's row of each number of the graph, -1 where there is none, with a checksum

It can be thrown away at any time: the ledger holds everything it was made from.
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
_HINT = "`idiolect index compact` makes it again from the ledger"


@dataclass(frozen=True)
class GraphSegment:
    """A graph and the rows it holds, opened for reading."""

    name: str
    """Of its folder."""
    graph: Graph
    rows: NDArray[np.int64]
    """(graph.rows,) the ledger's row of each number of the graph; -1 where it has none."""
    _order: NDArray[np.intp] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_order", np.argsort(self.rows, kind="stable"))

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return the graph's numbers of ledger rows; rows that it does not hold are left out."""
        places = np.searchsorted(self.rows, rows, sorter=self._order)
        numbers = self._order[places[places < len(self.rows)]]
        held: NDArray[np.intp] = numbers[self.rows[numbers] == rows[places < len(self.rows)]]
        return held

    @classmethod
    def open(cls, folder: Path) -> GraphSegment:
        """Open and check a folder.

        Raises:
            CheckpointError: a file is missing or damaged; the message names it.
        """
        from idiolect.search.diskann.graph import Graph  # brings numba: only where there is a graph

        rows = _read_rows(folder / "rows")
        if not (folder / "graph").exists():
            raise CheckpointError(f"{folder / 'graph'} is missing", hint=_HINT)
        try:
            graph = Graph.open(folder / "graph")
        except CheckpointError as error:
            raise CheckpointError(error.message, hint=_HINT) from error
        if graph.rows != len(rows):
            raise CheckpointError(
                f"{folder} holds {len(rows):,} rows for {graph.rows:,} vectors", hint=_HINT
            )
        return cls(folder.name, graph, rows)

    @classmethod
    def write(cls, parent: Path, graph: Graph, rows: NDArray[np.int64]) -> GraphSegment:
        """Write a new folder below `parent`; it is seen whole or not at all."""
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
        raise CheckpointError(f"{path} is cut off", hint=_HINT)
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
