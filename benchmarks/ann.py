"""Search in memory against hnswlib, Intel SVS and faiss: recall, throughput, memory, build time.

    python benchmarks/ann.py [--rows 100000] [--scratch FOLDER] [--build] [--library NAME ...]

All libraries run in one process and on one thread, on the same vectors (see `mixture.py`). For each
library, the search parameter is increased until recall@10 reaches a target. Then the libraries
answer the same queries in turn. The minimum CPU time of several rounds counts, for one call with
all queries ("batch") and for one call per query ("single"). `--build` rebuilds all indexes and
reports the wall-clock time on two threads; otherwise indexes in the scratch folder are reused.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import faiss
import hnswlib
import svs
from rich.console import Console
from rich.table import Table

from idiolect.search.diskann import Graph
from mixture import load_mixture, recall
from record import figure

TARGETS, ROUNDS, K, THREADS = (0.95, 0.99), 7, 10, 2
LIST_SIZES = tuple(sorted({round(10 * 1.06**n) for n in range(60)}))
"""Sizes of the search list (ef of HNSW) to try, from 10 to 311."""
MIN_RATIO = {"hnswlib": 2.0, "SVS": 1.4, "faiss": 1.3}
Search = Callable[[Any], Any]


class Library(ABC):
    """A library: how to build, save, load and search its index."""

    name: str
    settings: tuple[Any, ...]

    @abstractmethod
    def build(self, points: Any) -> None: ...

    @abstractmethod
    def save(self, path: Path) -> None: ...

    @abstractmethod
    def load(self, path: Path, points: Any) -> None: ...

    @abstractmethod
    def search(self, setting: Any) -> Search: ...

    @abstractmethod
    def memory(self, points: Any) -> float:
        """Return the size of the index relative to the vectors."""


class Ours(Library):
    name = "idiolect"
    settings = LIST_SIZES

    def build(self, points: Any) -> None:
        self.graph = Graph.build(points, threads=THREADS)

    def save(self, path: Path) -> None:
        self.graph.save(path)

    def load(self, path: Path, points: Any) -> None:
        self.graph = Graph.open(path)

    def search(self, setting: Any) -> Search:
        return lambda queries: self.graph.search(queries, K, list_size=setting, threads=1)[0]

    def memory(self, points: Any) -> float:
        return self.graph.memory / points.nbytes


class Hnswlib(Library):
    settings = LIST_SIZES

    def __init__(self, links: int) -> None:
        self.name = f"hnswlib M{links}"
        self.links = links

    def build(self, points: Any) -> None:
        self.index = hnswlib.Index("ip", points.shape[1])
        self.index.init_index(len(points), M=self.links, ef_construction=200, random_seed=1)
        self.index.add_items(points, num_threads=THREADS)

    def save(self, path: Path) -> None:
        self.index.save_index(str(path))

    def load(self, path: Path, points: Any) -> None:
        self.index = hnswlib.Index("ip", points.shape[1])
        self.index.load_index(str(path))

    def search(self, setting: Any) -> Search:
        def run(queries: Any) -> Any:
            self.index.set_ef(setting)
            return self.index.knn_query(queries, K, num_threads=1)[0]

        return run

    def memory(self, points: Any) -> float:
        return self.index.index_file_size() / points.nbytes


class Svs(Library):
    """Without compression: its LVQ codes are available only on Intel processors."""

    name = "SVS"
    settings = LIST_SIZES

    def build(self, points: Any) -> None:
        parameters = svs.VamanaBuildParameters(graph_max_degree=64, window_size=128)
        self.index = svs.Vamana.build(parameters, points, svs.DistanceType.MIP, num_threads=THREADS)

    def save(self, path: Path) -> None:
        path.mkdir()
        self.index.save(*(str(path / part) for part in ("config", "graph", "data")))

    def load(self, path: Path, points: Any) -> None:
        data = svs.VectorDataLoader(str(path / "data"), svs.DataType.float32, points.shape[1])
        graph = svs.GraphLoader(str(path / "graph"))
        self.index = svs.Vamana(str(path / "config"), graph, data, svs.DistanceType.MIP)

    def search(self, setting: Any) -> Search:
        def run(queries: Any) -> Any:
            self.index.search_window_size = setting
            return self.index.search(queries, K)[0]

        return run

    def memory(self, points: Any) -> float:
        return 1 + 4 * 65 / (4 * points.shape[1])


class Faiss(Library):
    name = "faiss IVF-PQ fast-scan"
    settings = tuple(
        (probes, factor)
        for probes in (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
        for factor in (8, 16, 32, 64)
    )

    def build(self, points: Any) -> None:
        faiss.omp_set_num_threads(THREADS)
        lists, parts = int(1.6 * len(points) ** 0.5), points.shape[1] // 2
        factory = f"IVF{lists},PQ{parts}x4fs,RFlat"
        self.index = faiss.index_factory(points.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        self.index.train(points)
        self.index.add(points)
        faiss.omp_set_num_threads(1)

    def save(self, path: Path) -> None:
        self.path = path
        faiss.write_index(self.index, str(path))

    def load(self, path: Path, points: Any) -> None:
        self.path = path
        faiss.omp_set_num_threads(1)
        self.index = faiss.read_index(str(path))

    def search(self, setting: Any) -> Search:
        probes, factor = setting
        inner = faiss.IVFSearchParameters(nprobe=probes)
        parameters = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)
        return lambda queries: self.index.search(queries, K, params=parameters)[1]

    def memory(self, points: Any) -> float:
        return self.path.stat().st_size / points.nbytes


LIBRARIES = {one.name: one for one in (Ours(), Hnswlib(16), Hnswlib(32), Svs(), Faiss())}


def prepare(
    libraries: list[Library], scratch: Path, points: Any, rebuild: bool
) -> dict[str, float]:
    """Build or load every index; return the build times in seconds."""
    seconds = {}
    for library in libraries:
        path = scratch / f"{library.name.replace(' ', '-')}-{len(points)}"
        if rebuild:
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
        if not path.exists():
            start = time.perf_counter()
            library.build(points)
            seconds[library.name] = time.perf_counter() - start
            print(f"{library.name}: built in {seconds[library.name]:.1f} s", flush=True)
            library.save(path)
        library.load(path, points)
    return seconds


def fastest_setting(
    library: Library, target: float, queries: Any, truth: Any
) -> tuple[Any, float] | None:
    """Return the fastest setting that reaches the target recall, and its recall, or None."""
    best, minimum, reached = None, float("inf"), 0.0
    for setting in library.settings:
        run = library.search(setting)
        start = time.process_time()
        found = recall(run(queries), truth)
        cost = time.process_time() - start
        if found >= target and cost < minimum:
            best, minimum, reached = setting, cost, found
            if not isinstance(setting, tuple):
                break
    return None if best is None else (best, reached)


def measure(
    libraries: list[Library], queries: Any, truth: Any
) -> list[tuple[str, float, Any, float, float, float]]:
    """Return name, target, setting, recall, and queries/s in a batch and one by one."""
    runs = []
    for target in TARGETS:
        for library in libraries:
            fastest = fastest_setting(library, target, queries, truth)
            if fastest is None:
                print(f"{library.name} does not reach recall {target}", flush=True)
                continue
            setting, reached = fastest
            runs.append((library.name, target, setting, reached, library.search(setting)))
    minimum = [[float("inf"), float("inf")] for _ in runs]
    for _ in range(ROUNDS):
        for times, (*_, run) in zip(minimum, runs, strict=True):
            start = time.process_time()
            run(queries)
            middle = time.process_time()
            for one in range(len(queries)):
                run(queries[one : one + 1])
            end = time.process_time()
            times[:] = min(times[0], middle - start), min(times[1], end - middle)
    count = len(queries)
    return [(*run[:4], count / t[0], count / t[1]) for run, t in zip(runs, minimum, strict=True)]


def report(rows: list[Any], seconds: dict[str, float], points: Any) -> None:
    memory = {name: LIBRARIES[name].memory(points) for name in {row[0] for row in rows}}
    table = Table(title=f"{len(points):,} × {points.shape[1]} float32, one thread, recall@{K}")
    for column in ("", "recall ≥", "setting", "recall", "batch q/s", "idiolect x", "single q/s",
                   "idiolect x", "memory / vectors", "build s"):  # fmt: skip
        table.add_column(column, justify="left" if not column else "right")
    for target in TARGETS:
        ours = next(row for row in rows if row[0] == "idiolect" and row[1] == target)
        for name, row_target, setting, reached, batch, single in rows:
            if row_target == target:
                table.add_row(
                    name, f"{target}", str(setting), f"{reached:.4f}", f"{batch:,.0f}",
                    f"{ours[4] / batch:.2f}", f"{single:,.0f}", f"{ours[5] / single:.2f}",
                    f"{memory[name]:.2f}", f"{seconds[name]:.1f}" if name in seconds else "",
                )  # fmt: skip
    Console(width=120).print(table)
    for target in TARGETS:
        ours = next(row for row in rows if row[0] == "idiolect" and row[1] == target)
        for library, goal in MIN_RATIO.items():
            others = [row[4] for row in rows if row[0].startswith(library) and row[1] == target]
            if not others:
                continue
            best = max(others)
            print(f"recall {target}: {ours[4] / best:.2f} x the best of {library} (goal {goal})")
            if target == 0.95:
                what = (
                    f"queries a second in memory, {len(points):,} × {points.shape[1]}, recall@{K}"
                )
                what = f"{what} {target}, one thread, as a multiple of {library}"
                figure(f"ann.{library.lower()}", f"{ours[4] / best:.1f}", what)
    print(f"memory: {memory['idiolect']:.3f} x the vectors (goal 1.3)")
    for name in seconds:
        if name.startswith("hnswlib") and "idiolect" in seconds:
            print(
                f"build: {seconds['idiolect'] / seconds[name]:.2f} x the time of {name} (goal 1.0)"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/idiolect-ann"))
    parser.add_argument("--build", action="store_true", help="rebuild all indexes")
    parser.add_argument("--library", choices=LIBRARIES, nargs="+", default=list(LIBRARIES))
    given = parser.parse_args()
    libraries = [LIBRARIES[name] for name in dict.fromkeys(["idiolect", *given.library])]
    given.scratch.mkdir(exist_ok=True, parents=True)
    points, queries, truth = load_mixture(given.scratch, given.rows)
    Graph.build(points[:300], threads=1).search(queries[:2], K)  # compile the kernels
    seconds = prepare(libraries, given.scratch, points, given.build)
    report(measure(libraries, queries, truth), seconds, points)


if __name__ == "__main__":
    main()
