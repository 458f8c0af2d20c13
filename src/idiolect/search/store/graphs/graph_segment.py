"""`GraphSegment`: a DiskANN graph of the merged items of a namespace, with their ledger rows.

A segment is a folder. It is written under a temporary name, flushed and renamed, and never changes
afterwards:

    graph      the graph, in its own format with checksums; or
    disk_graph the graph whose vectors and edges stay on disk
    rows       the ledger row of each graph id, -1 for unused ids, with a checksum

A segment can be deleted at any time: the ledger holds everything needed to rebuild it.
"""

from __future__ import annotations

import os
import shutil
import struct
import uuid
import weakref
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from idiolect.errors import CheckpointError, InputError
from idiolect.text.files import flush

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from idiolect.search.diskann import DiskGraph, Graph

__all__ = ["GraphSegment"]

_HEADER = struct.Struct("<8sQI")  # magic, rows, CRC-32
_MAGIC = b"IDIOROWS"
_HINT = "run `idiolect index compact` to rebuild it from the ledger"


# Disk graphs in use by path: they are never changed, so all users share their arrays in memory.
_SHARED: weakref.WeakValueDictionary[Path, GraphSegment] = weakref.WeakValueDictionary()


@dataclass(frozen=True)
class GraphSegment:
    """An open segment: a graph and the ledger rows of its vectors."""

    name: str
    """The name of its folder."""
    graph: Graph | DiskGraph
    rows: NDArray[np.int64]
    """(graph.rows,) the ledger row of each graph id; -1 for unused ids."""
    _order: NDArray[np.intp] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ascending = bool((self.rows[1:] > self.rows[:-1]).all())
        order = None if ascending else np.argsort(self.rows, kind="stable")
        object.__setattr__(self, "_order", order)

    def graph_ids(self, rows: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return the graph ids of ledger rows; rows that are not in the segment are skipped."""
        places = np.searchsorted(self.rows, rows, sorter=self._order)
        in_range = places < len(self.rows)
        candidates = places[in_range]
        if self._order is not None:
            candidates = self._order[candidates]
        ids: NDArray[np.intp] = candidates[self.rows[candidates] == rows[in_range]]
        return ids

    @classmethod
    def open(cls, folder: Path, *, verify: bool = False) -> GraphSegment:
        """Open and check a folder.

        Args:
            folder: the folder of the segment.
            verify: also check the pages of a disk graph, which otherwise are checked when read.

        Raises:
            CheckpointError: a file is missing or damaged; the message names it.
        """
        from idiolect.search.diskann import DiskGraph, Graph  # imports numba, so only when needed

        path = folder.resolve()
        shared = None if verify else _SHARED.get(path)
        if shared is not None:
            return shared
        rows = _read_rows(folder / "rows")
        on_disk = (folder / "disk_graph").exists()
        if not on_disk and not (folder / "graph").exists():
            raise CheckpointError(f"{folder / 'graph'} is missing", hint=_HINT)
        graph: Graph | DiskGraph
        try:
            if on_disk:
                graph = DiskGraph.open(folder / "disk_graph", verify=verify)
            else:
                graph = Graph.open(folder / "graph")
        except CheckpointError as error:
            raise CheckpointError(error.message, hint=_HINT) from error
        if graph.rows != len(rows):
            raise CheckpointError(
                f"{folder} has {len(rows):,} rows for {graph.rows:,} vectors", hint=_HINT
            )
        segment = cls(folder.name, graph, rows)
        if on_disk:
            _SHARED[path] = segment
        return segment

    @staticmethod
    def write(parent: Path, rows: NDArray[np.int64], write: Callable[[Path], None]) -> str:
        """Write a new folder below `parent`, and return its name.

        It appears only when it is complete.

        Args:
            parent: the folder of the segments.
            rows: (graph.rows,) the ledger row of each graph id; -1 for unused ids.
            write: writes the graph into a folder, as the file `graph` or `disk_graph`.

        Raises:
            InputError: the disk is full, or a file cannot be written.
        """
        name = uuid.uuid4().hex
        temporary = parent / f".{name}"
        temporary.mkdir(parents=True)
        try:
            write(temporary)
            _write_rows(temporary / "rows", rows)
            flush(temporary)
            temporary.rename(parent / name)
            flush(parent)
        except OSError as error:
            raise InputError(f"cannot write {temporary}: {error.strerror}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return name


def _read_rows(path: Path) -> NDArray[np.int64]:
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
            rows = np.fromfile(file, "<i8")
            left = len(file.read())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}", hint=_HINT) from error
    if len(header) < _HEADER.size:
        raise CheckpointError(f"{path} is truncated", hint=_HINT)
    magic, count, checksum = _HEADER.unpack(header)
    if magic != _MAGIC or left or len(rows) != count or zlib.crc32(rows.data) != checksum:
        raise CheckpointError(f"{path} is damaged", hint=_HINT)
    return rows.astype(np.int64, copy=False)


def _write_rows(path: Path, rows: NDArray[np.int64]) -> None:
    body = rows.astype("<i8").tobytes()
    with path.open("xb") as file:
        file.write(_HEADER.pack(_MAGIC, len(rows), zlib.crc32(body)) + body)
        file.flush()
        os.fsync(file.fileno())
