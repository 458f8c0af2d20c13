"""Filtered search in memory and on disk: recall and time by the fraction of rows that match.

    python benchmarks/filters.py [--rows 100000] [--scratch FOLDER]

The rows that match have one of several labels. Those of a label are random ("random"), or the
nearest to a random point, and so far from most queries ("region"). Ways to search: as the index
chooses ("index"), with a scan of the codes of the rows that match, and in the graph; on disk also
as the index chooses where the graph has edges by label ("labels"). One thread, one call for all
queries; times are the less of two. The times of building graphs with labels are printed.
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
from idiolect.search.diskann.disk.flat_vectors import FlatVectors
from idiolect.search.diskann.disk.partitioned_build import build_partitioned
from idiolect.search.diskann.row_mask import RowMask
from mixture import load_mixture

K, QUERIES, ROUNDS = 10, 100, 2
FRACTIONS = (0.5, 0.1, 0.01, 0.001)  # the labels 0 to 3; the other rows have the label 4
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
        "disk: index": lambda q, rows: disk.search(q, K, mask=rows, threads=1)[0],
        "disk: scan": forced(disk, disk_module, "_PAGE_COST", float("inf")),
        "disk: graph": forced(disk, disk_module, "_PAGE_COST", 0),
    }
    rng = np.random.default_rng(1)
    table = Table(title=f"{given.rows:,} × {points.shape[1]}: recall@{K}, ms a query")
    for column in ("", *(f"{kind} {f:.1%}" for kind in ("random", "region") for f in FRACTIONS)):
        table.add_column(column, justify="right" if column else "left")
    cells: dict[str, list[str]] = {name: [] for name in (*ways, "disk: labels")}
    for kind in ("random", "region"):
        labels = choose(kind, points, rng)
        labelled = open_labelled(given.scratch, points, kind, labels)
        ways["disk: labels"] = lambda q, rows, g=labelled: g.search(q, K, mask=rows, threads=1)[0]
        for label, fraction in enumerate(FRACTIONS):
            mask = RowMask(labels == label)
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


def choose(kind: str, points: Any, rng: np.random.Generator) -> Any:
    """Return labels int32 (rows,)."""
    labels = np.full(len(points), len(FRACTIONS), np.int32)
    for label, fraction in enumerate(FRACTIONS):
        free = np.flatnonzero(labels == len(FRACTIONS))
        count = int(fraction * len(points))
        if kind == "random":
            chosen = rng.choice(free, count, replace=False)
        else:
            scores = points[free] @ points[rng.integers(len(points))]
            chosen = free[np.argpartition(-scores, count)[:count]]
        labels[chosen] = label
    return labels


def open_labelled(scratch: Path, points: Any, kind: str, labels: Any) -> DiskGraph:
    """Build graphs on disk with and without labels, print their times, and open the first."""
    for name, own in (("plain", None), (kind, labels)):
        path = scratch / f"labelled-{name}-{len(points)}"
        if not path.exists():
            saved = np.load(scratch / f"points-{len(points)}.npy", mmap_mode="r")
            file = FlatVectors(Path(saved.filename), points.shape[1], offset=saved.offset)
            began = time.perf_counter()
            build_partitioned(path, file, max_rows=len(points), labels=own)
            seconds, size = time.perf_counter() - began, path.stat().st_size / 1e6
            print(f"built with labels: {name}, {seconds:.0f} s, {size:.0f} MB", flush=True)
    return DiskGraph.open(path)


def measure(search: Search, mask: RowMask, points: Any, queries: Any) -> tuple[float, float]:
    """Return recall and milliseconds a query."""
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
