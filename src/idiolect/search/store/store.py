"""`Store`: items with texts, metadata and vectors, in one folder, that loses nothing.

    products/
      ledger.db     SQLite: everything, in one transaction (see `idiolect.search.store.ledger`)
      graphs/       DiskANN graphs made from it, which may be thrown away at any time
      snapshots/    copies of the ledger

What is notable:

- A write is on the disk when the call returns, and any read after it sees it, in every process.
- What no graph holds yet is compared one by one, so results never wait for a merge; merges run in
  the background, beside readers and writers.
- One process writes at a time and a second one waits; readers wait for nobody.

>>> store = Store.open("products", dimensions=384)                       # doctest: +SKIP
>>> store.upsert([Item("p1", "a red lamp", {"price": 20}, vector)])      # doctest: +SKIP
>>> store.query(vector, k=3, filter={"price": {"$lt": 50}})              # doctest: +SKIP
[Hit(id='p1', score=1.0, text='a red lamp', metadata={'price': 20}, highlight='')]
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from idiolect.errors import InputError
from idiolect.search.diskann.metric import Metric
from idiolect.search.filters import parse
from idiolect.search.items import (
    Item,
    change,
    check_deletion,
    check_items,
    check_metric,
    check_name,
    distinct,
    encode_metadata,
)
from idiolect.search.store.integrity import Flaw, find_flaws
from idiolect.search.store.ledger import Ledger
from idiolect.search.store.merger import Merger
from idiolect.search.store.namespace import Namespace
from idiolect.search.store.snapshots import put_back, take
from idiolect.search.store.store_reader import StoreReader, read_items

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from numpy.typing import ArrayLike

__all__ = ["Store"]

_WIDEST = 4096


class Store(StoreReader):
    """An embedded store; open it with `Store.open`, close it or use it as a context.

    May be used by several threads at once. What it reads: `idiolect.search.store.store_reader`.
    """

    def __init__(self, path: Path, wait: float, merge_after: int, background: bool) -> None:
        super().__init__(path, wait)
        self._merger = Merger(
            self._ledger,
            path / "graphs",
            self.metric,
            self.dimensions,
            smallest=merge_after,
            background=background,
        )

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        dimensions: int | None = None,
        metric: Metric = "cosine",
        wait: float = 30.0,
        merge_after: int = 10_000,
        background: bool = True,
    ) -> Self:
        """Open a store, or make one where `dimensions` are given and there is none.

        Args:
            path: its folder.
            dimensions: of its vectors, 2 to 4,096; a store that is there must have as many.
            metric: how vectors of a new store are compared: `cosine`, `inner` or `l2`.
            wait: seconds to wait for another writer.
            merge_after: how many unmerged items a namespace may have before they are merged into
                its graph; also the fewest that are worth a graph.
            background: whether that is done beside the writes, or only by `merge`.

        Raises:
            InputError: there is no store and none is to be made, the folder or the file in it is
                another program's, or the dimensions or the metric differ from the store's.
            CheckpointError: the ledger is damaged.
        """
        path = Path(path)
        if dimensions is not None:
            _make(path, dimensions, metric, wait)
        elif not path.is_dir():
            kind = "is a file, not the folder of an index" if path.exists() else "does not exist"
            raise InputError(f"{path} {kind}", hint="check the path, or build an index there")
        store = cls(path, wait, merge_after, background)
        if dimensions is not None and (store.dimensions, store.metric) != (dimensions, metric):
            store.close()
            raise InputError(
                f"{path} holds vectors of {store.dimensions} dimensions under {store.metric},"
                f" not {dimensions} under {metric}",
                hint="choose another folder",
            )
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for a merge that is under way, and let go of all files."""
        self._merger.close()
        self._ledger.close()
        self._views.clear()

    # Writing

    def remember(self, **settings: str | int) -> None:
        """Keep facts about the store, such as which encoder made its vectors."""
        with self._ledger.writing() as db:
            db.executemany("INSERT OR REPLACE INTO settings VALUES (?, ?)", settings.items())

    def upsert(self, items: Sequence[Item], *, namespace: str = "") -> None:
        """Add items, or replace those with the same ids: all of them or, on an error, none.

        Raises:
            InputError: an item cannot be stored (see `check_items`, `encode_metadata`), or
                another process was writing for longer than the wait.
        """
        check_name(namespace, "namespace")
        vectors = check_items(items, self.dimensions, self.metric)
        metadata = [encode_metadata(item) for item in items]
        with self._ledger.writing() as db:
            space = Namespace.create(db, namespace)
            space.put(items, metadata, vectors)
        self._merger.wrote(space.number, len(items))

    def update(
        self,
        id: str,
        *,
        text: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        vector: ArrayLike | None = None,
        namespace: str = "",
    ) -> None:
        """Change parts of one item; what is not given stays.

        Args:
            id: of the item.
            text: its new text.
            metadata: fields to set; None as a value removes a field.
            vector: (dimensions,) its new vector.
            namespace: of the item.

        Raises:
            InputError: there is no such item, or the result cannot be stored.
        """
        with self._ledger.writing() as db:
            space = Namespace.find(db, namespace)
            rows = list(space.rows([id])) if space is not None else []
            if space is None or not rows:
                raise InputError(
                    f"no item {id!r} in namespace {namespace!r}", hint="upsert adds new items"
                )
            (old,) = read_items(space, rows, vectors=True)
            item = change(old, text, metadata, vector)
            vectors = check_items([item], self.dimensions, self.metric)
            space.put([item], [encode_metadata(item)], vectors)
        self._merger.wrote(space.number, 1)

    def delete(
        self,
        ids: Iterable[str] | None = None,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
    ) -> int:
        """Delete items by id or by filter, and return how many there were.

        Raises:
            InputError: not exactly one of `ids` and `filter` is given, or the filter is malformed.
        """
        check_deletion(ids, filter)
        wanted = [] if ids is None else distinct(ids)
        node = None if filter is None else parse(filter)
        with self._ledger.writing() as db:
            space = Namespace.find(db, namespace)
            if space is None:
                return 0
            if node is None:
                rows = list(space.rows(wanted))
            else:
                rows = list(space.numbered(space.matching(node).tolist()))
            space.remove(rows)
        self._merger.wrote(space.number, len(rows))
        return len(rows)

    def drop(self, namespace: str = "") -> int:
        """Delete a whole namespace, and return how many items it had."""
        with self._ledger.writing() as db:
            space = Namespace.find(db, namespace)
            if space is None:
                return 0
            count = space.count()
            space.drop()
        return count

    # Keeping

    def merge(self, *, rebuild: bool = False) -> None:
        """Bring all graphs up to date now.

        Args:
            rebuild: make them again from the ledger, whatever there is.
        """
        with self._ledger.reading() as db:
            numbers = [number for (number,) in db.execute("SELECT number FROM namespaces")]
        for number in numbers:
            self._merger.merge(number, rebuild=rebuild)

    def snapshot(self, name: str) -> Path:
        """Copy the present state of the ledger, and return the copy's path.

        Raises:
            InputError: the name cannot be a file's, or is taken.
        """
        return take(self._ledger, self.path / "snapshots", name)

    def restore(self, name: str) -> None:
        """Make the store what it was when a snapshot was taken.

        Raises:
            InputError: there is no such snapshot.
            CheckpointError: it is damaged.
        """
        put_back(self._ledger, self.path / "snapshots", name)
        self.merge()

    def verify(self) -> Iterator[Flaw]:
        """Yield everything that is damaged, comparing all that is kept twice."""
        return find_flaws(self._ledger, self.path / "graphs", self.dimensions)

    def compact(self, *, rebuild: bool = False) -> None:
        """Merge everything and give room back to the disk.

        Args:
            rebuild: make words, filters and graphs again from the items.
        """
        with self._ledger.writing() as db:
            for (number,) in db.execute("SELECT number FROM namespaces").fetchall():
                space = Namespace(db, number)
                if rebuild:
                    space.rebuild()
                space.words.optimise()
        self.merge(rebuild=rebuild)
        with self._ledger.connection() as db:
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _make(path: Path, dimensions: int, metric: Metric, wait: float) -> None:
    if not 2 <= dimensions <= _WIDEST:
        raise InputError(f"{dimensions} dimensions", hint=f"from 2 to {_WIDEST:,} can be searched")
    check_metric(metric)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file", hint="an index is a folder; choose another name")
    ledger = path / "ledger.db"
    if path.is_dir() and not ledger.exists() and any(path.iterdir()):
        raise InputError(
            f"{path} is not empty and holds no index; nothing was changed",
            hint="choose another folder",
        )
    path.mkdir(parents=True, exist_ok=True)
    Ledger.create(ledger, wait, {"dimensions": dimensions, "metric": metric})
