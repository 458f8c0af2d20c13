"""Queries of several processes while another one writes: the embedded store against LanceDB.

    python benchmarks/reading_while_writing.py [--items 5000 10000 100000] [--rates 500 2000 0]

Each store starts with the same indexed items (see `store.py`). One process upserts batches of 50 at
each rate (items a second; 0 is as fast as it can), while several processes query. The stores are
measured in turn, several times, and the medians of the runs are printed. Our readers see every
write that was acknowledged before the query. LanceDB's see none by default; "LanceDB, fresh" looks
for new versions at every query.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import tempfile
import time
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from record import figure
from store import STORES, Lance, items, time_queries, vectors

BATCH = 50
FRESH = 20_000


class FreshLance(Lance):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder, read_consistency_interval=timedelta(0))


KINDS: dict[str, Any] = {
    "idiolect": STORES["idiolect"],
    "LanceDB": Lance,
    "LanceDB, fresh": FreshLance,
}


def read(kind: str, folder: Path, queries: Any, go: Any, seconds: float, out: Any) -> None:
    """Query until the time is over, and send the milliseconds of each query."""
    out.put(time_queries(KINDS[kind](folder), queries, go, seconds))


def write(kind: str, folder: Path, rate: float, go: Any, seconds: float, out: Any) -> None:
    """Write until the time is over, and send the upserts per second."""
    store = KINDS[kind](folder)
    fresh = vectors(FRESH, 3)
    go.wait()
    began, written = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds:
        if rate and written > rate * passed:
            time.sleep(min(written / rate - passed, seconds - passed))
            continue
        store.write(items(10**6 + written, fresh[written % FRESH :][:BATCH]))
        written += BATCH
    out.put(written / (time.perf_counter() - began))
    if hasattr(store, "store"):
        store.store.close()


def measure(
    kind: str, folder: Path, rate: float, readers: int, seconds: float
) -> tuple[float, float, float, float, float]:
    """Return queries per second, their p50, p99 and maximum in ms, and upserts per second."""
    context = multiprocessing.get_context("spawn")
    out, speed, go = context.Queue(), context.Queue(), context.Barrier(readers + 1)
    queries = vectors(100, 2)
    started = [
        context.Process(target=read, args=(kind, folder, queries, go, seconds, out))
        for _ in range(readers)
    ]
    started.append(context.Process(target=write, args=(kind, folder, rate, go, seconds, speed)))
    for process in started:
        process.start()
    times = [one for _ in range(readers) for one in out.get()]
    upserts = speed.get()
    for process in started:
        process.join()
    median, p99 = np.percentile(times, [50, 99])
    return len(times) / seconds, float(median), float(p99), max(times), upserts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[5_000, 10_000, 100_000])
    parser.add_argument("--rates", type=float, nargs="+", default=[500, 2_000, 0])
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--stores", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    ratios = []
    for count in options.items:
        everything = items(0, vectors(count, 1))
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for kind in options.stores:
                if kind == "LanceDB, fresh" and "LanceDB" in options.stores:
                    continue  # the same files
                store = KINDS[kind](folder / "built")
                for start in range(0, count, 500):
                    store.write(everything[start : start + 500])
                store.finish()
                if hasattr(store, "store"):
                    store.store.close()
            results = defaultdict(list)
            for _ in range(options.runs):
                for rate in options.rates:
                    for kind in options.stores:
                        shutil.rmtree(folder / "used", ignore_errors=True)
                        shutil.copytree(folder / "built", folder / "used")
                        results[rate, kind].append(
                            measure(kind, folder / "used", rate, options.readers, options.seconds)
                        )
            show(count, results, options)
            if 500 in options.rates and {"idiolect", "LanceDB"} <= set(options.stores):
                ours, theirs = (
                    np.median([run[0] for run in results[500, kind]])
                    for kind in ("idiolect", "LanceDB")
                )
                ratios.append(ours / theirs)
    if ratios:
        low, high = round(min(ratios)), round(max(ratios))
        what = "queries a second of the embedded store while another process writes 500 a second"
        sizes = f"{min(options.items):,} to {max(options.items):,} items"
        figure("store.writing", f"{low} to {high}", f"{what}, as a multiple of LanceDB, {sizes}")


def show(count: int, results: Any, options: argparse.Namespace) -> None:
    table = Table(
        title=f"{count:,} items; {options.readers} processes query, one writes batches of {BATCH};"
        f" medians of {options.runs}"
    )
    for column in ("rate", "", "queries/s", "p50 ms", "p99 ms", "max ms", "upserts/s", "idiolect"):
        table.add_column(column, justify="right" if column else "left")
    for rate in options.rates:
        best = np.median([run[0] for run in results[rate, "idiolect"]] or [0])
        for kind in options.stores:
            speed, p50, p99, longest, upserts = np.median(results[rate, kind], axis=0)
            table.add_row(
                f"{rate:,.0f}" if rate else "full", kind, f"{speed:,.0f}", f"{p50:.1f}",
                f"{p99:.1f}", f"{longest:.0f}", f"{upserts:,.0f}", f"{best / speed:.1f}x",
            )  # fmt: skip
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
