"""Build a disk graph of vectors that do not fit into memory (Subramanya et al. 2019, §3.1).

    1. learn codebooks and the centroids of shards from a sample
    2. assign each vector to the shards of its two nearest centroids, so that shards overlap
    3. build the graph of each shard in memory, and write its edges to a file
    4. write the pages: a vector has the edges from its two shards

If vectors have labels, the edges among the vectors of each label are built in the same way: a shard
holds several small labels, and a label that is too large is split into several shards.

It needs the memory of one shard, plus four bytes per vector and shard that the vector belongs to.
If all vectors fit, there is only one shard.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError
from idiolect.search.diskann.array_file import StreamedArray
from idiolect.search.diskann.disk.disk_file import DiskFile
from idiolect.search.diskann.disk.flat_vectors import FlatVectors
from idiolect.search.diskann.disk.label_edges import LABEL_DEGREE, Labels, connect, label_groups
from idiolect.search.diskann.disk.pages import Nodes
from idiolect.search.diskann.graph_rows import padded_width
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.metric import METRICS, Metric
from idiolect.search.diskann.product_codes import SAMPLE, ProductCodes
from idiolect.search.diskann.thread_pool import ThreadPool

__all__ = ["MIN_SHARD", "build_partitioned", "shard_bytes"]

MIN_SHARD = 2000
"""Minimum number of vectors in a shard."""

_LOG = logging.getLogger(__name__)
_OVERLAP = 2  # shards per vector
_SPARE = 1.2  # capacity of all shards together, relative to their content
_ITERATIONS = 10  # of k-means
_CHUNK = 4096  # vectors read at once


def shard_bytes(dimension: int, degree: int = 64) -> int:
    """Return the memory that building the graph of a shard needs, in bytes per vector."""
    return 10 * padded_width(dimension) + 12 * degree


@dataclass(frozen=True)
class _Shard:
    rows: NDArray[np.int32]  # (n,) ascending
    file: IO[bytes]  # int32 (n, degree)
    degree: int


@dataclass(frozen=True)
class _Builder:
    """Builds the graphs of shards, and writes their edges to files next to the graph's file."""

    path: Path
    vectors: FlatVectors
    metric: Metric
    max_rows: int
    list_size: int
    seed: int
    threads: int | None
    files: ExitStack
    numbers: Iterator[int] = field(default_factory=count)

    def build(self, groups: list[NDArray[np.int32]], degree: int) -> tuple[_Shard, list[int]]:
        """Connect the rows of each group; return one shard for all, and the entry of each group."""
        rows = np.sort(np.concatenate(groups))
        joined = np.empty((len(rows), degree), np.int32)
        entries = []
        for group in groups:
            if len(group) == 1:
                joined[np.searchsorted(rows, group)] = -1
                entries.append(int(group[0]))
                continue
            vectors = self.vectors.gather(group)[:, : self.vectors.dimension]
            edges, entry = connect(
                vectors, degree, metric=self.metric, list_size=self.list_size, seed=self.seed,
                threads=self.threads,
            )  # fmt: skip
            joined[np.searchsorted(rows, group)] = np.where(edges >= 0, group[edges], -1)
            entries.append(int(group[entry]))
        path = self.path.with_name(f"{self.path.name}.edges-{next(self.numbers)}")
        self.files.callback(path.unlink, missing_ok=True)
        _write(path, joined)
        return _Shard(rows, self.files.enter_context(path.open("rb")), degree), entries

    def build_parts(
        self, rows: NDArray[np.int32], sample: NDArray[np.float32], degree: int
    ) -> tuple[list[_Shard], int]:
        """Connect rows with each other, in several shards if there are many."""
        parts, each = [rows], degree
        if len(rows) > self.max_rows:
            parts = _partition(self.vectors, rows, sample, self.max_rows, self.seed)
            each = 2 * degree // 3
        shards, entries = [], []
        for number, part in enumerate(parts):
            _LOG.info("%s: building shard %d of %d", self.path, number + 1, len(parts))
            shard, (entry,) = self.build([part], each)
            shards.append(shard)
            entries.append(entry)
        return shards, entries[0]

    def build_labels(
        self, labels: NDArray[np.int32], sample: NDArray[np.float32]
    ) -> tuple[list[_Shard], Labels]:
        """Connect the rows of each label."""
        shards, waiting = list[_Shard](), list[NDArray[np.int32]]()
        groups = label_groups(labels)
        entries = list[int]()
        for group in [*groups, None]:
            if waiting and (group is None or sum(map(len, waiting)) + len(group) > self.max_rows):
                shard, found = self.build(waiting, LABEL_DEGREE)
                shards.append(shard)
                entries += found
                waiting = []
            if group is not None and len(group) > self.max_rows:
                parts, entry = self.build_parts(group, sample, LABEL_DEGREE)
                shards += parts
                entries.append(entry)
            elif group is not None:
                waiting.append(group)
        return shards, Labels(labels, np.array(entries, np.int64))


@kernel
def _assign(distances, space, out):  # type: ignore[no-untyped-def]
    """Write the nearest shards that are not full to `out` (vectors, shards per vector)."""
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
    """Interleave the edge lists of each row, without repetitions.

    `lists` is (rows, lists, edges), each list nearest first; `out` is (rows, degree).
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
    labels: NDArray[np.int32] | None = None,
    code_width: int | None = None,
    degree: int = 64,
    list_size: int = 100,
    seed: int = 0,
    threads: int | None = None,
) -> None:
    """Build a disk graph of vectors in a file; row `i` is vector `i`.

    Args:
        path: The file to write. Temporary files are written next to it.
        vectors: Normalized for the cosine metric.
        metric: The metric.
        max_rows: The number of vectors in a shard, see `shard_bytes`.
        labels: (rows,) consecutive numbers from 0, or -1 for none; the vectors of each label are
            also connected with each other.
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
    with ThreadPool(threads) as pool, ExitStack() as files:
        codes = ProductCodes.fit(sample, vectors.dimension, seed, pool, width=code_width)
        builder = _Builder(path, vectors, metric, max_rows, list_size, seed, threads, files)
        all_rows = np.arange(vectors.rows, dtype=np.int32)
        shards, entry = builder.build_parts(all_rows, sample, degree)
        if len(shards) > 1:
            entry = _medoid(sample, sampled)
        blocks, known = [(shards, degree)], None
        if labels is not None:
            of_labels, known = builder.build_labels(labels, sample)
            blocks.append((of_labels, LABEL_DEGREE))
        encoded = StreamedArray(
            np.dtype(np.uint8),
            (vectors.rows, codes.parts),
            (codes.encode(chunk, pool) for chunk in _chunks(vectors)),
        )
        file = DiskFile(
            METRICS[metric], vectors.dimension, degree, entry, vectors.rows,
            0 if labels is None else LABEL_DEGREE,
        )  # fmt: skip
        file.write(path, codes.arrays(encoded), _nodes(vectors, blocks), labels=known)


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
    vectors: FlatVectors,
    rows: NDArray[np.int32],
    sample: NDArray[np.float32],
    max_rows: int,
    seed: int,
) -> list[NDArray[np.int32]]:
    """Divide rows into shards of at most `max_rows`; each row is in two shards."""
    count = max(_OVERLAP + 1, -(-int(_OVERLAP * _SPARE * len(rows)) // max_rows))
    centres = _cluster(sample, count, seed)
    squares = (centres**2).sum(1)
    space = np.full(len(centres), max_rows, np.int64)
    shards = np.empty((len(rows), _OVERLAP), np.int16)
    for start in range(0, len(rows), _CHUNK):
        chunk = vectors.gather(rows[start : start + _CHUNK])
        assigned = np.empty((len(chunk), _OVERLAP), np.int64)
        _assign(squares - 2 * (chunk @ centres.T), space, assigned)
        shards[start : start + len(chunk)] = assigned
    parts = [rows[(shards == c).any(1)] for c in range(len(centres))]
    return [part for part in parts if len(part)]


def _cluster(sample: NDArray[np.float32], count: int, seed: int) -> NDArray[np.float32]:
    """Return the centroids (count, dimension) of k-means."""
    rng = np.random.default_rng(seed)
    centres = sample[rng.choice(len(sample), count, replace=len(sample) < count)]
    for _ in range(_ITERATIONS):
        nearest = (sample @ centres.T - 0.5 * (centres**2).sum(1)).argmax(1)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, sample)
        sizes = np.bincount(nearest, minlength=count)
        centres[sizes > 0] = sums[sizes > 0] / sizes[sizes > 0, None]
    return centres


def _nodes(vectors: FlatVectors, blocks: list[tuple[list[_Shard], int]]) -> Iterator[Nodes]:
    """Yield all vectors with their edges, concatenated over the blocks.

    A block is (shards, maximum edges per row).
    """
    start = 0
    for chunk in _chunks(vectors):
        stop = start + len(chunk)
        yield chunk, np.concatenate([_edges(*block, start, stop) for block in blocks], axis=1)
        start = stop


def _edges(shards: list[_Shard], degree: int, start: int, stop: int) -> NDArray[np.int32]:
    """Read the edges of rows start..stop-1; each file is read sequentially."""
    lists = np.full((stop - start, _OVERLAP, degree), -1, np.int32)
    seen = np.zeros(stop - start, np.int64)
    for shard in shards:
        first, last = np.searchsorted(shard.rows, (start, stop))
        places = shard.rows[first:last] - start
        edges = np.fromfile(shard.file, np.int32, (last - first) * shard.degree)
        lists[places, seen[places], : shard.degree] = edges.reshape(-1, shard.degree)
        seen[places] += 1
    joined = np.empty((stop - start, degree), np.int32)
    _join_edges(lists, joined)
    return joined


def _write(path: Path, array: NDArray[np.int32]) -> None:
    try:
        array.tofile(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
