"""A process that builds an index and prints its progress, for tests that kill it.

    python builder.py FOLDER

For each item read, it prints the numbers of items read and encoded; at the end, a summary.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from idiolect.search.index import Index
from idiolect.search.items import Item
from search.words import Words

ITEMS = 10_500
"""Enough for a graph."""


def encoder() -> Any:
    return Words(dimensions=16)


def items() -> Iterator[Item]:
    for n in range(ITEMS):
        yield Item(f"i{n}", f"kind{n % 97} shape{n % 31} number{n}", {"kind": n % 97})


def main(folder: str) -> None:
    words = encoder()

    def reported_items() -> Iterator[Item]:
        for n, item in enumerate(items(), 1):
            print(f"{n} {len(words.encoded)}", flush=True)
            yield item

    with Index.build(folder, words, reported_items()) as index:
        counts = index.counts
        print(f"written {counts['written']}, unchanged {counts['unchanged']}", end=", ")
        print(f"encoded {len(words.encoded)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
