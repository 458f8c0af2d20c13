"""`DiskGraph`: compressed codes in memory, vectors and graph in pages on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.search.diskann.array_file import ArrayFile, StreamedArray, fits_shape
from idiolect.search.diskann.disk.disk_file import DISK_KIND, DISK_VERSION, DiskFile
from idiolect.search.diskann.disk.page_search import search_pages
from idiolect.search.diskann.disk.pages import Nodes, PageLayout, read_pages, unpack_nodes
from idiolect.search.diskann.graph import Graph
from idiolect.search.diskann.graph_rows import metric_name, padded_width
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
_WIDEST = 1 << 20  # of a vector, and of the edges of a row
_PAGE_COST = 100
"""Cost of reading a page, relative to an estimate from codes."""


@dataclass(frozen=True)
class _Plan:
    """How to search: in the graph, or by scanning the codes of the rows of a mask."""

    list_size: int
    beam_width: int
    mask: RowMask | None = None
    follow: bool = False
    """Whether to search a mask in the graph."""
    least: int = 0
    """The fewest rows of a mask that a search in the graph must read, to be good."""


class DiskGraph:
    """A read-only index on disk; create it with `write`, and open it with `open`.

    Example:
        >>> DiskGraph.write(path, vectors)                       # float32 (n, dimension)
        >>> ids, scores = DiskGraph.open(path).search(queries, 10)
    """

    def __init__(self, path: Path, file: ArrayFile) -> None:
        facts = file.facts
        if not _is_disk_graph(file):
            raise CheckpointError(
                f"{path} is damaged: its arrays do not fit together",
                hint="build it again, or restore it from a copy",
            )
        self._path = path
        self._file = file
        self._metric: int = facts["metric"]
        self._dimension: int = facts["dimension"]
        self._degree: int = facts["degree"]
        self._entry: int = facts["entry"]
        self._layout = PageLayout(padded_width(self._dimension), self._degree)
        self._alive = file.load("alive")
        self._products = self._load("products", np.uint8, 2)
        self._codebooks = self._load_codebooks()
        self._signs = self._load("signs", np.uint64, 2)
        self._factors = self._load("facts", np.float32, 2)
        self._flips = self._load("flips", np.float32, 2)
        self._descriptor = os.open(path, os.O_RDONLY)
        self._searched = False
        self._visited_sets = VisitedSets(len(self._alive))

    def _load(self, name: str, dtype: Any, axes: int) -> NDArray[Any]:
        """Read an array into memory; it is empty if the file has other codes."""
        if name in self._file:
            return self._file.load(name)
        return np.empty((0,) * axes, dtype)

    def _load_codebooks(self) -> ProductCodes:
        """Read the codebooks; files of version 1 have no rotation."""
        centroids = self._load("centres", np.float32, 3)
        if "rotation" in self._file:
            return ProductCodes(centroids, self._file.load("rotation"))
        columns = centroids.shape[0] * centroids.shape[1]
        return ProductCodes(centroids, np.eye(self._dimension, columns, dtype=np.float32))

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
            source: A graph, which keeps its row numbers; or vectors to build a graph of.
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
        file.write(path, arrays, nodes, rows.alive[: rows.count])

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
        return self._dimension

    @property
    def metric(self) -> Metric:
        """The metric of the index."""
        return metric_name(self._metric)

    @property
    def file(self) -> DiskFile:
        """The facts of the file."""
        return DiskFile(self._metric, self._dimension, self._degree, self._entry, self.rows)

    @property
    def product_codes(self) -> tuple[ProductCodes, NDArray[np.uint8]]:
        """The codebooks, and the codes of all rows; both are empty with other codes."""
        return self._codebooks, self._products

    @property
    def memory(self) -> int:
        """Size of the arrays in memory, in bytes."""
        codebooks = (self._codebooks.centroids, self._codebooks.rotation)
        arrays = (self._products, *codebooks, self._signs, self._factors, self._alive)
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
        prepared = prepare_queries(queries, self._metric, self._dimension)
        ids, scores = empty_results(len(prepared), k)
        size = max(k, list_size or max(_LIST_SIZE, 2 * k))
        allowed = check_mask(mask, self._alive)
        kept, rows = allowed.count, self.rows
        if not kept:
            return ids, scores
        plan = _Plan(size, beam_width)
        if kept < rows:
            wide = size * rows // kept
            if kept < _PAGE_COST * wide:
                plan = _Plan(size, beam_width, allowed)
            else:
                plan = _Plan(wide, beam_width, allowed, follow=True, least=size // 2)

        def task(part: slice) -> None:
            self._answer(prepared[part], plan, ids[part], scores[part])
            if plan.least:
                for i in np.flatnonzero(ids[part, 0] == -2) + part.start:
                    one = slice(i, i + 1)
                    scan = _Plan(size, beam_width, allowed)
                    self._answer(prepared[one], scan, ids[one], scores[one])

        run_in_parallel(task, len(prepared), threads)
        if not self._searched:
            self._searched = True
            release_compiler()  # the kernels of searches are loaded
        return ids, scores

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
        if plan.mask is None:
            mask, follow = self._alive[:0], True
        else:
            mask, follow = plan.mask.mask, plan.follow
        seeds = np.array([self._entry]) if plan.mask is None or follow else plan.mask.rows
        damaged = search_pages(
            self._products, self._codebooks.rotate(queries), self._codebooks.centroids,
            self._metric != METRICS["inner"], self._signs, self._factors, self._flips,
            self._descriptor, self._file.place("pages"), layout.page, layout.per_page,
            layout.node, layout.vector, self._degree, self._metric, queries,
            plan.list_size, seeds, follow, mask, plan.least,
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
    ) -> int:
        """Search for one prepared query (padded dimension,), and return the nodes that it read.

        Args:
            query: The query.
            list_size: Size of the search list.
            rows: int64 (n + 1,), receives up to n row numbers.
            vectors: float32 (n, padded dimension), receives their vectors.

        Returns:
            How many nodes there are.
        """  # fmt: skip
        ids, scores = empty_results(1, 1)
        self._answer(query[None], _Plan(list_size, _BEAM), ids, scores, rows, vectors)
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


def _is_disk_graph(file: ArrayFile) -> bool:
    """Return whether facts and arrays are those of one graph: kernels do not check their bounds."""
    facts = file.facts
    if not {"metric", "dimension", "degree", "entry"} <= facts.keys():
        return False
    if not all(isinstance(facts[name], int) for name in ("dimension", "degree", "entry")):
        return False
    codes = {"signs", "facts", "flips"} if "signs" in file else {"products", "centres"}
    optional = {"rotation"} if "rotation" in file else set()
    arrays = {name: file.array(name) for name in ("alive", "pages", *codes, *optional)}
    count, dimension, degree = len(arrays["alive"]), facts["dimension"], facts["degree"]
    if not 0 < dimension < _WIDEST or not 0 <= degree < _WIDEST:
        return False
    layout = PageLayout(padded_width(dimension), degree)
    centres = arrays.get("centres")
    parts, width = (0, 0) if centres is None or centres.ndim != 3 else centres.shape[:2]
    shapes: dict[str, tuple[Any, ...]] = {
        "alive": (np.bool_, None),
        "pages": (np.uint8, layout.pages(count), layout.page),
        "products": (np.uint8, count, parts),
        "centres": (np.float32, parts, None, 256),
        "rotation": (np.float32, dimension, parts * width),
        "signs": (np.uint64, count, -(-dimension // 64)),
        "facts": (np.float32, count, 2),
        "flips": (np.float32, None, dimension),
    }
    if centres is not None and (parts == 0 or parts != -(-dimension // max(width, 1))):
        return False
    return (
        facts["metric"] in METRICS.values()
        and (-1 if count == 0 else 0) <= facts["entry"] < max(count, 1)
        and fits_shape(arrays, {name: shapes[name] for name in arrays})
    )
