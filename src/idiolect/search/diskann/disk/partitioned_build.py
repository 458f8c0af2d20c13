"""Build a disk graph of vectors that do not fit into memory (Subramanya et al. 2019, §3.1).

    1. learn codebooks and the centres of shards from a sample
    2. assign each vector to the shards of its two nearest centres, so that shards overlap
    3. build the graph of each shard in memory, and write its edges to a file
    4. write the pages: the edges of a vector are those of its two shards

The memory needed is that of one shard, and four bytes per vector and shard that it belongs to. If
all vectors fit, there is one shard.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError
from idiolect.search.diskann.array_file import StreamedArray
from idiolect.search.diskann.disk.disk_file import DiskFile
from idiolect.search.diskann.disk.flat_vectors import FlatVectors
from idiolect.search.diskann.disk.pages import Nodes
from idiolect.search.diskann.graph import Graph
from idiolect.search.diskann.graph_rows import padded_width
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.metric import METRICS, Metric
from idiolect.search.diskann.product_codes import SAMPLE, ProductCodes
from idiolect.search.diskann.thread_pool import ThreadPool

__all__ = ["MIN_SHARD", "build_partitioned", "shard_bytes"]

MIN_SHARD = 2000
"""The smallest number of vectors in a shard that is worth a graph."""

_LOG = logging.getLogger(__name__)
_OVERLAP = 2  # shards of a vector
_SPARE = 1.2  # capacity of all shards together, relative to their content
_ITERATIONS = 10  # of k-means
_CHUNK = 4096  # vectors read at once


def shard_bytes(dimension: int, degree: int = 64) -> int:
    """Return the memory that building the graph of a shard needs, in bytes per vector."""
    return 10 * padded_width(dimension) + 12 * degree


@dataclass(frozen=True)
class _Shard:
    rows: NDArray[np.int32]  # (n,) ascending
    edges: Path  # int32 (n, degree)


@kernel
def _assign(distances, space, out):  # type: ignore[no-untyped-def]
    """Write the nearest shards with space of each vector to `out` (vectors, shards of a vector)."""
    for i in range(out.shape[0]):
        for k in range(out.shape[1]):
            best = -1
            for c in range(distances.shape[1]):
                taken = space[c] <= 0
                for j in range(k):
                    taken |= out[i, j] == c
                if not taken and (best < 0 or distances[i, c] < distances[i, best]):
                    best = c
            out[i, k] = best
            space[best] -= 1


@kernel
def _join_edges(lists, out):  # type: ignore[no-untyped-def]
    """Take the edges of several lists in turn (rows, lists, edges), nearest first, without repeats.

    `out` is (rows, degree).
    """
    for i in range(out.shape[0]):
        count = 0
        for j in range(lists.shape[2]):
            for k in range(lists.shape[1]):
                edge = lists[i, k, j]
                known = edge < 0
                for c in range(count):
                    known |= out[i, c] == edge
                if not known and count < out.shape[1]:
                    out[i, count] = edge
                    count += 1
        out[i, count:] = -1


def build_partitioned(
    path: Path,
    vectors: FlatVectors,
    *,
    metric: Metric = "cosine",
    max_rows: int,
    code_width: int | None = None,
    degree: int = 64,
    list_size: int = 100,
    seed: int = 0,
    threads: int | None = None,
) -> None:
    """Build a disk graph of vectors in a file; row `i` is vector `i`.

    Args:
        path: The file to write; files of the same name with an ending are written meanwhile.
        vectors: Normalized for the cosine metric.
        metric: The metric.
        max_rows: The number of vectors in a shard, see `shard_bytes`.
        code_width: Dimensions per byte of the codes in memory.
        degree: Maximum edges per row.
        list_size: Size of the search list while building.
        seed: Random seed.
        threads: Number of threads, by default one per processor.

    Raises:
        InputError: a file cannot be written.
    """
    sampled = _sample_rows(vectors.rows, min(SAMPLE, max_rows), seed)
    sample = vectors.gather(sampled)
    whole = vectors.rows <= max_rows
    per_shard = degree if whole else 2 * degree // 3
    with ThreadPool(threads) as pool, ExitStack() as files:
        codes = ProductCodes.fit(sample, vectors.dimension, seed, pool, width=code_width)
        if whole:
            parts = [np.arange(vectors.rows, dtype=np.int32)]
        else:
            parts = _partition(vectors, sample, max_rows, seed)
        shards = []
        for number, rows in enumerate(parts):
            _LOG.info("%s: building shard %d of %d", path, number + 1, len(parts))
            shard = _Shard(rows, path.with_name(f"{path.name}.edges-{number}"))
            files.callback(shard.edges.unlink, missing_ok=True)
            graph = Graph.build(
                vectors.gather(rows)[:, : vectors.dimension], metric=metric, degree=per_shard,
                list_size=list_size, seed=seed, threads=threads,
            )  # fmt: skip
            edges = graph.snapshot().edges()
            _write(shard.edges, np.where(edges >= 0, rows[edges], -1).astype(np.int32))
            entry = int(rows[graph.snapshot().entry])
            shards.append(shard)
            del graph, edges
        if not whole:
            entry = _medoid(sample, sampled)
        encoded = StreamedArray(
            np.dtype(np.uint8),
            (vectors.rows, codes.parts),
            (codes.encode(chunk, pool) for chunk in _chunks(vectors)),
        )
        file = DiskFile(METRICS[metric], vectors.dimension, degree, entry, vectors.rows)
        nodes = _nodes(vectors, [(s.rows, s.edges.open("rb")) for s in shards], per_shard, degree)
        file.write(path, codes.arrays(encoded), nodes)


def _sample_rows(rows: int, most: int, seed: int) -> NDArray[np.int64]:
    if rows <= most:
        return np.arange(rows)
    return np.unique(np.random.default_rng(seed).integers(0, rows, most))


def _chunks(vectors: FlatVectors) -> Iterator[NDArray[np.float32]]:
    for start in range(0, vectors.rows, _CHUNK):
        yield vectors.read(start, min(start + _CHUNK, vectors.rows))


def _medoid(sample: NDArray[np.float32], rows: NDArray[np.int64]) -> int:
    """Return the row of the sample nearest to the mean."""
    return int(rows[((sample - sample.mean(0)) ** 2).sum(1).argmin()])


def _partition(
    vectors: FlatVectors, sample: NDArray[np.float32], max_rows: int, seed: int
) -> list[NDArray[np.int32]]:
    """Return the rows of each shard, at most `max_rows`; each row is in two shards."""
    count = max(_OVERLAP + 1, -(-int(_OVERLAP * _SPARE * vectors.rows) // max_rows))
    centres = _cluster(sample, count, seed)
    squares = (centres**2).sum(1)
    space = np.full(len(centres), max_rows, np.int64)
    shards = np.empty((vectors.rows, _OVERLAP), np.int16)
    start = 0
    for chunk in _chunks(vectors):
        assigned = np.empty((len(chunk), _OVERLAP), np.int64)
        _assign(squares - 2 * (chunk @ centres.T), space, assigned)
        shards[start : start + len(chunk)] = assigned
        start += len(chunk)
    parts = [np.flatnonzero((shards == c).any(1)).astype(np.int32) for c in range(len(centres))]
    return [rows for rows in parts if len(rows)]


def _cluster(sample: NDArray[np.float32], count: int, seed: int) -> NDArray[np.float32]:
    """Return centres (count, dimension) by k-means."""
    rng = np.random.default_rng(seed)
    centres = sample[rng.choice(len(sample), count, replace=len(sample) < count)]
    for _ in range(_ITERATIONS):
        nearest = (sample @ centres.T - 0.5 * (centres**2).sum(1)).argmax(1)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, sample)
        sizes = np.bincount(nearest, minlength=count)
        centres[sizes > 0] = sums[sizes > 0] / sizes[sizes > 0, None]
    return centres


def _nodes(
    vectors: FlatVectors,
    shards: list[tuple[NDArray[np.int32], IO[bytes]]],
    per_shard: int,
    degree: int,
) -> Iterator[Nodes]:
    """Yield all vectors with the edges of their shards."""
    start = 0
    for chunk in _chunks(vectors):
        stop = start + len(chunk)
        lists = np.full((len(chunk), _OVERLAP, per_shard), -1, np.int32)
        seen = np.zeros(len(chunk), np.int64)
        for rows, file in shards:
            first, last = np.searchsorted(rows, (start, stop))
            places = rows[first:last] - start
            edges = np.fromfile(file, np.int32, (last - first) * per_shard)
            lists[places, seen[places]] = edges.reshape(-1, per_shard)
            seen[places] += 1
        joined = np.empty((len(chunk), degree), np.int32)
        _join_edges(lists, joined)
        yield chunk, joined
        start = stop
    for _, file in shards:
        file.close()


def _write(path: Path, array: NDArray[np.int32]) -> None:
    try:
        array.tofile(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
