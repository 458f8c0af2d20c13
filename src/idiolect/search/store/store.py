"""`Store`: a durable, embedded store of items with texts, metadata and vectors, in one folder.

    products/
      ledger.db     the SQLite database with all data (see `idiolect.search.store.ledger`)
      graphs/       DiskANN graphs derived from it, which can be deleted at any time
      snapshots/    copies of the ledger

Guarantees:

- A write is on disk when the call returns, and every later read in any process sees it.
- Searches see unmerged items: these are compared one by one. Merges into the graph run in the
  background and block neither readers nor writers.
- One process writes at a time and others wait. Readers never wait.

>>> store = Store.open("products", dimensions=384)                       # doctest: +SKIP
>>> store.upsert([Item("p1", "a red lamp", {"price": 20}, vector)])      # doctest: +SKIP
>>> store.query(vector, top_k=3, filter={"price": {"$lt": 50}})              # doctest: +SKIP
[Hit(id='p1', score=1.0, text='a red lamp', metadata={'price': 20}, highlight='')]
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from idiolect.errors import CheckpointError, InputError
from idiolect.search.diskann.metric import Metric
from idiolect.search.filters import parse
from idiolect.search.items import (
    Item,
    change,
    check_deletion,
    check_items,
    check_name,
    distinct,
)
from idiolect.search.metadata import check_labels, encode_metadata
from idiolect.search.store.graphs.graph_writer import GraphWriter
from idiolect.search.store.graphs.merger import Merger
from idiolect.search.store.ledger import damaged
from idiolect.search.store.lexical_terms import check_language
from idiolect.search.store.namespace import Namespace
from idiolect.search.store.snapshots import restore_snapshot, take_snapshot
from idiolect.search.store.store_reader import StoreReader, load_items
from idiolect.search.store.store_settings import (
    Memory,
    check_label_field,
    create_store,
    remember_memory,
)
from idiolect.text.arguments import check_path
from idiolect.text.suggestions import similar_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from numpy.typing import ArrayLike

    from idiolect.search.store.integrity import Damage

__all__ = ["Memory", "Store"]


class Store(StoreReader):
    """An embedded store. Open it with `Store.open`; close it, or use it as a context manager.

    It is safe for concurrent use by several threads.
    """

    def __init__(self, path: Path, wait: float, merge_after: int, background: bool) -> None:
        super().__init__(path, wait)
        settings = self.settings
        self._label_field: str | None = settings.get("label_field")
        limit = settings.get("memory_limit")
        self._merger = Merger(
            self._ledger,
            path / "graphs",
            GraphWriter(
                path / "graphs",
                self.metric,
                self.dimensions,
                on_disk=settings.get("memory") == "disk",
                memory_limit=None if limit is None else int(limit),
                unmerged=merge_after,
                label_field=self._label_field,
            ),
            min_items=merge_after,
            background=background,
        )

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        dimensions: int | None = None,
        metric: Metric = "cosine",
        language: str | None = None,
        wait: float = 30.0,
        merge_after: int = 10_000,
        background: bool = True,
        memory: Memory | None = None,
        memory_limit: int | str | None = None,
        label_field: str | None = None,
    ) -> Self:
        """Open a store; create it if `dimensions` are given and it does not exist.

        Args:
            path: the folder of the store.
            dimensions: width of the vectors, 2 to 4,096; an existing store must have the same.
            metric: metric of a new store: `cosine`, `inner` or `l2`.
            language: language of the texts, for stemming: a code such as `en` or `de`, or `none`;
                see `idiolect.search.store.lexical_terms`. By default `en` for a new store; an
                existing store must have the same.
            wait: seconds to wait for another writer.
            merge_after: the number of unmerged items in a namespace that triggers a merge into its
                graph. A namespace with fewer items has no graph.
            background: whether merges run automatically in a background thread, or only when
                `merge` is called.
            memory: where graphs keep vectors and edges during a search: `ram`, the default of a new
                store, or `disk`, where only codes of at most a sixteenth of the vectors' size (a
                quarter up to 32 dimensions) are in memory. The setting is stored; the next merge
                applies it to an existing store.
            memory_limit: memory limit of the process during merges with `disk`: bytes, or a text
                such as `2GB`. It is stored. By default the current memory of the process plus an
                eighth of the vectors (at least 256 MiB).
            label_field: for a new store on disk, a metadata field with one value per item, such as
                its category. The graph gets extra edges among the items with the same value, so
                that filters that select one value, alone or with other conditions, are faster.

        Raises:
            InputError: the store does not exist and `dimensions` are missing, the folder or the
                file in it belongs to another program, or the dimensions, the metric, the
                language or the label field are not those of the store.
            CheckpointError: the ledger is damaged.
        """
        path = check_path(path, "path")
        if dimensions is not None:
            settings: dict[str, str | int] = {
                "dimensions": dimensions,
                "metric": metric,
                "language": check_language(language or "en"),
            }
            if label_field is not None:
                settings["label_field"] = check_label_field(label_field, memory)
            create_store(path, settings, wait)
        elif not path.is_dir():
            problem = "is a file, not an index folder" if path.exists() else "does not exist"
            hint = similar_path(path) or "check the path, or build an index there"
            raise InputError(f"{path} {problem}", hint=hint)
        if memory is not None or memory_limit is not None:
            remember_memory(path, memory, memory_limit, wait)
        store = cls(path, wait, merge_after, background)
        if dimensions is not None and (store.dimensions, store.metric) != (dimensions, metric):
            store.close()
            raise InputError(
                f"{path} has vectors of {store.dimensions} dimensions with metric {store.metric},"
                f" not {dimensions} with metric {metric}",
                hint="choose another folder",
            )
        for name, wanted in (("language", language), ("label_field", label_field)):
            stored = store.settings.get(name)
            if wanted is not None and stored != wanted:
                store.close()
                raise InputError(
                    f"{path} was built with the {name.replace('_', ' ')} {stored}, not {wanted}",
                    hint="choose another folder",
                )
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for a running merge, and close all files."""
        self._merger.close()
        self._opener.close()
        self._ledger.close()
        self._views.clear()

    # Writing

    @property
    def is_writable(self) -> bool:
        """Whether the folder may be written; a store in one that may not is open for reading."""
        return self._ledger.is_writable

    def remember(self, **settings: str | int) -> None:
        """Store settings, such as the fingerprint of the encoder."""
        with self._ledger.writing() as db:
            db.executemany("INSERT OR REPLACE INTO settings VALUES (?, ?)", settings.items())

    def upsert(self, items: Sequence[Item], *, namespace: str = "") -> None:
        """Add items, or replace those with the same ids. On an error, none is written.

        Raises:
            InputError: an item is not valid (see `check_items`, `encode_metadata`), or another
                process was still writing at the end of the wait.
        """
        check_name(namespace, "namespace")
        vectors = check_items(items, self.dimensions, self.metric)
        items, metadata = encode_metadata(items)
        check_labels(items, self._label_field)
        with self._ledger.writing() as db:
            space = Namespace.create(db, namespace)
            space.put(items, metadata, vectors, self._label_field)
        self._merger.record_write(space.number, len(items))

    def update(
        self,
        id: str,
        *,
        text: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        vector: ArrayLike | None = None,
        namespace: str = "",
    ) -> None:
        """Change fields of one item; omitted fields stay unchanged.

        Args:
            id: the id of the item.
            text: the new text.
            metadata: fields to set; the value None removes a field.
            vector: (dimensions,) the new vector.
            namespace: the namespace of the item.

        Raises:
            InputError: the item does not exist, or the result is not valid.
        """
        with self._ledger.writing() as db:
            space = Namespace.find(db, namespace)
            rows = list(space.rows([id])) if space is not None else []
            if space is None or not rows:
                raise InputError(f"no item {id!r} in namespace {namespace!r}", hint="add it first")
            (old,) = load_items(space, rows, self._ledger.path, vectors=True)
            changed = [change(old, text, metadata, vector)]
            vectors = check_items(changed, self.dimensions, self.metric)
            changed, texts = encode_metadata(changed)
            check_labels(changed, self._label_field)
            space.put(changed, texts, vectors, self._label_field)
        self._merger.record_write(space.number, 1)

    def delete(
        self,
        ids: Iterable[str] | None = None,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
    ) -> int:
        """Delete items by id or by filter, and return how many were deleted.

        Raises:
            InputError: not exactly one of `ids` and `filter` is given, or the filter is malformed.
        """
        check_deletion(ids, filter)
        unique_ids = [] if ids is None else distinct(ids)
        node = None if filter is None else parse(filter)
        with self._ledger.writing() as db:
            space = Namespace.find(db, namespace)
            if space is None:
                return 0
            if node is None:
                rows = list(space.rows(unique_ids))
            else:
                rows = list(space.by_row(space.matching(node).tolist()))
            space.remove(rows)
        self._merger.record_write(space.number, len(rows))
        return len(rows)

    def drop(self, namespace: str = "") -> int:
        """Delete a whole namespace, and return how many items it had."""
        with self._ledger.writing() as db:
            space = Namespace.find(db, namespace)
            if space is None:
                return 0
            count = space.count()
            space.drop()
        with self._ledger.reading() as db, self._lock:
            self._forget_dropped(db)
        self._merger.clean()
        return count

    # Maintenance

    def merge(self, *, rebuild: bool = False) -> None:
        """Update all graphs now.

        Args:
            rebuild: build them from scratch even if they could be updated.
        """
        with self._ledger.reading() as db:
            numbers = [number for (number,) in db.execute("SELECT number FROM namespaces")]
        for number in numbers:
            graph = self._merger.merge(number, rebuild=rebuild)
            if graph:
                with contextlib.suppress(CheckpointError):  # a later merge has removed it
                    self._opener.prepare(number, graph)
        self._merger.clean()

    def merge_due(self) -> None:
        """Start background merges that are due after writes of other processes.

        A process that writes starts its merges by itself, if it was opened with `background`. Call
        this now and then in one process if others were not.
        """
        self._merger.start_due()

    def snapshot(self, name: str) -> Path:
        """Copy the current state of the ledger, and return the path of the copy.

        Raises:
            InputError: the name is not valid, or already exists.
        """
        return take_snapshot(self._ledger, self.path / "snapshots", name)

    def restore(self, name: str) -> None:
        """Return the store to the state of a snapshot.

        Raises:
            InputError: the snapshot does not exist.
            CheckpointError: the snapshot is damaged.
        """
        restore_snapshot(self._ledger, self.path / "snapshots", name)
        self.merge()

    def verify(self) -> Iterator[Damage]:
        """Yield all damage, found by comparing redundant data and recomputing checksums.

        Raises:
            InputError: another process was still writing at the end of the wait.
        """
        from idiolect.search.store.integrity import find_damage

        return find_damage(self._ledger, self.path / "graphs", self.dimensions)

    def compact(self, *, rebuild: bool = False) -> None:
        """Merge all namespaces, and free unused disk space.

        Args:
            rebuild: also rebuild the full-text indexes, the metadata indexes and the graphs.

        Raises:
            CheckpointError: the metadata of an item is damaged; nothing was changed.
        """
        with self._ledger.writing() as db:
            for (number,) in db.execute("SELECT number FROM namespaces").fetchall():
                space = Namespace(db, number)
                if rebuild:
                    try:
                        space.rebuild()
                    except ValueError as error:
                        raise damaged(self._ledger.path, error) from error
                space.lexical.optimize()
        self.merge(rebuild=rebuild)
        with self._ledger.connection() as db:
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
