"""Update a disk graph: remove deleted rows and add new ones, in one pass over the old file.

This is the merge of FreshDiskANN (Singh et al. 2021, §5). Each new vector is searched for in the
old graph, and gets edges to the nodes that the search read and to other new vectors. Then the old
pages are read once, in order. In each node, an edge to a deleted node is replaced by the edges of
that node, and reverse edges from new nodes are added. A node with too many edges is pruned by
distances between codes, so no other page is read for it.

Rows are renumbered: remaining rows keep their order, and new rows follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from idiolect.search.diskann.array_file import StreamedArray
from idiolect.search.diskann.disk.disk_graph import DiskGraph
from idiolect.search.diskann.disk.label_edges import LABEL_DEGREE, Labels, connect, label_groups
from idiolect.search.diskann.disk.pages import Nodes
from idiolect.search.diskann.graph_rows import check_vectors
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.product_codes import ProductCodes, decode_row
from idiolect.search.diskann.prune import robust_prune, sort_candidates
from idiolect.search.diskann.queries import prepare_queries
from idiolect.search.diskann.scalar_quantizer import aligned_zeros
from idiolect.search.diskann.thread_pool import ThreadPool, group_by_target

__all__ = ["update_bytes", "update_disk_graph"]

_Link = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Edges grouped by target; see `group_by_target`."""

_ALPHA = np.float32(1.2)
_LIST_SIZE = 100  # size of the search list for new vectors
_CHUNK = 4096  # nodes read at once
_POINTS = 32  # new vectors, or repaired nodes, per task


def update_bytes(dimension: int, degree: int = 64, *, labels: bool) -> int:
    """Return the memory that an update needs, in bytes per new or deleted row."""
    return 16 * dimension + 48 * (degree + (LABEL_DEGREE if labels else 0))


@kernel
def _choose(  # type: ignore[no-untyped-def]
    scratch, read, count, dead, friends, vectors, first, alpha, chosen
):
    """Select the neighbours of a new vector, the first of `scratch`.

    The candidates are the `count` nodes of `read`, whose vectors follow in `scratch`, and
    `friends`: new rows, numbered from `first`, whose vectors are in `vectors`.
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

    `vectors` are rotated as for product quantization, and padded.
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
class _Edges:
    """Changes of edges: those among all rows, or those among rows with the same label."""

    dead: NDArray[np.int32]  # (dead rows, degree) the edges of deleted nodes
    chosen: NDArray[np.int32]  # (new rows, degree) the edges of new nodes


@dataclass(frozen=True)
class _Change:
    """Changes of a graph of `len(dead)` rows; new rows are numbered from `len(dead)`."""

    dead: NDArray[np.bool_]
    dead_rows: NDArray[np.int64]
    vectors: NDArray[np.float32]  # (new rows, padded dimension)
    edges: list[_Edges]

    @property
    def rows(self) -> int:
        """The number of rows of the new graph."""
        return len(self.dead) - len(self.dead_rows) + len(self.vectors)

    def renumber(self, edges: NDArray[np.int32]) -> NDArray[np.int32]:
        """Convert edges to row numbers of the new graph."""
        moved = edges - np.searchsorted(self.dead_rows, edges).astype(np.int32)
        return np.where(edges < 0, np.int32(-1), moved)


def update_disk_graph(
    path: str | Path,
    old: DiskGraph,
    deleted: ArrayLike,
    vectors: ArrayLike,
    *,
    labels: NDArray[np.int32] | None = None,
    threads: int | None = None,
) -> None:
    """Write a graph of the remaining rows and of new vectors (n, dimension), atomically.

    Args:
        path: The new file.
        old: A graph with `pq` codes and the cosine or L2 metric, without deleted rows.
        deleted: Row numbers of the old graph to delete; at least one row must remain.
        vectors: The new vectors.
        labels: (rows of the new graph,) if the old graph has labels: consecutive numbers from 0, or
            -1 for none. Labels may be renumbered, but remaining rows that shared a label must still
            share one.
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
        whole, of_labels = np.split(dead_edges, [facts.degree], axis=1)
        groups = [np.arange(len(given), dtype=np.int32)] if len(given) else []
        friends, _ = _connect_new(old, prepared, groups, facts.degree // 2, threads)
        chosen = _choose_neighbours(old, dead, prepared, friends, facts.degree, None, pool)
        edges, known = [_Edges(np.ascontiguousarray(whole), chosen)], None
        if labels is not None:
            chosen, known = _choose_labelled(old, dead, prepared, labels, pool, threads)
            edges.append(_Edges(np.ascontiguousarray(of_labels), chosen))
        change = _Change(dead, dead_rows, prepared, edges)
        new_codes = codebooks.encode(prepared, pool)
        entry = _nearest_alive(old, dead, facts.entry) if dead[facts.entry] else facts.entry
        entry -= int(np.searchsorted(dead_rows, entry))
        file = replace(facts, entry=entry, rows=change.rows)
        encoded = StreamedArray(
            np.dtype(np.uint8),
            (change.rows, codebooks.parts),
            _remaining(codes, dead, new_codes),
        )
        nodes = _nodes(old, change, codebooks, codes, new_codes, pool)
        file.write(path, codebooks.arrays(encoded), nodes, labels=known)


def _nearest_alive(old: DiskGraph, dead: NDArray[np.bool_], row: int, label: int = -1) -> int:
    """Return the remaining row nearest to a deleted row; only of `label`, unless that is -1."""
    allowed = ~dead
    if label >= 0 and old.labels is not None:
        allowed &= old.labels.of_rows == label
    vector, _ = old.nodes(np.array([row]))
    nearest, _ = old.search(vector[:, : old.dimension], 1, mask=allowed, threads=1)
    return int(nearest[0, 0])


def _connect_new(
    old: DiskGraph,
    vectors: NDArray[np.float32],
    groups: list[NDArray[np.int32]],
    degree: int,
    threads: int | None,
) -> tuple[NDArray[np.int32], list[int]]:
    """Connect the new vectors of each group; return edges (n, degree) and each group's entry."""
    edges, entries = np.full((len(vectors), degree), -1, np.int32), []
    for group in groups:
        own, entry = connect(
            vectors[group, : old.dimension], degree, metric=old.metric, threads=threads
        )
        edges[group] = np.where(own >= 0, group[own], -1)
        entries.append(int(group[entry]))
    return edges, entries


def _choose_labelled(
    old: DiskGraph,
    dead: NDArray[np.bool_],
    vectors: NDArray[np.float32],
    labels: NDArray[np.int32],
    pool: ThreadPool,
    threads: int | None,
) -> tuple[NDArray[np.int32], Labels]:
    """Return the neighbours of new vectors with the same label, and the labels of the new graph."""
    assert old.labels is not None
    kept = np.flatnonzero(~dead)
    of_kept, of_new = np.split(labels, [len(kept)])
    groups = label_groups(of_new)
    friends, firsts = _connect_new(old, vectors, groups, old.file.label_degree, threads)
    before = np.full(int(labels.max(initial=-1)) + 2, -1, np.int32)  # the last one is for label -1
    before[of_kept] = old.labels.of_rows[kept]
    entries = np.full(len(before) - 1, -1, np.int64)
    for group, first in zip(groups, firsts, strict=True):
        entries[of_new[group[0]]] = len(kept) + first
    known = np.flatnonzero(before[:-1] >= 0)
    rows = old.labels.entries[before[known]]
    for place in np.flatnonzero(dead[rows]):
        rows[place] = _nearest_alive(old, dead, rows[place], before[known[place]])
    entries[known] = np.searchsorted(kept, rows)
    chosen = _choose_neighbours(
        old, dead, vectors, friends, old.file.label_degree, before[of_new], pool
    )
    return chosen, Labels(labels, entries)


def _choose_neighbours(
    old: DiskGraph,
    dead: NDArray[np.bool_],
    vectors: NDArray[np.float32],
    friends: NDArray[np.int32],
    degree: int,
    old_labels: NDArray[np.int32] | None,
    pool: ThreadPool,
) -> NDArray[np.int32]:
    """Return the neighbours of new vectors (n, degree), padded with -1.

    Args:
        old: The graph to search.
        dead: (rows of `old`,) True for deleted rows.
        vectors: (n, padded dimension).
        friends: (n, any) edges among the new vectors.
        degree: Maximum neighbours.
        old_labels: (n,) the label in `old` to search for each vector, -1 for none; without it, all
            rows are searched.
        pool: The threads.
    """
    chosen = np.full((len(vectors), degree), -1, np.int32)
    most = 4 * _LIST_SIZE

    def choose(start: int, stop: int) -> None:
        read = np.empty(most + 1, np.int64)
        scratch = aligned_zeros(1 + most + friends.shape[1], vectors.shape[1], np.float32)
        for i in range(start, stop):
            scratch[0] = vectors[i]
            label = -1 if old_labels is None else int(old_labels[i])
            count = 0
            if old_labels is None or label >= 0:
                found = scratch[1 : 1 + most]
                count = old.trace(vectors[i], _LIST_SIZE, read, found, label=label)
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
    """Yield the nodes of the new graph."""
    new_rows = np.arange(len(change.dead), len(change.dead) + len(change.vectors))
    links = [group_by_target(edges.chosen, new_rows) for edges in change.edges]
    columns = np.cumsum([edges.chosen.shape[1] for edges in change.edges])[:-1]

    def repaired(first: int, vectors: NDArray[np.float32], edges: NDArray[np.int32]) -> Nodes:
        rotated = codebooks.rotate(vectors)
        rotated = np.pad(rotated, ((0, 0), (0, vectors.shape[1] - rotated.shape[1])))
        kinds = zip(np.split(edges, columns, axis=1), change.edges, links, strict=True)
        repaired = [repaired_edges(first, rotated, *kind) for kind in kinds]
        return vectors, change.renumber(np.concatenate(repaired, axis=1))

    def repaired_edges(
        first: int, rotated: NDArray[np.float32], given: NDArray[np.int32], own: _Edges, link: _Link
    ) -> NDArray[np.int32]:
        edges = np.ascontiguousarray(given)
        out = np.empty_like(edges)
        pool.parallel_for(
            lambda a, b: _repair(
                first, rotated, edges, change.dead, change.dead_rows, own.dead, *link, codes,
                new_codes, codebooks.centroids, _ALPHA, a, b, out,
            ),
            len(edges),
            _POINTS,
        )  # fmt: skip
        return out

    for start in range(0, len(change.dead), _CHUNK):
        stop = min(start + _CHUNK, len(change.dead))
        vectors, edges = repaired(start, *old.nodes(np.arange(start, stop)))
        kept = ~change.dead[start:stop]
        yield vectors[kept], edges[kept]
    chosen = np.concatenate([edges.chosen for edges in change.edges], axis=1)
    for start in range(0, len(new_rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        yield repaired(len(change.dead) + start, change.vectors[part], chosen[part])
