"""A disk graph of more vectors than its process may hold: time, memory and recall.

    python benchmarks/out_of_core.py [--rows 10000000] [--dimension 128] [--degree 32]

The vectors lie in a file. The graph is built in shards within an eighth of their size, and searched
with lists of several sizes, with its pages in the system's cache as far as they are. While it is
built, the memory of the process is written each second to a CSV file beside the index: anonymous
memory, and all resident memory, which counts mapped files too. Results are appended to a file, and
a plot of memory over time and of recall against queries a second lies beside it.
"""

from __future__ import annotations

import argparse
import csv
import logging
import threading
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ann_disk import memory_of_process
from idiolect.search.diskann import DiskGraph
from idiolect.search.diskann.disk.flat_vectors import FlatVectors
from idiolect.search.diskann.disk.partitioned_build import build_partitioned, shard_bytes
from mixture import load_mixture, recall

K, LIST_SIZES = 10, (16, 24, 32, 48, 64, 96, 128, 192, 256, 384)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--dimension", type=int, default=128, help="a multiple of 16")
    parser.add_argument("--degree", type=int, default=32)
    parser.add_argument("--list-size", type=int, default=64, help="while building")
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/idiolect-ann"))
    given = parser.parse_args()
    given.scratch.mkdir(exist_ok=True, parents=True)
    size = f"{given.rows}x{given.dimension}"
    load_mixture(given.scratch, given.rows, given.dimension)
    queries, truth = (np.load(given.scratch / f"{w}-{size}.npy") for w in ("queries", "truth"))
    points = np.load(given.scratch / f"points-{size}.npy", mmap_mode="r")
    file = FlatVectors(Path(points.filename), points.shape[1], offset=points.offset)
    results = given.scratch / f"out-of-core-{size}.txt"
    path = given.scratch / f"out-of-core-{size}"
    bytes_ = points.nbytes
    del points
    if not path.exists():
        seconds, peak = build(path, file, bytes_ // 8, given)
        tell(
            results,
            f"{size}: {bytes_ / 1e9:.2f} GB of vectors, built in {seconds:,.0f} s within"
            f" {peak / 1e6:,.0f} MB of anonymous memory, {path.stat().st_size / 1e9:.2f} GB",
        )
    disk = DiskGraph.open(path)
    tell(results, f"codes in memory: {disk.memory / 1e6:,.0f} MB")
    disk.search(queries[:2], K)
    rates, recalls = [], []
    for list_size in LIST_SIZES:
        began = time.perf_counter()
        found = disk.search(queries, K, list_size=list_size, threads=1)[0]
        rate = len(queries) / (time.perf_counter() - began)
        anonymous, resident = memory_of_process(), memory_of_process("VmRSS")
        rates.append(rate)
        recalls.append(recall(found, truth))
        tell(
            results,
            f"list {list_size:4}: recall {recalls[-1]:.4f}, {rate:7,.0f} q/s,"
            f" anonymous {anonymous / 1e6:,.0f} MB, resident {resident / 1e6:,.0f} MB",
        )
    plot(path, bytes_, rates, recalls)


def plot(path: Path, bytes_: int, rates: list[float], recalls: list[float]) -> None:
    """Draw memory over the time of the build, and recall against queries a second."""
    with path.with_name(f"{path.name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    memory, search = figure.subplots(1, 2)
    minutes = [int(row["seconds"]) / 60 for row in rows]
    for name, label in (("resident_mb", "resident"), ("anonymous_mb", "anonymous")):
        memory.plot(minutes, [int(row[name]) * 2**20 / 1e6 for row in rows], label=label)
    memory.axhline(bytes_ / 8e6, color="grey", ls=":", label="an eighth of the vectors")
    memory.set(xlabel="minutes of building", ylabel="MB", ylim=0)
    memory.legend(loc="lower right")
    search.plot(recalls, rates, marker="o")
    for size, x, y in zip(LIST_SIZES, recalls, rates, strict=True):
        search.annotate(str(size), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    search.set(xlabel="recall@10 (numbers: size of the search list)", ylabel="queries/s", ylim=0)
    figure.savefig(path.with_name(f"{path.name}.png"), dpi=120)


def build(
    path: Path, file: FlatVectors, memory: int, given: argparse.Namespace
) -> tuple[float, int]:
    """Build the graph; return the seconds, and the largest anonymous memory."""
    shard, done, peak = [""], threading.Event(), 0

    class Shards(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            shard[0] = record.getMessage().rpartition("shard ")[2]
            print(f"shard {shard[0]}", flush=True)

    logger = logging.getLogger("idiolect.search.diskann.disk.partitioned_build")
    logger.setLevel(logging.INFO)
    logger.addHandler(Shards())
    began = time.perf_counter()

    def watch() -> None:
        nonlocal peak
        with path.with_name(f"{path.name}.csv").open("w") as table:
            table.write("seconds,shard,anonymous_mb,resident_mb\n")
            while not done.wait(1):
                anonymous, resident = memory_of_process(), memory_of_process("VmRSS")
                peak = max(peak, anonymous)
                seconds = time.perf_counter() - began
                table.write(f"{seconds:.0f},{shard[0]},{anonymous >> 20},{resident >> 20}\n")
                table.flush()

    watcher = threading.Thread(target=watch)
    watcher.start()
    build_partitioned(
        path, file, max_rows=memory // shard_bytes(given.dimension, given.degree),
        degree=given.degree, list_size=given.list_size,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    return seconds, peak


def tell(results: Path, line: str) -> None:
    print(line, flush=True)
    with results.open("a") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    main()
