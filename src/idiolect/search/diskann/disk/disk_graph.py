"""DiskANN's disk form: codes in memory, vectors and neighbours in pages read when needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.search.diskann.array_file import ArrayFile, StreamedArray, write_arrays
from idiolect.search.diskann.disk.page_search import search_pages
from idiolect.search.diskann.disk.pages import PageLayout, build_pages
from idiolect.search.diskann.graph import Graph
from idiolect.search.diskann.graph_rows import check_mask, metric_name, padded_width
from idiolect.search.diskann.metric import METRICS, Metric
from idiolect.search.diskann.product_codes import ProductCodes
from idiolect.search.diskann.queries import empty_results, prepare_queries, run_in_parallel
from idiolect.search.diskann.scalar_quantizer import aligned_zeros
from idiolect.search.diskann.sign_codes import SignCodes
from idiolect.search.diskann.thread_pool import ThreadPool, VisitedSets

__all__ = ["DiskCodes", "DiskGraph"]

DiskCodes = Literal["products", "signs"]
"""Codes in memory: one byte per four dimensions, or one bit per dimension and two numbers."""

_KIND, _VERSION = "disk graph", 1
_LIST_SIZE = 128
_PAGE_COST = 100
"""Cost of reading a page, relative to an estimate from codes."""


class DiskGraph:
    """An index on disk; made by `write`, used after `open`. It does not change.

    Example:
        >>> DiskGraph.write(path, vectors)                       # float32 (n, dimension)
        >>> ids, scores = DiskGraph.open(path).search(queries, 10)
    """

    def __init__(self, path: Path, file: ArrayFile) -> None:
        facts = file.facts
        self._path = path
        self._file = file
        self._metric: int = facts["metric"]
        self._dimension: int = facts["dimension"]
        self._degree: int = facts["degree"]
        self._entry: int = facts["entry"]
        self._layout = PageLayout(padded_width(self._dimension), self._degree)
        self._alive = np.array(file.array("alive"))
        self._products = self._load("products", np.uint8, 2)
        self._centres = self._load("centres", np.float32, 3)
        self._signs = self._load("signs", np.uint64, 2)
        self._facts = self._load("facts", np.float32, 2)
        self._flips = self._load("flips", np.float32, 2)
        self._descriptor = os.open(path, os.O_RDONLY)
        self._visited_sets = VisitedSets(len(self._alive))

    def _load(self, name: str, dtype: Any, axes: int) -> NDArray[Any]:
        """Copy an array into memory; it is empty where the file was written with other codes."""
        if name in self._file:
            return np.array(self._file.array(name))
        return np.empty((0,) * axes, dtype)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    @staticmethod
    def write(
        path: str | Path,
        source: Graph | ArrayLike,
        *,
        codes: DiskCodes = "products",
        metric: Metric = "cosine",
        seed: int = 0,
        threads: int | None = None,
    ) -> None:
        """Write the disk form of a graph, or of vectors (n, dimension), for which one is built.

        The file appears whole or not at all.

        Args:
            path: The file.
            source: A graph, whose rows mask their numbers; or vectors.
            codes: What a search holds in memory.
            metric: What nearest means, for vectors.
            seed: For vectors, and for learning the codes.
            threads: How many to use, all processors by default.

        Raises:
            InputError: vectors that cannot be indexed, or a file that cannot be written.
            ConfigError: unknown codes or an unknown metric.
        """
        if codes not in ("products", "signs"):
            raise ConfigError(f"unknown codes {codes!r}", hint="one of products, signs")
        if not isinstance(source, Graph):
            source = Graph.build(source, metric=metric, seed=seed, threads=threads)
        rows = source.snapshot()
        used = rows.vectors[: rows.count]
        arrays: dict[str, NDArray[Any] | StreamedArray] = {"alive": rows.alive[: rows.count]}
        with ThreadPool(threads) as pool:
            if codes == "products":
                learnt = ProductCodes.of(used, rows.dimension, seed, pool)
                arrays |= {"products": learnt.codes, "centres": learnt.centres}
            else:
                signs = SignCodes.of(used, rows.dimension, rows.metric, seed, pool)
                arrays |= {"signs": signs.codes, "facts": signs.facts, "flips": signs.flips}
        neighbours = rows.edges()
        layout = PageLayout(rows.vectors.shape[1], neighbours.shape[1])
        shape = (layout.pages(rows.count), layout.page)
        arrays["pages"] = StreamedArray(
            np.dtype(np.uint8), shape, build_pages(rows, neighbours, layout)
        )
        facts = {
            "metric": rows.metric,
            "dimension": rows.dimension,
            "degree": neighbours.shape[1],
            "entry": rows.entry,
        }
        write_arrays(path, _KIND, _VERSION, facts, arrays)

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = False) -> DiskGraph:
        """Open a file written by `write`, for reading; any number of processes may.

        Args:
            path: The file.
            verify: Read it whole and compare the checksums. Without it the codes are checked, and
                each page when it is read.

        Raises:
            CheckpointError: the file is missing, damaged, or something else.
        """
        file = ArrayFile(path, _KIND, _VERSION)
        file.verify(exclude=() if verify else ("pages",))
        return cls(Path(path), file)

    def __len__(self) -> int:
        """Count the rows that can be found."""
        return int(self._alive.sum())

    @property
    def rows(self) -> int:
        """Row numbers given out, those of deleted rows included: the length of a mask."""
        return len(self._alive)

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self._dimension

    @property
    def metric(self) -> Metric:
        """What nearest means."""
        return metric_name(self._metric)

    @property
    def memory(self) -> int:
        """Bytes held in memory for as long as this is open."""
        arrays = (self._products, self._centres, self._signs, self._facts, self._alive)
        return sum(array.nbytes for array in arrays)

    def search(
        self,
        queries: ArrayLike,
        k: int,
        *,
        list_size: int | None = None,
        beam_width: int = 4,
        mask: NDArray[np.bool_] | None = None,
        threads: int | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the nearest rows of each query; see `Graph.search`.

        Args:
            queries: float32 (q, dimension), or (dimension,) for one.
            k: How many to find.
            list_size: Size of the search list, about the pages a query reads; 128 or twice `k` by
                default.
            beam_width: Pages read at once (W in the paper).
            mask: bool (rows,); only these rows can be found.
            threads: How many answer a batch, all processors by default.

        Returns:
            ids int64 (q, k) and scores float32 (q, k), both exact for the rows read.

        Raises:
            InputError: as in `Graph.search`.
            CheckpointError: a page is damaged.
        """
        if k < 1 or beam_width < 1 or (list_size is not None and list_size < 1):
            raise InputError(
                f"k {k}, beam_width {beam_width}, list_size {list_size}",
                hint="all must be 1 or more",
            )
        prepared = prepare_queries(queries, self._metric, self._dimension)
        ids, scores = empty_results(len(prepared), k)
        wide = max(k, list_size or max(_LIST_SIZE, 2 * k))
        allowed = check_mask(mask, self._alive)
        kept = int(np.count_nonzero(allowed))
        if not kept:
            return ids, scores
        seeds, follow = np.array([self._entry]), True
        if kept < len(allowed):
            wider = wide * len(allowed) // kept
            if kept < wider * _PAGE_COST:
                seeds, follow = np.flatnonzero(allowed), False
            else:
                wide = wider
        else:
            allowed = allowed[:0]

        def task(part: slice) -> None:
            self._answer(
                prepared[part], wide, beam_width, seeds, follow, allowed, ids[part], scores[part]
            )

        run_in_parallel(task, len(prepared), threads)
        return ids, scores

    def _answer(
        self,
        queries: NDArray[np.float32],
        list_size: int,
        beam_width: int,
        seeds: NDArray[np.int64],
        follow: bool,
        mask: NDArray[np.bool_],
        ids: NDArray[np.int64],
        scores: NDArray[np.float32],
    ) -> None:
        layout, visited = self._layout, self._visited_sets.acquire()
        damaged = search_pages(
            self._products, self._centres, self._metric != METRICS["inner"], self._signs,
            self._facts, self._flips, self._descriptor, self._file.place("pages"), layout.page,
            layout.per_page, layout.node, layout.vector, self._degree, self._metric, queries,
            list_size, seeds, follow, mask,
            aligned_zeros(beam_width, layout.page, np.uint8), visited, ids, scores,
        )  # fmt: skip
        self._visited_sets.release(visited)
        if damaged >= 0:
            raise CheckpointError(
                f"{self._path} is damaged: its page {damaged} does not match its checksum",
                hint="build it again, or restore it from a copy",
            )
