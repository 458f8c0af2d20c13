"""Write the next disk graph: without deleted rows, with new ones, in one pass over the old file.

This is the merge of FreshDiskANN (Singh et al. 2021, §5). New vectors are searched for in the old
graph, and get edges to the nodes that these searches read, and to each other. Then the old pages
are read once, in order. A node loses its edges to deleted nodes and gets those of these nodes
instead, and it gets the reverse edges of new nodes. If it has too many, they are pruned by their
codes, so no other page is read for it.

Rows are numbered anew: those that remain keep their order, and new rows follow them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from idiolect.search.diskann.array_file import StreamedArray
from idiolect.search.diskann.disk.disk_file import DiskFile
from idiolect.search.diskann.disk.disk_graph import DiskGraph
from idiolect.search.diskann.disk.pages import Nodes
from idiolect.search.diskann.graph import Graph
from idiolect.search.diskann.graph_rows import check_vectors
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.metric import METRICS
from idiolect.search.diskann.product_codes import ProductCodes, decode_row
from idiolect.search.diskann.prune import robust_prune, sort_candidates
from idiolect.search.diskann.queries import prepare_queries
from idiolect.search.diskann.scalar_quantizer import aligned_zeros
from idiolect.search.diskann.thread_pool import ThreadPool, group_by_target

__all__ = ["update_bytes", "update_disk_graph"]

_ALPHA = np.float32(1.2)
_LIST_SIZE = 100  # of the searches for new vectors
_CHUNK = 4096  # nodes read at once
_POINTS = 32  # new vectors, or repaired nodes, per task


def update_bytes(dimension: int, degree: int = 64) -> int:
    """Return the memory that an update needs, in bytes per new or deleted row."""
    return 16 * dimension + 48 * degree


@kernel
def _choose(  # type: ignore[no-untyped-def]
    scratch, read, count, dead, friends, vectors, first, alpha, chosen
):
    """Select the neighbours of a new vector, the first of `scratch`.

    The candidates are the `count` nodes of `read`, whose vectors follow in `scratch`, and its
    `friends`: new rows, whose vectors are in `vectors` and whose numbers start at `first`.
    """
    lines = scratch.shape[1] // 16
    candidates = np.empty(count + friends.shape[0], np.int32)
    total = 0
    for i in range(count):
        if not dead[read[i]]:
            candidates[total] = i + 1
            total += 1
    for i in range(friends.shape[0]):
        if friends[i] >= 0:
            scratch[1 + count + i] = vectors[friends[i]]
            candidates[total] = 1 + count + i
            total += 1
    keys = sort_candidates(scratch.ctypes.data, lines, 0, candidates, total)
    found = robust_prune(scratch.ctypes.data, lines, 0, keys, alpha, chosen)
    for j in range(found):
        place = chosen[j] - 1
        chosen[j] = read[place] if place < count else first + friends[place - count]


@kernel
def _repair(  # type: ignore[no-untyped-def]
    first, vectors, edges, dead, dead_rows, dead_edges, targets, starts, sources, codes,
    new_codes, centroids, alpha, start, stop, out,
):  # fmt: skip
    """Write the edges of nodes start..stop-1 of a chunk whose first row is `first`.

    `vectors` are rotated as before encoding, and padded.
    """
    lines = vectors.shape[1] // 16
    degree, old = edges.shape[1], dead.shape[0]
    width = out.shape[1]
    for i in range(start, stop):
        row = first + i
        out[i] = -1
        if row < old and dead[row]:
            continue
        at = np.searchsorted(targets, row)
        added = starts[at + 1] - starts[at] if at < len(targets) and targets[at] == row else 0
        candidates = np.empty(degree * (degree + 1) + added, np.int32)
        count, lost = 0, False
        for near in edges[i]:
            if near < 0:
                break
            if near >= old or not dead[near]:
                candidates[count] = near
                count += 1
                continue
            lost = True
            for far in dead_edges[np.searchsorted(dead_rows, near)]:
                if far < 0:
                    break
                if far != row and not dead[far]:
                    candidates[count] = far
                    count += 1
        kept = count
        for j in range(added):
            source = sources[starts[at] + j]
            known = False
            for c in range(kept):
                known |= candidates[c] == source
            if not known:
                candidates[count] = source
                count += 1
        if not lost and count <= width:
            out[i, :count] = candidates[:count]
            continue
        distinct = np.unique(candidates[:count])
        count = distinct.shape[0]
        raw = np.empty((count + 1) * vectors.shape[1] + 16, np.float32)
        skip = (-raw.ctypes.data % 64) // 4
        scratch = raw[skip : skip + (count + 1) * vectors.shape[1]]
        scratch = scratch.reshape(count + 1, vectors.shape[1])
        scratch[0] = vectors[i]
        for j in range(count):
            if distinct[j] < old:
                decode_row(codes, distinct[j], centroids, scratch[j + 1])
            else:
                decode_row(new_codes, distinct[j] - old, centroids, scratch[j + 1])
        local = np.arange(1, count + 1).astype(np.int32)
        keys = sort_candidates(scratch.ctypes.data, lines, 0, local, count)
        found = robust_prune(scratch.ctypes.data, lines, 0, keys, alpha, out[i])
        for j in range(found):
            out[i, j] = distinct[out[i, j] - 1]


@dataclass(frozen=True)
class _Change:
    """What changes in a graph of `len(dead)` rows; new rows are numbered from there."""

    dead: NDArray[np.bool_]
    dead_rows: NDArray[np.int64]
    dead_edges: NDArray[np.int32]
    vectors: NDArray[np.float32]  # (new rows, padded dimension)
    chosen: NDArray[np.int32]  # (new rows, degree)

    @property
    def rows(self) -> int:
        """The number of rows of the next graph."""
        return len(self.dead) - len(self.dead_rows) + len(self.vectors)

    def renumber(self, edges: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return edges as row numbers of the next graph."""
        moved = edges - np.searchsorted(self.dead_rows, edges).astype(np.int32)
        return np.where(edges < 0, np.int32(-1), moved)


def update_disk_graph(
    path: str | Path,
    old: DiskGraph,
    deleted: ArrayLike,
    vectors: ArrayLike,
    *,
    threads: int | None = None,
) -> None:
    """Write a graph of the rows that remain and of new vectors (n, dimension), atomically.

    Args:
        path: The new file.
        old: A graph with `pq` codes, by cosine or distance, in which no row is deleted.
        deleted: Row numbers of the old graph; some must remain.
        vectors: The new vectors.
        threads: Number of threads, by default one per processor.

    Raises:
        InputError: a vector is not valid, or the file cannot be written.
        CheckpointError: a page of the old graph is damaged.
    """
    dead_rows = np.unique(np.asarray(deleted, np.int64))
    dead = np.zeros(old.rows, np.bool_)
    dead[dead_rows] = True
    facts = old.file
    given = np.asarray(vectors, np.float32).reshape(-1, facts.dimension)
    check_vectors(given, facts.metric, facts.dimension)
    prepared = prepare_queries(given, facts.metric, facts.dimension)
    codebooks, codes = old.product_codes
    with ThreadPool(threads) as pool:
        _, dead_edges = old.nodes(dead_rows)
        chosen = _choose_neighbours(old, dead, prepared, pool, threads)
        change = _Change(dead, dead_rows, dead_edges, prepared, chosen)
        new_codes = codebooks.encode(prepared, pool)
        entry = facts.entry
        if dead[entry]:
            place, _ = old.nodes(np.array([entry]))
            nearest, _ = old.search(place[:, : facts.dimension], 1, mask=~dead, threads=1)
            entry = int(nearest[0, 0])
        entry -= int(np.searchsorted(dead_rows, entry))
        file = DiskFile(facts.metric, facts.dimension, facts.degree, entry, change.rows)
        encoded = StreamedArray(
            np.dtype(np.uint8),
            (change.rows, codebooks.parts),
            _remaining(codes, dead, new_codes),
        )
        nodes = _nodes(old, change, codebooks, codes, new_codes, pool)
        file.write(path, codebooks.arrays(encoded), nodes)


def _choose_neighbours(
    old: DiskGraph,
    dead: NDArray[np.bool_],
    vectors: NDArray[np.float32],
    pool: ThreadPool,
    threads: int | None,
) -> NDArray[np.int32]:
    """Return the neighbours of new vectors (n, degree), padded with -1."""
    facts = old.file
    chosen = np.full((len(vectors), facts.degree), -1, np.int32)
    if not len(vectors):
        return chosen
    metric = next(name for name, number in METRICS.items() if number == facts.metric)
    graph = Graph.build(
        vectors[:, : facts.dimension], metric=metric, degree=max(2, facts.degree // 2),
        threads=threads,
    )  # fmt: skip
    friends = graph.snapshot().edges()
    most = 4 * _LIST_SIZE

    def choose(start: int, stop: int) -> None:
        read = np.empty(most + 1, np.int64)
        scratch = aligned_zeros(1 + most + friends.shape[1], vectors.shape[1], np.float32)
        for i in range(start, stop):
            scratch[0] = vectors[i]
            count = old.trace(vectors[i], _LIST_SIZE, read, scratch[1 : 1 + most])
            _choose(scratch, read, count, dead, friends[i], vectors, len(dead), _ALPHA, chosen[i])

    pool.parallel_for(choose, len(vectors), _POINTS)
    return chosen


def _remaining(
    codes: NDArray[np.uint8], dead: NDArray[np.bool_], new_codes: NDArray[np.uint8]
) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(codes), _CHUNK):
        yield codes[start : start + _CHUNK][~dead[start : start + _CHUNK]]
    yield new_codes


def _nodes(
    old: DiskGraph,
    change: _Change,
    codebooks: ProductCodes,
    codes: NDArray[np.uint8],
    new_codes: NDArray[np.uint8],
    pool: ThreadPool,
) -> Iterator[Nodes]:
    """Yield the nodes of the next graph."""
    new_rows = np.arange(len(change.dead), len(change.dead) + len(change.vectors))
    targets, starts, sources = group_by_target(change.chosen, new_rows)

    def repaired(first: int, vectors: NDArray[np.float32], edges: NDArray[np.int32]) -> Nodes:
        out = np.empty_like(edges)
        rotated = codebooks.rotate(vectors)
        spare = vectors.shape[1] - rotated.shape[1]
        rotated = np.pad(rotated, ((0, 0), (0, spare)))
        pool.parallel_for(
            lambda a, b: _repair(
                first, rotated, edges, change.dead, change.dead_rows, change.dead_edges, targets,
                starts, sources, codes, new_codes, codebooks.centroids, _ALPHA, a, b, out,
            ),
            len(edges),
            _POINTS,
        )  # fmt: skip
        return vectors, change.renumber(out)

    for start in range(0, len(change.dead), _CHUNK):
        stop = min(start + _CHUNK, len(change.dead))
        vectors, edges = repaired(start, *old.nodes(np.arange(start, stop)))
        kept = ~change.dead[start:stop]
        yield vectors[kept], edges[kept]
    for start in range(0, len(new_rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        yield repaired(len(change.dead) + start, change.vectors[part], change.chosen[part])
