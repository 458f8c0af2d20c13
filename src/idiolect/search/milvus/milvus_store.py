"""`MilvusStore`: the interface of `Store` on a Milvus cluster, for data beyond one machine.

A store is one collection. The namespace is its partition key, so a search reads one namespace only.
Milvus searches vectors with its DISKANN index and texts with its BM25 index, and manages shards,
replicas and merges.

Differences from `Store`:

- A batch is not one transaction: a failure in the middle leaves its first part written. It is safe
  to write the batch again.
- A text has at most 65,535 bytes, and a whole number in metadata 64 bits.
- `$gt`, `$gte`, `$lt` and `$lte` compare single values, not the elements of lists.
- `items` has no defined order. `list` reads all matching ids and sorts them.

Filters: see `idiolect.search.milvus.expressions`.
"""

from __future__ import annotations

import heapq
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from idiolect.errors import InputError
from idiolect.search.diskann.metric import Metric
from idiolect.search.filters import Condition, conditions, parse
from idiolect.search.items import (
    Hit,
    Hits,
    Item,
    change,
    check_count,
    check_deletion,
    check_items,
    check_metric,
    check_name,
    check_queries,
    check_query,
    distinct,
)
from idiolect.search.metadata import encode_metadata
from idiolect.search.milvus.expressions import expression, metadata_hashes, quote
from idiolect.search.milvus.milvus_collection import MAX_HASHES, MAX_TEXT_BYTES, MilvusCollection
from idiolect.search.store.description import Description, NamespaceDescription

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike

__all__ = ["MilvusStore"]

_PAGE = 1000
_FIELDS = ["id", "text", "metadata"]
# Values of the field `kind`: an item, the name of a namespace, or the settings.
_ITEM, _NAMESPACE, _SETTINGS = "i", "n", "s"


class MilvusStore:
    """A store in one collection of a Milvus cluster; open it with `MilvusStore.open`."""

    def __init__(self, collection: MilvusCollection) -> None:
        self._collection = collection
        self.dimensions = collection.dimensions
        self.metric: Metric = collection.metric

    @classmethod
    def open(
        cls,
        uri: str,
        collection: str,
        *,
        token: str = "",
        dimensions: int | None = None,
        metric: Metric = "cosine",
        shards: int = 1,
    ) -> Self:
        """Open a collection; create it if `dimensions` are given and it does not exist.

        Args:
            uri: the address of the cluster, such as `http://milvus:19530`, or a file for Milvus
                Lite.
            collection: the name of the collection.
            token: `user:password`, if the cluster requires it.
            dimensions: of the vectors; an existing collection must have the same.
            metric: of a new collection: `cosine`, `inner` or `l2`.
            shards: of a new collection; writes are distributed over them.

        Raises:
            MissingDependencyError: `pymilvus` is not installed.
            InputError: the collection does not exist and `dimensions` are missing, it belongs to
                another program, or its dimensions or metric differ.
            CheckpointError: the cluster rejects a request or is unreachable.
        """
        check_metric(metric)
        create = None if dimensions is None else (dimensions, metric, shards)
        store = cls(MilvusCollection.open(uri, collection, token, create))
        if dimensions is not None and (store.dimensions, store.metric) != (dimensions, metric):
            store.close()
            raise InputError(
                f"collection {collection!r} has vectors of {store.dimensions} dimensions with"
                f" metric {store.metric}, not {dimensions} with metric {metric}",
                hint="choose another name",
            )
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._collection.close()

    @property
    def settings(self) -> dict[str, Any]:
        """All stored settings, including the dimensions and the metric."""
        found = self._collection.query(f'kind == "{_SETTINGS}"', ["metadata"], 1)
        fixed = {"dimensions": self.dimensions, "metric": self.metric}
        return {**(found[0]["metadata"] if found else {}), **fixed}

    def remember(self, **settings: str | int) -> None:
        """Store settings; see `Store.remember`."""
        self._collection.write([self._marker(_SETTINGS, "", {**self.settings, **settings})])

    # Writing

    def upsert(self, items: Sequence[Item], *, namespace: str = "") -> None:
        """Add items, or replace those with the same ids; see `Store.upsert`."""
        check_name(namespace, "namespace")
        vectors = check_items(items, self.dimensions, self.metric)
        rows = [
            self._row(item, vector, namespace)
            for item, vector in zip(encode_metadata(items)[0], vectors, strict=True)
        ]
        # Another client may have dropped the namespace, so each batch registers it again.
        self._collection.write([self._marker(_NAMESPACE, namespace, {}), *rows])

    def update(
        self,
        id: str,
        *,
        text: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        vector: ArrayLike | None = None,
        namespace: str = "",
    ) -> None:
        """Change fields of one item; see `Store.update`."""
        found = self.fetch([id], namespace=namespace, vectors=True)
        if id not in found:
            raise InputError(f"no item {id!r} in namespace {namespace!r}", hint="add it first")
        self.upsert([change(found[id], text, metadata, vector)], namespace=namespace)

    def delete(
        self,
        ids: Iterable[str] | None = None,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
    ) -> int:
        """Delete items by id or by filter; see `Store.delete`."""
        check_deletion(ids, filter)
        if ids is not None:
            keys = [_key(namespace, id) for id in self.fetch(ids, namespace=namespace)]
            for start in range(0, len(keys), _PAGE):
                self._collection.delete_keys(keys[start : start + _PAGE])
            return len(keys)
        where = self._where(namespace, filter)
        if where is None or not (count := self._collection.count(where)):
            return 0
        self._collection.delete(where)
        return count

    def drop(self, namespace: str = "") -> int:
        """Delete a whole namespace, and return how many items it had."""
        where = _in_namespace(namespace)
        count = self._collection.count(where)
        self._collection.delete(where)
        self._collection.delete_keys([f"{_NAMESPACE}:{namespace}"])
        return count

    # Reading

    def fetch(
        self, ids: Iterable[str], *, namespace: str = "", vectors: bool = False
    ) -> dict[str, Item]:
        """Return the items with the given ids, in that order; unknown ids are skipped."""
        unique_ids = distinct(ids)
        fields = [*_FIELDS, "vector"] if vectors else _FIELDS
        found: dict[str, Item] = {}
        for start in range(0, len(unique_ids), _PAGE):
            keys = [_key(namespace, id) for id in unique_ids[start : start + _PAGE]]
            found |= {row["id"]: _item(row) for row in self._collection.get(keys, fields)}
        return {id: found[id] for id in unique_ids if id in found}

    def items(self, *, namespace: str = "", vectors: bool = False) -> Iterator[Item]:
        """Stream all items, in no defined order."""
        fields = [*_FIELDS, "vector"] if vectors else _FIELDS
        yield from map(_item, self._collection.scan(_in_namespace(namespace), fields))

    def list(
        self, prefix: str = "", *, after: str = "", limit: int = 100, namespace: str = ""
    ) -> Sequence[str]:
        """Return up to `limit` sorted ids that start with `prefix` and come after `after`."""
        for name, what in ((prefix, "prefix"), (after, "id")):
            check_name(name, what)
        where = _in_namespace(namespace)
        if prefix:
            end = f"{prefix}\U0010ffff"
            where += f" and id >= {quote(prefix)} and id < {quote(end)}"
        if after:
            where += f" and id > {quote(after)}"
        return heapq.nsmallest(limit, (row["id"] for row in self._collection.scan(where, ["id"])))

    def namespaces(self) -> dict[str, int]:
        """Return the number of items in each namespace."""
        where = f'kind == "{_NAMESPACE}"'
        names = sorted(row["id"] for row in self._collection.scan(where, ["id"]))
        return {name: self._collection.count(_in_namespace(name)) for name in names}

    def describe(self) -> Description:
        """Return a summary of the store, without metadata fields and size on disk."""
        spaces = {
            name: NamespaceDescription(items, unmerged=0, fields=None)
            for name, items in self.namespaces().items()
        }
        return Description(self.dimensions, self.metric, None, (), spaces)

    def query(
        self,
        vector: ArrayLike,
        top_k: int = 10,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
    ) -> Hits:
        """Return the k nearest items, best first; see `Store.query`."""
        checked = check_query(vector, self.dimensions, self.metric)
        return self.query_many(checked[None], top_k, filter=filter, namespace=namespace)[0]

    def query_many(
        self,
        vectors: ArrayLike,
        top_k: int = 10,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
    ) -> Sequence[Hits]:
        """Return the k nearest items of each query; see `Store.query_many`."""
        checked = check_queries(vectors, self.dimensions, self.metric)
        sign = -1 if self.metric == "l2" else 1
        return [
            [replace(hit, score=sign * hit.score) for hit in hits]
            for hits in self._search("vector", list(checked), top_k, filter, namespace)
        ]

    def match(
        self,
        text: str,
        top_k: int = 10,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
        marks: tuple[str, str] | None = None,
    ) -> Hits:
        """Return the k items with the best BM25 score for a query; see `Store.match`."""
        if not re.search(r"\w", text):
            check_count(top_k)
            return []
        (hits,) = self._search("words", [text], top_k, filter, namespace)
        hits = [replace(hit, score=abs(hit.score)) for hit in hits]  # Milvus Lite returns -BM25
        if marks is None:
            return hits
        return [replace(hit, highlight=_mark(hit.text, text, marks)) for hit in hits]

    def merge(self) -> None:
        """Seal written items, so that the cluster indexes them now."""
        self._collection.flush()

    def _search(
        self,
        field: str,
        queries: Sequence[Any],
        k: int,
        filter: Mapping[str, Any] | str | None,
        namespace: str,
    ) -> Sequence[Hits]:
        check_count(k)
        where = self._where(namespace, filter)
        if where is None:
            return [[] for _ in queries]
        return [
            [
                Hit(
                    hit["entity"]["id"],
                    float(hit["distance"]),
                    hit["entity"]["text"],
                    hit["entity"]["metadata"],
                )
                for hit in found
            ]
            for found in self._collection.search(field, queries, k, where, _FIELDS)
        ]

    def _where(self, namespace: str, filter: Mapping[str, Any] | str | None) -> str | None:
        """Return the expression of a namespace and a filter; None if the namespace is empty."""
        if filter is None:
            return _in_namespace(namespace)
        node = parse(filter)
        if not self._collection.query(_in_namespace(namespace), ["id"], 1):
            return None
        for name in {c.field for c in conditions(node) if c.operator != "$exists"}:
            present = expression(Condition(name, "$exists", True))
            if not self._collection.query(f"{_in_namespace(namespace)} and {present}", ["id"], 1):
                raise InputError(
                    f"filter: no item has the field {name!r}", hint="check its spelling"
                )
        return f"{_in_namespace(namespace)} and {expression(node)}"

    def _row(self, item: Item, vector: Any, namespace: str) -> dict[str, Any]:
        if len(item.text.encode()) > MAX_TEXT_BYTES:
            raise InputError(
                f"item {item.id!r}: its text has {len(item.text.encode()):,} bytes",
                hint=f"Milvus accepts {MAX_TEXT_BYTES:,}; split it into passages",
            )
        if _has_large_integer(item.metadata):
            raise InputError(
                f"item {item.id!r}: its metadata has a whole number of over 64 bits",
                hint="Milvus accepts 64 bits; store it as text",
            )
        hashes = metadata_hashes(item.metadata)
        if len(hashes) > MAX_HASHES:
            raise InputError(
                f"item {item.id!r}: its metadata has {len(hashes):,} index entries",
                hint=f"Milvus accepts {MAX_HASHES:,}",
            )
        return {
            "key": _key(namespace, item.id),
            "kind": _ITEM,
            "namespace": namespace,
            "id": item.id,
            "text": item.text,
            "metadata": dict(item.metadata),
            "facts": hashes,
            "vector": vector,
        }

    def _marker(self, kind: str, name: str, metadata: dict[str, Any]) -> dict[str, Any]:
        """Return a row that is not an item. Its vector is arbitrary: every row must have one."""
        return {
            "key": f"{kind}:{name}",
            "kind": kind,
            "namespace": "",
            "id": name,
            "text": "",
            "metadata": metadata,
            "facts": [],
            "vector": np.eye(1, self.dimensions, dtype=np.float32)[0],
        }


def _key(namespace: str, id: str) -> str:
    return f"{_ITEM}:{len(check_name(namespace, 'namespace'))}:{namespace}{id}"


def _in_namespace(namespace: str) -> str:
    return f'kind == "{_ITEM}" and namespace == {quote(check_name(namespace, "namespace"))}'


def _item(row: Mapping[str, Any]) -> Item:
    vector = np.asarray(row["vector"], np.float32) if "vector" in row else None
    return Item(row["id"], row["text"], row["metadata"], vector)


def _has_large_integer(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_has_large_integer, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int) and not -(2**63) <= value < 2**64


def _mark(text: str, query: str, marks: tuple[str, str]) -> str:
    """Mark the words of a text that share a stem with a word of the query."""
    stems = {word[: max(4, len(word) - 3)] for word in re.findall(r"\w+", query.casefold())}
    before, after = marks

    def mark(word: re.Match[str]) -> str:
        found = word.group()
        return f"{before}{found}{after}" if found.casefold().startswith(tuple(stems)) else found

    return re.sub(r"\w+", mark, text)
