"""Filtered search in memory and on disk: recall and time by the fraction of rows that match.

    python benchmarks/filters.py [--rows 100000] [--scratch FOLDER]

The rows that match are random ("random"), or the nearest to a random point, and so far from most
queries ("region"). Ways to search: as the index chooses ("index"), with a scan of the codes of the
rows that match, in the graph, and in a graph of these rows alone, which a label in the edges of a
graph amounts to ("own graph": it needs a graph for each label, and its time to build is not
counted). One thread, one call for all queries; times are the less of two.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from idiolect.search.diskann import DiskGraph, Graph
from idiolect.search.diskann import graph as memory_module
from idiolect.search.diskann.disk import disk_graph as disk_module
from idiolect.search.diskann.row_mask import RowMask
from mixture import load_mixture

K, QUERIES, ROUNDS = 10, 100, 2
FRACTIONS = (0.5, 0.1, 0.01, 0.001)
Search = Callable[[Any, RowMask], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/idiolect-ann"))
    given = parser.parse_args()
    given.scratch.mkdir(exist_ok=True, parents=True)
    points, queries, _ = load_mixture(given.scratch, given.rows)
    queries = queries[:QUERIES]
    memory, disk = open_graphs(given.scratch, points)
    ways: dict[str, Search] = {
        "memory: index": lambda q, rows: memory.search(q, K, mask=rows, threads=1)[0],
        "memory: scan": forced(memory, memory_module, "prefers_graph", lambda *_: False),
        "memory: graph": forced(memory, memory_module, "prefers_graph", lambda *_: True),
        "memory: own graph": OwnGraph(points),
        "disk: index": lambda q, rows: disk.search(q, K, mask=rows, threads=1)[0],
        "disk: scan": forced(disk, disk_module, "_PAGE_COST", float("inf")),
        "disk: graph": forced(disk, disk_module, "_PAGE_COST", 0),
    }
    rng = np.random.default_rng(1)
    table = Table(title=f"{given.rows:,} × {points.shape[1]}: recall@{K}, ms a query")
    for column in ("", *(f"{kind} {f:.1%}" for kind in ("random", "region") for f in FRACTIONS)):
        table.add_column(column, justify="right" if column else "left")
    cells: dict[str, list[str]] = {name: [] for name in ways}
    for kind in ("random", "region"):
        for fraction in FRACTIONS:
            mask = choose(kind, fraction, points, rng)
            for name, search in ways.items():
                if name.endswith("graph") and fraction < 0.01:
                    cells[name].append("")  # slower than all others by far
                    continue
                recall, milliseconds = measure(search, mask, points, queries)
                cells[name].append(f"{recall:.3f} {milliseconds:.3g}")
                print(kind, fraction, name, cells[name][-1], flush=True)
    for name, row in cells.items():
        table.add_row(name, *row)
    Console(width=150).print(table)


def open_graphs(scratch: Path, points: Any) -> tuple[Graph, DiskGraph]:
    memory, disk = scratch / f"graph-{len(points)}", scratch / f"disk-graph-{len(points)}"
    if not memory.exists():
        Graph.build(points).save(memory)
    graph = Graph.open(memory)
    if not disk.exists():
        DiskGraph.write(disk, graph)
    return graph, DiskGraph.open(disk)


def forced(graph: Any, module: Any, name: str, value: Any) -> Search:
    """Return a search in one of the ways between which the index chooses."""

    def search(queries: Any, rows: RowMask) -> Any:
        before = getattr(module, name)
        setattr(module, name, value)
        try:
            return graph.search(queries, K, mask=rows, threads=1)[0]
        finally:
            setattr(module, name, before)

    return search


class OwnGraph:
    """Searches in a graph of the rows that match."""

    def __init__(self, points: Any) -> None:
        self._points = points
        self._latest: tuple[RowMask, Graph] | None = None

    def __call__(self, queries: Any, rows: RowMask) -> Any:
        if self._latest is None or self._latest[0] is not rows:
            self._latest = rows, Graph.build(self._points[rows.rows])
        found = self._latest[1].search(queries, K, threads=1)[0]
        return np.where(found >= 0, rows.rows[found], -1)


def choose(kind: str, fraction: float, points: Any, rng: np.random.Generator) -> RowMask:
    if kind == "random":
        return RowMask(rng.random(len(points)) < fraction)
    scores = points @ points[rng.integers(len(points))]
    count = int(fraction * len(points))
    return RowMask(scores >= np.partition(scores, -count)[-count])


def measure(search: Search, mask: RowMask, points: Any, queries: Any) -> tuple[float, float]:
    scores = queries @ points[mask.rows].T
    true = mask.rows[np.argpartition(-scores, K, axis=1)[:, :K]]
    search(queries[:2], mask)
    least = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        found = search(queries, mask)
        least = min(least, time.perf_counter() - began)
    pairs = zip(found.tolist(), true.tolist(), strict=True)
    return np.mean([len(set(a) & set(b)) / K for a, b in pairs]), 1000 * least / len(queries)


if __name__ == "__main__":
    main()
