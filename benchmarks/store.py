"""The embedded store against LanceDB and sqlite-vec: writes, queries, and both concurrently.

    python benchmarks/store.py [--items 20000] [--readers 4]

All stores have the same items: 384 dimensions, a text, a price and a brand. Times are end to end,
until items are returned with their texts and metadata. Each batch of writes is on disk when its
call returns. Queries alternate between the stores. LanceDB uses its IVF_HNSW_SQ index; sqlite-vec
has no index and compares all vectors. `recall` is recall@10 against exact search.

The last table measures one store at a time: several processes query while another one writes.
`reading_while_writing.py` does so for other rates and sizes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.table import Table

from idiolect.search.items import Item
from idiolect.search.store.store import Store
from record import figure

DIMENSIONS = 384
BATCH = 500
BRANDS = 100
QUERIES = 100


def vectors(count: int, seed: int) -> np.ndarray:
    """Draw vectors in 200 clusters near a 24-dimensional subspace, like sentence embeddings."""
    fixed = np.random.default_rng(0)
    spread = fixed.normal(size=(24, DIMENSIONS))
    centres = fixed.normal(size=(200, 24))
    rng = np.random.default_rng(seed)
    places = centres[rng.integers(200, size=count)] + 0.6 * rng.normal(size=(count, 24))
    drawn = places @ spread + 0.3 * rng.normal(size=(count, DIMENSIONS))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def items(first: int, found: np.ndarray) -> list[Item]:
    words = ("lamp", "chair", "table", "sofa", "shelf", "clock", "mirror", "carpet")
    return [
        Item(
            f"item-{first + n}",
            f"{words[(first + n) % 8]} number {first + n}, {words[(first + n) // 8 % 8]} series",
            {"price": (first + n) % 1000, "brand": f"brand-{(first + n) % BRANDS}"},
            vector,
        )
        for n, vector in enumerate(found)
    ]


class Benchmarked(Protocol):
    """The interface of a store in this benchmark."""

    def write(self, batch: list[Item]) -> None:
        """Add or replace a batch durably."""

    def finish(self) -> None:
        """Index the written items."""

    def query(self, vector: np.ndarray, brand: str | None) -> list[str]:
        """Return the ids of the ten nearest items, after reading their texts and metadata."""


class Ours(Benchmarked):
    def __init__(self, folder: Path) -> None:
        self.store = Store.open(folder / "ours", dimensions=DIMENSIONS)

    def write(self, batch: list[Item]) -> None:
        self.store.upsert(batch)

    def finish(self) -> None:
        self.store.merge()

    def query(self, vector: np.ndarray, brand: str | None) -> list[str]:
        return [hit.id for hit in self.store.query(vector, filter=brand and {"brand": brand})]


class Lance(Benchmarked):
    def __init__(self, folder: Path, **options: Any) -> None:
        import lancedb
        import pyarrow as pa

        names = {"id": pa.string(), "text": pa.string(), "price": pa.int64(), "brand": pa.string()}
        vector = ("vector", pa.list_(pa.float32(), DIMENSIONS))
        self.schema = pa.schema([*names.items(), vector])
        self.pa = pa
        database = lancedb.connect(folder / "lance", **options)
        self.table = (
            database.open_table("items")
            if (folder / "lance" / "items.lance").exists()
            else database.create_table("items", schema=self.schema)
        )

    def write(self, batch: list[Item]) -> None:
        rows = [
            {"id": item.id, "text": item.text, "vector": item.vector, **item.metadata}
            for item in batch
        ]
        data = self.pa.Table.from_pylist(rows, schema=self.schema)
        merge = self.table.merge_insert("id").when_matched_update_all()
        merge.when_not_matched_insert_all().execute(data)

    def finish(self) -> None:
        from lancedb.index import BTree, HnswSq

        self.table.create_index("vector", config=HnswSq(distance_type="cosine"))
        self.table.create_index("brand", config=BTree())
        self.table.optimize()

    def query(self, vector: np.ndarray, brand: str | None) -> list[str]:
        query = self.table.search(vector).distance_type("cosine").nprobes(20).limit(10)
        query = query.where(f"brand = '{brand}'", prefilter=True) if brand else query
        wanted = ["id", "text", "price", "brand", "_distance"]
        return [row["id"] for row in query.select(wanted).to_list()]


class SqliteVec(Benchmarked):
    def __init__(self, folder: Path) -> None:
        import apsw  # sqlite3 of many Pythons cannot load extensions
        import sqlite_vec

        self.db = apsw.Connection(str(folder / "vec.db"))
        self.db.set_busy_timeout(60_000)
        self.db.enable_load_extension(True)
        self.db.load_extension(sqlite_vec.loadable_path())
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute(
            "CREATE VIRTUAL TABLE IF NOT EXISTS items USING vec0 (id TEXT PRIMARY KEY, brand TEXT,"
            f" vector FLOAT[{DIMENSIONS}] distance_metric=cosine, +text TEXT, +metadata TEXT)"
        )

    def write(self, batch: list[Item]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany("DELETE FROM items WHERE id = ?", ((item.id,) for item in batch))
        self.db.executemany(
            "INSERT INTO items (id, brand, vector, text, metadata) VALUES (?, ?, ?, ?, ?)",
            (
                (i.id, i.metadata["brand"], i.vector.tobytes(), i.text, json.dumps(i.metadata))
                for i in batch
            ),
        )
        self.db.execute("COMMIT")

    def finish(self) -> None:
        pass

    def query(self, vector: np.ndarray, brand: str | None) -> list[str]:
        where, more = ("AND brand = ?", (brand,)) if brand else ("", ())
        found = self.db.execute(
            "SELECT id, text, metadata FROM items WHERE vector MATCH ? AND k = 10"
            f" {where} ORDER BY distance",
            (vector.tobytes(), *more),
        )
        return [id for id, _, _ in found]


STORES: dict[str, Callable[[Path], Benchmarked]] = {
    "idiolect": Ours,
    "LanceDB": Lance,
    "sqlite-vec": SqliteVec,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    found = vectors(options.items, 1)
    queries = vectors(QUERIES, 2)
    everything = items(0, found)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        stores = {name: make(folder) for name, make in STORES.items()}
        writing = {name: _write(store, everything) for name, store in stores.items()}
        querying = _query(stores, found, everything, queries)
        _show(writing, querying, options.items)
        busy = {name: _query_while_writing(name, folder, queries, options) for name in STORES}
        _show_while_writing(busy, options)


def _write(store: Benchmarked, everything: list[Item]) -> tuple[float, float]:
    """Return upserts per second, and the seconds to merge or index afterwards."""
    began = time.perf_counter()
    for start in range(0, len(everything), BATCH):
        store.write(everything[start : start + BATCH])
    written = time.perf_counter()
    store.finish()
    return len(everything) / (written - began), time.perf_counter() - written


def _query(
    stores: dict[str, Benchmarked], found: np.ndarray, everything: list[Item], queries: np.ndarray
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return p50 and p99 in ms and recall, without a filter and with one that keeps 1%."""
    results: dict[str, dict[str, tuple[float, float, float]]] = {name: {} for name in stores}
    for kind in ("all", "1%"):
        times: dict[str, list[float]] = {name: [] for name in stores}
        correct = dict.fromkeys(stores, 0)
        for number, query in enumerate(queries):
            brand = None if kind == "all" else f"brand-{number % BRANDS}"
            scores = found @ query
            if brand:
                scores[np.arange(len(found)) % BRANDS != number % BRANDS] = -2
            true = {everything[n].id for n in np.argpartition(-scores, 10)[:10]}
            for name, store in stores.items():
                if number == 0:
                    store.query(query, brand)  # warm-up
                began = time.perf_counter()
                got = store.query(query, brand)
                times[name].append(1000 * (time.perf_counter() - began))
                correct[name] += len(true & set(got))
        for name in stores:
            median, p99 = np.percentile(times[name], [50, 99])
            results[name][kind] = (median, p99, correct[name] / (10 * len(queries)))
    return results


def time_queries(store: Any, queries: np.ndarray, go: Any, seconds: float) -> list[float]:
    """Wait for the other processes, query until the time is over, and return the milliseconds."""
    store.query(queries[0], None)
    times = []
    go.wait()
    end = time.perf_counter() + seconds
    number = os.getpid()
    while (began := time.perf_counter()) < end:
        number += 1
        store.query(queries[number % len(queries)], None)
        times.append(1000 * (time.perf_counter() - began))
    return times


def _reader(
    name: str, folder: Path, queries: np.ndarray, go: Any, seconds: float, out: Any
) -> None:
    out.put(time_queries(STORES[name](folder), queries, go, seconds))


def _query_while_writing(
    name: str, folder: Path, queries: np.ndarray, options: argparse.Namespace
) -> tuple[float, float, float, float]:
    """Return queries per second, their p50 and p99 in ms, and upserts per second."""
    context = multiprocessing.get_context("spawn")
    out, go = context.Queue(), context.Barrier(options.readers + 1)
    arguments = (name, folder, queries, go, options.seconds, out)
    readers = [context.Process(target=_reader, args=arguments) for _ in range(options.readers)]
    for reader in readers:
        reader.start()
    store = STORES[name](folder)
    fresh = vectors(20_000, 3)
    go.wait()
    began, written = time.perf_counter(), 0
    while time.perf_counter() - began < options.seconds:
        store.write(items(10**6 + written, fresh[written % 20_000 :][:50]))
        written += 50
    speed = written / (time.perf_counter() - began)
    times = [one for _ in readers for one in out.get()]
    for reader in readers:
        reader.join()
    median, p99 = np.percentile(times, [50, 99])
    return len(times) / options.seconds, median, p99, speed


def _show(
    writing: dict[str, tuple[float, float]],
    querying: dict[str, dict[str, tuple[float, float, float]]],
    count: int,
) -> None:
    table = Table(title=f"{count:,} items of {DIMENSIONS} dimensions, batches of {BATCH}")
    for column in ("", "upserts/s", "index s", "p50 ms", "p99 ms", "recall"):
        table.add_column(column, justify="right" if column else "left")
    for column in ("1%: p50 ms", "p99 ms", "recall"):
        table.add_column(column, justify="right")
    for name, (speed, index) in writing.items():
        cells = [f"{speed:,.0f}", f"{index:.1f}"]
        for median, p99, recall in querying[name].values():
            cells += [f"{median:.2f}", f"{p99:.2f}", f"{recall:.3f}"]
        table.add_row(name, *cells)
    Console(width=100).print(table)
    for other in list(writing)[1:]:
        ratios = [
            writing["idiolect"][0] / writing[other][0],
            *(querying[other][k][0] / querying["idiolect"][k][0] for k in ("all", "1%")),
        ]
        if other == "LanceDB":
            what = f"of the embedded store, as a multiple of LanceDB, {count:,} items"
            figure("store.lancedb", f"{ratios[1]:.0f}", f"queries a second {what}")
            figure("store.upserts", f"{ratios[0]:.1f}", f"upserts a second {what}")
        ratios_text = "upserts {:.2f}x, queries {:.2f}x, filtered queries {:.2f}x".format(*ratios)
        print(f"speed-up of idiolect over {other}: {ratios_text}")


def _show_while_writing(
    busy: dict[str, tuple[float, float, float, float]], options: argparse.Namespace
) -> None:
    table = Table(title=f"{options.readers} processes query, one writes batches of 50")
    for column in ("", "queries/s", "p50 ms", "p99 ms", "upserts/s"):
        table.add_column(column, justify="right" if column else "left")
    for name, (rate, median, p99, speed) in busy.items():
        table.add_row(name, f"{rate:,.0f}", f"{median:.2f}", f"{p99:.2f}", f"{speed:,.0f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
