"""Search on disk against diskannpy and LanceDB: recall, throughput cold and warm, memory, builds.

    python benchmarks/ann_disk.py [--rows 100000] [--scratch FOLDER] [--diskannpy PYTHON]

Each library runs in a separate process and on one thread, on the same vectors and queries. Its
search parameter is increased until recall@10 reaches 0.95. Then it answers the queries with its
files in the system's page cache ("warm"), and once after dropping them from it ("cold"), in
wall-clock time. "Memory" is the growth of the process's anonymous memory since before the index was
opened, and "resident" all memory of the process, both relative to the vectors. Building is measured
in a process of its own, with the peak of its anonymous memory. "idiolect" is the graph alone, built
in shards; "idiolect store" answers with whole items, at its default parameter. `diskannpy` requires
an old NumPy, so pass the Python of an environment that has it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mixture import load_mixture, recall

TARGET, ROUNDS, K, COLD = 0.95, 3, 10, 200
Search = Callable[[Any, Any], Any]
Settings = tuple[Any, ...]


def ours(folder: Path, points: Any, queries: Any) -> tuple[Callable[[], Search], Settings]:
    from idiolect.search.diskann import DiskGraph
    from idiolect.search.diskann.disk.flat_vectors import FlatVectors
    from idiolect.search.diskann.disk.partitioned_build import build_partitioned, shard_bytes

    path = folder / "index"
    if not path.exists():
        file = FlatVectors(Path(points.filename), points.shape[1], offset=points.offset)
        memory = max(points.nbytes // 8, 256 << 20)
        build_partitioned(path, file, max_rows=memory // shard_bytes(points.shape[1]))
    DiskGraph.write(folder / "few", points[:300])  # load the kernels before memory is measured
    DiskGraph.open(folder / "few").search(queries[:2], K)

    def start() -> Search:
        disk = DiskGraph.open(path)
        return lambda queries, size: disk.search(queries, K, list_size=size, threads=1)[0]

    return start, (16, 20, 24, 28, 32, 40, 48, 64, 80, 96, 112, 128, 160, 192, 256)


def our_store(folder: Path, points: Any, queries: Any) -> tuple[Callable[[], Search], Settings]:
    from idiolect.search.items import Item
    from idiolect.search.store.store import Store

    options = {"dimensions": points.shape[1], "memory": "disk", "background": False}
    if not (folder / "store").exists():
        with Store.open(folder / "store", **options) as store:
            for start in range(0, len(points), 1000):
                rows = range(start, min(start + 1000, len(points)))
                store.upsert([Item(str(row), f"item {row}", {}, points[row]) for row in rows])
            store.merge()
    with Store.open(folder / "few", merge_after=100, **options) as few:
        few.upsert([Item(str(row), "", {}, points[row]) for row in range(300)])
        few.merge()
        few.query(queries[0])

    def start() -> Search:
        store = Store.open(folder / "store", background=False)
        return lambda queries, _: np.array(
            [[int(hit.id) for hit in store.query(query, K)] for query in queries]
        )

    return start, (128,)


def diskannpy(folder: Path, points: Any) -> tuple[Callable[[], Search], Settings]:
    import diskannpy

    if not any(folder.iterdir()):
        gigabytes = points.size / 8 / 2**30  # a byte for eight dimensions, as ours
        diskannpy.build_disk_index(
            points, "l2", str(folder), complexity=100, graph_degree=64,
            search_memory_maximum=gigabytes, build_memory_maximum=8, num_threads=2,
        )  # fmt: skip

    def start() -> Search:
        # With one thread it hangs while it opens; by default it answers a file of samples first.
        index = diskannpy.StaticDiskIndex(
            str(folder), num_threads=2, num_nodes_to_cache=0, cache_mechanism=0
        )

        def run(queries: Any, size: int) -> Any:
            found = index.batch_search(queries, K, complexity=size, beam_width=4, num_threads=1)
            return found.identifiers.astype(np.int64)

        return run

    return start, (16, 32, 64, 128, 192, 256, 384, 512, 768, 1024)


def lancedb(folder: Path, points: Any, kind: str) -> tuple[Callable[[], Search], Settings]:
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

    return start, tuple((p, f) for p in (5, 10, 20, 40, 80, 160, 320) for f in (2, 5, 10, 30))


LIBRARIES: dict[str, Callable[[Path, Any, Any], Any]] = {
    "idiolect": ours,
    "idiolect store": our_store,
    "diskannpy": lambda folder, points, _: diskannpy(folder, points),
    "LanceDB IVF_PQ": lambda folder, points, _: lancedb(folder, points, "IVF_PQ"),
    "LanceDB IVF_HNSW_SQ": lambda folder, points, _: lancedb(folder, points, "IVF_HNSW_SQ"),
}


def memory_of_process(kind: str = "RssAnon") -> int:
    """Return the resident memory of this process in bytes: without file pages, or all (VmRSS)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(kind)))


def build_library(name: str, size: str, scratch: Path) -> dict[str, float]:
    """Build the index of one library; return the seconds, and the growth of anonymous memory."""
    points, queries = (
        np.load(scratch / f"{what}-{size}.npy", mmap_mode="r") for what in ("points", "queries")
    )
    folder = place(name, size, scratch)
    if any(folder.iterdir()):
        return {}
    before, peak, done = memory_of_process(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, memory_of_process())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    LIBRARIES[name](folder, points, queries)
    seconds = time.perf_counter() - begin
    done.set()
    watcher.join()
    return {"seconds": seconds, "peak": (peak - before) / points.nbytes}


def place(name: str, size: str, scratch: Path) -> Path:
    folder = scratch / f"disk-{name.replace(' ', '-')}-{size}"
    folder.mkdir(exist_ok=True)
    return folder


def drop_cache(folder: Path) -> None:
    """Drop the files of a folder from the page cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def run_library(name: str, size: str, scratch: Path) -> dict[str, Any]:
    """Measure the index of one library in this process."""
    points = np.load(scratch / f"points-{size}.npy", mmap_mode="r")
    queries, truth = (np.load(scratch / f"{what}-{size}.npy") for what in ("queries", "truth"))
    bytes_ = points.nbytes
    folder = place(name, size, scratch)
    start, settings = LIBRARIES[name](folder, points, queries)
    del points
    before = memory_of_process()
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
    memory, resident = memory_of_process() - before, memory_of_process("VmRSS")
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
        "memory": memory / bytes_,
        "resident": resident / bytes_,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=384, help="a multiple of 16")
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/idiolect-ann"))
    parser.add_argument("--diskannpy", default=sys.executable, help="a Python with diskannpy")
    parser.add_argument("--library", choices=LIBRARIES, nargs="+", default=list(LIBRARIES))
    parser.add_argument("--step", choices=("build", "measure"), help="of one library, for JSON")
    given = parser.parse_args()
    given.scratch.mkdir(exist_ok=True, parents=True)
    size = f"{given.rows}" + (f"x{given.dimension}" if given.dimension != 384 else "")
    if given.step:
        step = build_library if given.step == "build" else run_library
        print(json.dumps(step(given.library[0], size, given.scratch)))
        return
    load_mixture(given.scratch, given.rows, given.dimension)
    for name in given.library:
        found: dict[str, Any] = {}
        for step in ("build", "measure"):
            python = given.diskannpy if name == "diskannpy" else sys.executable
            command = [python, __file__, "--library", name, "--rows", str(given.rows)]
            command += ["--dimension", str(given.dimension)]
            done = subprocess.run(
                [*command, "--scratch", str(given.scratch), "--step", step],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                print(f"{name}: {(done.stderr.strip() or 'killed').splitlines()[-1]}", flush=True)
                break
            found |= json.loads(done.stdout.strip().splitlines()[-1])
        else:
            print(describe(found), flush=True)


def describe(found: dict[str, Any]) -> str:
    line = f"{found['library']:20} recall {found['recall']:.4f} at {found['setting']}"
    if "warm" in found:
        line += f"  warm {found['warm']:,.0f} q/s  cold {found['cold']:,.0f} q/s"
        line += f"  memory {found['memory']:.3f}, resident {found['resident']:.3f} x the vectors"
    if "seconds" in found:
        line += f"  built in {found['seconds']:,.0f} s, peak {found['peak']:.2f} x the vectors"
    return line


if __name__ == "__main__":
    main()
