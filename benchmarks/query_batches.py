"""Searches of an index by a matrix of vectors, beside one search for each of its rows.

    python benchmarks/query_batches.py --items 20000

Both sides search the same index in one process, alternating, on one thread; the figures are queries
a second of processor time, the median of several rounds. With fewer than 10,000 items there is no
graph, and all vectors are compared.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from idiolect import Index, Item

QUERIES, DIMENSIONS, CENTRES = 1000, 384, 200


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CENTRES, DIMENSIONS))
    near = centres[rng.integers(0, CENTRES, options.items + QUERIES)]
    vectors = (near + 0.7 * rng.normal(size=near.shape)).astype(np.float32)
    queries, vectors = vectors[:QUERIES], vectors[QUERIES:]
    items = (Item(f"{n}", "", {"part": n % 10}, vector) for n, vector in enumerate(vectors))
    with (
        tempfile.TemporaryDirectory() as folder,
        Index.build(Path(folder, "index"), None, items) as index,
    ):
        for name, filter in (("all items", None), ("half of them", {"part": {"$lt": 5}})):
            sides = {
                "matrix": lambda: index.search_vectors(queries, filter=filter),
                "rows": lambda: [index.search_vectors(one, filter=filter)[0] for one in queries],
            }
            found = {side: search() for side, search in sides.items()}  # and warm up
            same = sum(
                len({a.id for a in many} & {b.id for b in one})
                for many, one in zip(*found.values(), strict=True)
            )
            seconds: dict[str, list[float]] = {side: [] for side in sides}
            for _ in range(options.rounds):
                for side, search in sides.items():
                    began = time.process_time()
                    search()
                    seconds[side].append(time.process_time() - began)
            rate = {side: QUERIES / statistics.median(spent) for side, spent in seconds.items()}
            print(
                f"{name}: {rate['matrix']:,.0f} queries/s as a matrix, {rate['rows']:,.0f} one by"
                f" one: {rate['matrix'] / rate['rows']:.1f} x; {same / QUERIES / 10:.1%} agree"
            )


if __name__ == "__main__":
    main()
