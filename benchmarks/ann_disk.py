"""Search on disk against diskannpy and LanceDB: recall, throughput cold and warm, memory.

    python benchmarks/ann_disk.py [--rows 100000] [--scratch FOLDER] [--diskannpy PYTHON]

Each library runs in a separate process and on one thread, on the same vectors and queries. Its
search parameter is increased until recall@10 reaches 0.95. Then it answers the queries with its
files in the system's page cache ("warm"), and once after dropping them from it ("cold"), in
wall-clock time. Memory is the growth of the process's anonymous memory since before the index was
opened. `diskannpy` requires an old NumPy, so pass the Python of an environment that has it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mixture import load_mixture, recall

TARGET, ROUNDS, K, COLD = 0.95, 3, 10, 200
Search = Callable[[Any, Any], Any]


def ours(folder: Path, points: Any, codes: Any) -> tuple[Callable[[], Search], tuple[Any, ...]]:
    from idiolect.search.diskann import DiskGraph, Graph

    path = folder / "index"
    if not path.exists():
        graph = folder.parent / f"idiolect-{len(points)}"
        DiskGraph.write(path, Graph.open(graph) if graph.exists() else points, codes=codes)
    DiskGraph.write(folder / "few", points[:300], codes=codes)  # load the kernels before memory
    DiskGraph.open(folder / "few").search(points[:2], K)  # is measured

    def start() -> Search:
        disk = DiskGraph.open(path)
        return lambda queries, size: disk.search(queries, K, list_size=size, threads=1)[0]

    return start, (16, 20, 24, 28, 32, 40, 48, 64, 80, 96, 128)


def diskannpy(folder: Path, points: Any) -> tuple[Callable[[], Search], tuple[Any, ...]]:
    import diskannpy

    if not any(folder.iterdir()):
        gigabytes = points.nbytes / 8 / 2**30
        diskannpy.build_disk_index(
            points, "l2", str(folder), complexity=100, graph_degree=64,
            search_memory_maximum=gigabytes, build_memory_maximum=8, num_threads=2,
        )  # fmt: skip

    def start() -> Search:
        index = diskannpy.StaticDiskIndex(str(folder), num_threads=1, num_nodes_to_cache=0)

        def run(queries: Any, size: int) -> Any:
            found = index.batch_search(queries, K, complexity=size, beam_width=4, num_threads=1)
            return found.identifiers.astype(np.int64)

        return run

    return start, (16, 20, 24, 28, 32, 40, 48, 64, 80, 96, 128)


def lancedb(folder: Path, points: Any, kind: str) -> tuple[Callable[[], Search], tuple[Any, ...]]:
    import lancedb
    import pyarrow as pa

    base = lancedb.connect(folder)
    if "points" not in base.list_tables().tables:
        column = pa.FixedSizeListArray.from_arrays(pa.array(points.ravel()), points.shape[1])
        data = pa.table({"row": pa.array(range(len(points))), "vector": column})
        base.create_table("points", data).create_index(metric="cosine", index_type=kind)

    def start() -> Search:
        table = lancedb.connect(folder).open_table("points")

        def run(queries: Any, setting: tuple[int, int]) -> Any:
            found = np.full((len(queries), K), -1, np.int64)
            for i, query in enumerate(queries):
                search = table.search(query).distance_type("cosine").limit(K).select(["row"])
                search = search.nprobes(setting[0]).refine_factor(setting[1])
                rows = search.to_arrow()["row"].to_numpy()
                found[i, : len(rows)] = rows
            return found

        return run

    return start, tuple((p, f) for p in (5, 10, 20, 40, 80) for f in (2, 5, 10))


LIBRARIES: dict[str, Callable[[Path, Any], Any]] = {
    "idiolect, pq": lambda folder, points: ours(folder, points, "pq"),
    "idiolect, rabitq": lambda folder, points: ours(folder, points, "rabitq"),
    "diskannpy": diskannpy,
    "LanceDB IVF_PQ": lambda folder, points: lancedb(folder, points, "IVF_PQ"),
    "LanceDB IVF_HNSW_SQ": lambda folder, points: lancedb(folder, points, "IVF_HNSW_SQ"),
}


def anonymous_memory() -> int:
    """Return the resident memory of this process without file pages, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


def drop_cache(folder: Path) -> None:
    """Drop the files of a folder from the page cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def run_library(name: str, rows: int, scratch: Path) -> dict[str, Any]:
    """Build the index of one library if needed, and measure it in this process."""
    points, queries, truth = load_mixture(scratch, rows)
    size = points.nbytes
    folder = scratch / f"disk-{name.replace(', ', '-').replace(' ', '-')}-{rows}"
    folder.mkdir(exist_ok=True)
    start, settings = LIBRARIES[name](folder, points)
    del points
    before = anonymous_memory()
    search = start()
    best: tuple[float, Any, float] = (float("inf"), None, 0.0)
    for setting in settings:
        begin = time.perf_counter()
        found = recall(search(queries, setting), truth)
        seconds = time.perf_counter() - begin
        if found >= TARGET and seconds < best[0]:
            best = seconds, setting, found
            if not isinstance(setting, tuple):
                break
        if best[1] is not None and seconds > 3 * best[0]:
            break
    setting = best[1]
    if setting is None:
        return {"library": name, "recall": found, "setting": settings[-1]}
    warm = float("inf")
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        search(queries, setting)
        warm = min(warm, time.perf_counter() - begin)
    memory = anonymous_memory() - before
    drop_cache(folder)
    begin = time.perf_counter()
    search(queries[:COLD], setting)
    cold = time.perf_counter() - begin
    return {
        "library": name,
        "recall": best[2],
        "setting": setting,
        "warm": len(queries) / warm,
        "cold": COLD / cold,
        "memory": memory / size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/idiolect-ann"))
    parser.add_argument("--diskannpy", default=sys.executable, help="a Python with diskannpy")
    parser.add_argument("--library", choices=LIBRARIES, help="measure one library and print JSON")
    given = parser.parse_args()
    given.scratch.mkdir(exist_ok=True, parents=True)
    if given.library:
        print(json.dumps(run_library(given.library, given.rows, given.scratch)))
        return
    for name in LIBRARIES:
        python = given.diskannpy if name == "diskannpy" else sys.executable
        command = [python, __file__, "--library", name, "--rows", str(given.rows)]
        done = subprocess.run(
            [*command, "--scratch", str(given.scratch)], capture_output=True, text=True
        )
        if done.returncode:
            print(f"{name}: {done.stderr.strip().splitlines()[-1]}", flush=True)
            continue
        row = json.loads(done.stdout.strip().splitlines()[-1])
        line = f"{name:22} recall {row['recall']:.4f} at {row['setting']}"
        if "warm" in row:
            line += f"  warm {row['warm']:,.0f} q/s  cold {row['cold']:,.0f} q/s"
            line += f"  memory {row['memory']:.3f} x the vectors"
        print(line, flush=True)


if __name__ == "__main__":
    main()
