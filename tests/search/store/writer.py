"""A process that writes to a store and prints what it begins and finishes, until it is killed.

    python writer.py FOLDER FIRST [LAST [WAIT]]

Operation n depends on n alone, so its output determines what the store must contain.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from idiolect.search.items import Item
from idiolect.search.store.store import Store
from search.things import DIMENSIONS, vector

MERGE_AFTER = 50
IDS = 400


class Operation:
    """One call on the store, and its effect on a plain dictionary."""

    def __init__(self, number: int) -> None:
        rng = np.random.default_rng(number)
        kinds = ("upsert", "upsert", "upsert", "delete", "update", "filter", "merge", "compact")
        self.kind = str(rng.choice(kinds))
        self.ids = [f"t{n}" for n in rng.choice(IDS, size=20, replace=False)]
        self.number = number

    def items(self) -> Iterator[Item]:
        for place, id in enumerate(self.ids):
            seed = 100 * self.number + place
            metadata = {"written": self.number, "odd": place % 2 == 1}
            yield Item(id, f"{id} of operation {self.number}", metadata, vector(seed))

    def apply(self, store: Store) -> None:
        match self.kind:
            case "upsert":
                store.upsert(list(self.items()))
            case "delete":
                store.delete(self.ids)
            case "update":
                if self.ids[0] in store.fetch(self.ids[:1]):
                    store.update(self.ids[0], text="updated", metadata={"updated": self.number})
            case "filter":
                if store.list(limit=1):
                    store.delete(filter={"odd": {"$exists": True}, "written": self.number - 9})
            case "merge":
                store.merge()
            case "compact":
                store.compact()

    def model(self, items: dict[str, Item]) -> dict[str, Item]:
        after = dict(items)
        match self.kind:
            case "upsert":
                after |= {item.id: item for item in self.items()}
            case "delete":
                after = {id: item for id, item in after.items() if id not in self.ids}
            case "update":
                if old := after.get(self.ids[0]):
                    metadata = {**old.metadata, "updated": self.number}
                    after[old.id] = Item(old.id, "updated", metadata, old.vector)
            case "filter":
                deleted = self.number - 9
                after = {
                    i: item for i, item in after.items() if item.metadata["written"] != deleted
                }
        return after


def main(folder: str, first: str, last: str = "1000000000", wait: str = "60") -> None:
    store = Store.open(
        folder, dimensions=DIMENSIONS, merge_after=MERGE_AFTER, background=False, wait=float(wait)
    )
    for number in range(int(first), int(last)):
        operation = Operation(number)
        print("begin", number, operation.kind, flush=True)
        operation.apply(store)
        print("done", number, flush=True)
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
