"""A process that builds an index until it is killed, saying how far it is.

    python builder.py FOLDER

For each item drawn it prints how many there were and how many are encoded; at the end, what it did.
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
"""Enough to be worth a graph."""


def encoder() -> Any:
    return Words(dimensions=16)


def items() -> Iterator[Item]:
    for n in range(ITEMS):
        yield Item(f"i{n}", f"kind{n % 97} shape{n % 31} number{n}", {"kind": n % 97})


def main(folder: str) -> None:
    words = encoder()

    def drawn() -> Iterator[Item]:
        for n, item in enumerate(items(), 1):
            print(n, len(words.encoded), flush=True)
            yield item

    with Index.build(folder, words, drawn()) as index:
        done = index.counts
        print(f"written {done['written']}, unchanged {done['unchanged']}", end=", ")
        print(f"encoded {len(words.encoded)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
