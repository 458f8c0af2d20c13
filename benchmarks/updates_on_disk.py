"""Updates of a store on disk while it is searched: recall against exact search, and latencies.

    python benchmarks/updates_on_disk.py [--rows 100000] [--rounds 200] [--scratch FOLDER]

The store starts with 90% of the vectors. In each round one batch is upserted, of vectors that are
new or replace others, a few items are deleted, and queries are answered, while merges run in the
background. Recall@10 is computed in each round against exact search of what the store then holds.
The results are printed for the rounds during a merge and for the others.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import numpy as np

from idiolect.search.items import Item
from idiolect.search.store.store import Store
from mixture import load_mixture

K, QUERIES = 10, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--merge-after", type=int, default=10_000)
    parser.add_argument("--memory", choices=("disk", "ram"), default="disk")
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/idiolect-ann"))
    given = parser.parse_args()
    given.scratch.mkdir(exist_ok=True, parents=True)
    points, queries, _ = load_mixture(given.scratch, given.rows)
    folder = given.scratch / "updated"
    shutil.rmtree(folder, ignore_errors=True)
    options = {"dimensions": points.shape[1], "memory": given.memory}
    held = np.zeros(given.rows, np.int64) - 1  # the vector of each id
    first = given.rows * 9 // 10
    with Store.open(folder, background=False, **options) as store:
        for start in range(0, first, 1000):
            write(store, np.arange(start, min(start + 1000, first)), points, held)
        store.merge()
    rng = np.random.default_rng(0)
    results: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with Store.open(folder, merge_after=given.merge_after, **options) as store:
        store.query(queries[0], K)  # loads the kernels
        for _ in range(given.rounds):
            ids = rng.choice(given.rows, given.batch, replace=False)
            write(store, ids, points, held, rng.integers(0, given.rows, given.batch))
            gone = rng.choice(np.flatnonzero(held >= 0), given.batch // 10, replace=False)
            store.delete(map(str, gone))
            held[gone] = -1
            live = np.flatnonzero(held >= 0)
            for query in queries[rng.choice(len(queries), QUERIES, replace=False)]:
                merging = store._merger._thread is not None and store._merger._thread.is_alive()
                begin = time.perf_counter()
                found = {int(hit.id) for hit in store.query(query, K)}
                milliseconds = 1000 * (time.perf_counter() - begin)
                scores = points[held[live]] @ query
                # vectors may be equal: an id counts if its score is among the best
                limit = np.partition(scores, -K)[-K] - 1e-6
                good = set(live[scores >= limit].tolist())
                results[merging].append((len(found & good) / K, milliseconds))
    for merging, rounds in results.items():
        if rounds:
            recalls, times = np.array(rounds).T
            p50, p99 = np.percentile(times, [50, 99])
            print(
                f"{'during merges' if merging else 'between merges':15} {len(times):6,} queries:"
                f" recall {recalls.mean():.4f}, least of 20 queries"
                f" {recalls[: len(recalls) // 20 * 20].reshape(-1, 20).mean(1).min():.3f},"
                f" p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {times.max():.0f} ms"
            )


def write(
    store: Store,
    ids: np.ndarray,
    points: np.ndarray,
    held: np.ndarray,
    rows: np.ndarray | None = None,
) -> None:
    """Upsert items with the vectors of rows, by default of their ids."""
    rows = ids if rows is None else rows
    store.upsert(
        [Item(str(id), f"item {id}", {}, points[row]) for id, row in zip(ids, rows, strict=True)]
    )
    held[ids] = rows


if __name__ == "__main__":
    main()
