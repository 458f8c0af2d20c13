"""`DiskGraph`: compressed codes in memory, vectors and graph in pages on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.search.diskann.array_file import ArrayFile, StreamedArray
from idiolect.search.diskann.disk.disk_file import (
    DISK_KIND,
    DISK_VERSION,
    DiskFile,
    is_disk_graph,
)
from idiolect.search.diskann.disk.label_edges import Labels
from idiolect.search.diskann.disk.page_search import search_pages
from idiolect.search.diskann.disk.pages import Nodes, read_pages, unpack_nodes
from idiolect.search.diskann.graph import Graph
from idiolect.search.diskann.graph_rows import metric_name
from idiolect.search.diskann.jit import release_compiler
from idiolect.search.diskann.metric import METRICS, Metric
from idiolect.search.diskann.product_codes import ProductCodes
from idiolect.search.diskann.queries import empty_results, prepare_queries, run_in_parallel
from idiolect.search.diskann.row_mask import RowMask, check_mask
from idiolect.search.diskann.scalar_quantizer import aligned_zeros
from idiolect.search.diskann.sign_codes import SignCodes
from idiolect.search.diskann.thread_pool import ThreadPool, VisitedSets

__all__ = ["DiskCodes", "DiskGraph"]

DiskCodes = Literal["pq", "rabitq"]
"""The codes in memory: one byte per four dimensions, or one bit per dimension and 8 bytes."""

_LIST_SIZE = 128
_CHUNK = 4096  # nodes written or read at once
_BEAM = 4
_NO_ROWS, _NO_VECTORS = np.empty(0, np.int64), np.empty((0, 0), np.float32)
_PAGE_COST = 100
"""Cost of reading a page, relative to an estimate from codes."""


@dataclass(frozen=True)
class _Plan:
    """A search plan: use the whole graph, the edges of one label, or scan the codes of a mask."""

    list_size: int
    beam_width: int
    mask: RowMask | None = None
    scan: bool = False
    """Whether to score the codes of all rows of the mask."""
    label: int = -1
    """Follow the edges of this label, which all rows of the mask have; -1 for none."""
    least: int = 0
    """A graph search that reads fewer rows of the mask than this is answered by a scan instead."""


class DiskGraph:
    """A read-only index on disk; create it with `write`, and open it with `open`.

    Example:
        >>> DiskGraph.write(path, vectors)                       # float32 (n, dimension)
        >>> ids, scores = DiskGraph.open(path).search(queries, 10)
    """

    def __init__(self, path: Path, file: ArrayFile) -> None:
        facts = file.facts
        if not is_disk_graph(file):
            raise CheckpointError(
                f"{path} is damaged: its arrays do not fit together",
                hint="build it again, or restore it from a copy",
            )
        self._path = path
        self._file = file
        self._alive = file.load("alive")
        self.file = DiskFile(
            facts["metric"], facts["dimension"], facts["degree"], facts["entry"],
            len(self._alive), facts.get("label_degree", 0),
        )  # fmt: skip
        """The header of the file."""
        self._layout = self.file.layout
        self.labels = self._load_labels()
        """The labels of rows, if the graph has edges among the rows of each label."""
        self._products = self._load("products", np.uint8, 2)
        self._codebooks = self._load_codebooks()
        self._signs = self._load("signs", np.uint64, 2)
        self._factors = self._load("facts", np.float32, 2)
        self._flips = self._load("flips", np.float32, 2)
        self._descriptor = os.open(path, os.O_RDONLY)
        self._searched = False
        self._visited_sets = VisitedSets(len(self._alive))

    def _load(self, name: str, dtype: Any, axes: int) -> NDArray[Any]:
        """Read an array into memory; return an empty one if the file does not have it."""
        if name in self._file:
            return self._file.load(name)
        return np.empty((0,) * axes, dtype)

    def _load_codebooks(self) -> ProductCodes:
        """Read the codebooks; files of version 1 have no rotation."""
        centroids = self._load("centres", np.float32, 3)
        if "rotation" in self._file:
            return ProductCodes(centroids, self._file.load("rotation"))
        columns = centroids.shape[0] * centroids.shape[1]
        return ProductCodes(centroids, np.eye(self.file.dimension, columns, dtype=np.float32))

    def _load_labels(self) -> Labels | None:
        if not self.file.label_degree:
            return None
        return Labels(self._file.load("labels"), self._file.load("entries"))

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    @staticmethod
    def write(
        path: str | Path,
        source: Graph | ArrayLike,
        *,
        codes: DiskCodes = "pq",
        metric: Metric = "cosine",
        seed: int = 0,
        threads: int | None = None,
    ) -> None:
        """Write a graph, or the graph of vectors (n, dimension), atomically to one file.

        Args:
            path: The file.
            source: A graph, whose row numbers are kept, or vectors to build a graph from.
            codes: The codes in memory: `pq` (product quantization) or `rabitq` (one bit per
                dimension).
            metric: The metric, if `source` is vectors.
            seed: Random seed of the construction and of the codes.
            threads: Number of threads, by default one per processor.

        Raises:
            InputError: the vectors are not valid, or the file cannot be written.
            ConfigError: the codes or the metric are unknown.
        """
        if codes not in get_args(DiskCodes):
            known = ", ".join(get_args(DiskCodes))
            raise ConfigError(f"unknown codes {codes!r}", hint=f"one of {known}")
        if not isinstance(source, Graph):
            source = Graph.build(source, metric=metric, seed=seed, threads=threads)
        rows = source.snapshot()
        used = rows.vectors[: rows.count]
        arrays: dict[str, NDArray[Any] | StreamedArray]
        with ThreadPool(threads) as pool:
            if codes == "pq":
                codebooks = ProductCodes.fit(used, rows.dimension, seed, pool)
                arrays = codebooks.arrays(codebooks.encode(used, pool))
            else:
                signs = SignCodes.of(used, rows.dimension, rows.metric, seed, pool)
                arrays = {"signs": signs.codes, "facts": signs.factors, "flips": signs.flips}
        neighbours = rows.edges()
        nodes = (
            (used[start : start + _CHUNK], neighbours[start : start + _CHUNK])
            for start in range(0, rows.count, _CHUNK)
        )
        degree = neighbours.shape[1]
        file = DiskFile(rows.metric, rows.dimension, degree, rows.entry, rows.count)
        file.write(path, arrays, nodes, alive=rows.alive[: rows.count])

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = False) -> DiskGraph:
        """Open a file written by `write`. Several processes can open it.

        Args:
            path: The file.
            verify: Read the whole file and compare its checksums. Otherwise only the codes are
                checked, and each page when it is read.

        Raises:
            CheckpointError: the file is missing, damaged, or of another kind.
        """
        file = ArrayFile(path, DISK_KIND, DISK_VERSION)
        if verify:
            file.verify()
        return cls(Path(path), file)

    def __len__(self) -> int:
        """Return the number of rows that are not deleted."""
        return int(self._alive.sum())

    @property
    def rows(self) -> int:
        """Number of rows, including deleted ones: the length of a mask."""
        return len(self._alive)

    @property
    def dimension(self) -> int:
        """Number of vector dimensions."""
        return self.file.dimension

    @property
    def metric(self) -> Metric:
        """The metric of the index."""
        return metric_name(self.file.metric)

    @property
    def product_codes(self) -> tuple[ProductCodes, NDArray[np.uint8]]:
        """The codebooks, and the codes of all rows; both are empty without product quantization."""
        return self._codebooks, self._products

    @property
    def memory(self) -> int:
        """Size of the arrays in memory, in bytes."""
        codebooks = (self._codebooks.centroids, self._codebooks.rotation)
        labels = () if self.labels is None else (self.labels.of_rows, self.labels.entries)
        arrays = (self._products, *codebooks, self._signs, self._factors, self._alive, *labels)
        return sum(array.nbytes for array in arrays)

    def search(
        self,
        queries: ArrayLike,
        k: int,
        *,
        list_size: int | None = None,
        beam_width: int = _BEAM,
        mask: RowMask | NDArray[np.bool_] | None = None,
        threads: int | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the nearest rows of each query; see `Graph.search`.

        Args:
            queries: float32 (q, dimension), or (dimension,) for one.
            k: Number of results.
            list_size: Size of the search list, about the number of pages that a query reads; by
                default 128 or twice `k`.
            beam_width: Number of pages read in parallel (W in the paper).
            mask: bool (rows,); only these rows can be found.
            threads: Number of threads for a batch, by default one per processor.

        Returns:
            ids int64 (q, k) and exact scores float32 (q, k); see `Graph.search`.

        Raises:
            InputError: as in `Graph.search`.
            CheckpointError: a page is damaged.
        """
        if k < 1 or beam_width < 1 or (list_size is not None and list_size < 1):
            raise InputError(
                f"k {k}, beam_width {beam_width}, list_size {list_size}",
                hint="use 1 or more for all",
            )
        prepared = prepare_queries(queries, self.file.metric, self.file.dimension)
        ids, scores = empty_results(len(prepared), k)
        size = max(k, list_size or max(_LIST_SIZE, 2 * k))
        allowed = check_mask(mask, self._alive)
        if not allowed.count:
            return ids, scores
        plan = self._plan(size, beam_width, allowed)

        def task(part: slice) -> None:
            self._answer(prepared[part], plan, ids[part], scores[part])
            if plan.least:
                for i in np.flatnonzero(ids[part, 0] == -2) + part.start:
                    one = slice(i, i + 1)
                    scan = _Plan(size, beam_width, allowed, scan=True)
                    self._answer(prepared[one], scan, ids[one], scores[one])

        run_in_parallel(task, len(prepared), threads)
        if not self._searched:
            self._searched = True
            release_compiler()  # search kernels are loaded now
        return ids, scores

    def _plan(self, list_size: int, beam_width: int, allowed: RowMask) -> _Plan:
        """Choose the cheapest search for rows of a mask, by the expected cost.

        A graph search reads pages until `list_size` rows of the mask are read. A scan estimates the
        distances of all rows of the mask from their codes, and reads `list_size` pages.
        """
        kept, among, label = allowed.count, self.rows, -1
        if kept == among:
            return _Plan(list_size, beam_width)
        if self.labels is not None:
            label = self.labels.of_mask(allowed)
            among = int(self.labels.counts[label]) if label >= 0 else among
        wide = list_size * among // kept
        if wide > list_size and kept < _PAGE_COST * (wide - list_size):
            return _Plan(list_size, beam_width, allowed, scan=True)
        return _Plan(wide, beam_width, allowed, label=label, least=min(list_size, kept) // 2)

    def _answer(
        self,
        queries: NDArray[np.float32],
        plan: _Plan,
        ids: NDArray[np.int64],
        scores: NDArray[np.float32],
        trace_rows: NDArray[np.int64] = _NO_ROWS,
        trace_vectors: NDArray[np.float32] = _NO_VECTORS,
    ) -> None:
        layout, visited = self._layout, self._visited_sets.acquire()
        facts, seeds = self.file, np.array([self.file.entry])
        mask = self._alive[:0] if plan.mask is None else plan.mask.mask
        edges, degree = layout.vector, facts.degree
        if plan.label >= 0 and self.labels is not None:
            seeds = self.labels.entries[plan.label : plan.label + 1]
            edges, degree = layout.vector + 4 * facts.degree, facts.label_degree
        elif plan.scan and plan.mask is not None:
            seeds = plan.mask.rows
        damaged = search_pages(
            self._products, self._codebooks.rotate(queries), self._codebooks.centroids,
            self.file.metric != METRICS["inner"], self._signs, self._factors, self._flips,
            self._descriptor, self._file.place("pages"), layout.page, layout.per_page,
            layout.node, layout.vector, edges, degree, self.file.metric, queries,
            plan.list_size, seeds, not plan.scan, mask, plan.least,
            aligned_zeros(plan.beam_width, layout.page, np.uint8), visited, ids, scores,
            trace_rows, trace_vectors,
        )  # fmt: skip
        self._visited_sets.release(visited)
        self._check_page(damaged)

    def trace(
        self,
        query: NDArray[np.float32],
        list_size: int,
        rows: NDArray[np.int64],
        vectors: NDArray[np.float32],
        label: int = -1,
    ) -> int:
        """Search for one prepared query (padded dimension,), and return the nodes that it read.

        Args:
            query: The query.
            list_size: Size of the search list.
            rows: int64 (n + 1,), receives up to n row numbers.
            vectors: float32 (n, padded dimension), receives their vectors.
            label: Search only among rows of this label, unless it is -1.

        Returns:
            The number of nodes read.
        """  # fmt: skip
        ids, scores = empty_results(1, 1)
        plan = _Plan(list_size, _BEAM, label=label)
        self._answer(query[None], plan, ids, scores, rows, vectors)
        return int(rows[-1])

    def nodes(self, rows: NDArray[np.int64]) -> Nodes:
        """Read the vectors and neighbours of rows.

        Raises:
            CheckpointError: a page is damaged.
        """
        layout = self._layout
        numbers, places = np.unique(rows // layout.per_page, return_inverse=True)
        pages = aligned_zeros(len(numbers), layout.page, np.uint8)
        self._check_page(
            read_pages(
                self._descriptor, self._file.place("pages"), layout.page, numbers, len(numbers),
                pages,
            )
        )  # fmt: skip
        vectors, edges = unpack_nodes(pages, layout)
        found = places * layout.per_page + rows % layout.per_page
        return vectors[found], edges[found]

    def _check_page(self, damaged: int) -> None:
        if damaged >= 0:
            raise CheckpointError(
                f"{self._path} is damaged: its page {damaged} does not match its checksum",
                hint="build it again, or restore it from a copy",
            )
