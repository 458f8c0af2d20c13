"""`MilvusStore`: the calls of `Store` over a Milvus cluster, for what one machine cannot hold.

One collection; a namespace is a partition key, so a search in one reads only its part. The
cluster's own DISKANN index serves the vectors and its own BM25 the words; sharding, replicas and
merging are its own as well.

What differs from `Store`, because a cluster works otherwise:

- A batch is not one transaction: a failure in the middle leaves its first part written. Writing it
  again is safe.
- Texts may have 65,535 bytes. `$gt` and its kin look at single values, not into lists.
- `items` and `list` read without an order of their own; `list` sorts what it read.

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
    check_query,
    distinct,
    encode_metadata,
)
from idiolect.search.milvus.expressions import expression, hashes, quote
from idiolect.search.milvus.milvus_collection import LONGEST_TEXT, MOST_FACTS, MilvusCollection
from idiolect.search.store.description import Description, NamespaceDescription

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike

__all__ = ["MilvusStore"]

_PAGE = 1000
_FIELDS = ["id", "text", "metadata"]
_ITEMS, _NAMES = "i", "n"  # what a row is: an item, or the name of a namespace
_SETTINGS = "s"


class MilvusStore:
    """A store in one collection of a Milvus cluster; open it with `MilvusStore.open`."""

    def __init__(self, collection: MilvusCollection) -> None:
        self._collection = collection
        self.dimensions = collection.dimensions
        self.metric: Metric = collection.metric
        self._known: set[str] = set()

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
        """Open a collection, or make one where `dimensions` are given and there is none.

        Args:
            uri: of the cluster, such as `http://milvus:19530`, or a file for Milvus Lite.
            collection: its name.
            token: `user:password`, where the cluster asks for one.
            dimensions: of its vectors; a collection that is there must have as many.
            metric: how vectors of a new collection are compared: `cosine`, `inner` or `l2`.
            shards: of a new collection, over which writes are spread.

        Raises:
            MissingDependencyError: `pymilvus` is not installed.
            InputError: there is no collection and none is to be made, it is another program's, or
                dimensions or metric differ; or the cluster refuses.
        """
        check_metric(metric)
        made = None if dimensions is None else (dimensions, metric, shards)
        store = cls(MilvusCollection.open(uri, collection, token, made))
        if dimensions is not None and (store.dimensions, store.metric) != (dimensions, metric):
            store.close()
            raise InputError(
                f"collection {collection!r} holds vectors of {store.dimensions} dimensions under"
                f" {store.metric}, not {dimensions} under {metric}",
                hint="choose another name",
            )
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        self._collection.close()

    @property
    def settings(self) -> dict[str, Any]:
        """Everything the store was told to remember, its dimensions and metric among it."""
        found = self._collection.query(f'kind == "{_SETTINGS}"', ["metadata"], 1)
        made = {"dimensions": self.dimensions, "metric": self.metric}
        return {**(found[0]["metadata"] if found else {}), **made}

    def remember(self, **settings: str | int) -> None:
        """Keep facts about the store."""
        self._collection.write([self._note(_SETTINGS, "", {**self.settings, **settings})])

    # Writing

    def upsert(self, items: Sequence[Item], *, namespace: str = "") -> None:
        """Add items, or replace those with the same ids; see `Store.upsert`."""
        check_name(namespace, "namespace")
        vectors = check_items(items, self.dimensions, self.metric)
        rows = [
            self._row(item, vector, namespace) for item, vector in zip(items, vectors, strict=True)
        ]
        if namespace not in self._known:
            self._collection.write([self._note(_NAMES, namespace, {})])
            self._known.add(namespace)
        self._collection.write(rows)

    def update(
        self,
        id: str,
        *,
        text: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        vector: ArrayLike | None = None,
        namespace: str = "",
    ) -> None:
        """Change parts of one item; see `Store.update`."""
        found = self.fetch([id], namespace=namespace, vectors=True)
        if id not in found:
            raise InputError(
                f"no item {id!r} in namespace {namespace!r}", hint="upsert adds new items"
            )
        self.upsert([change(found[id], text, metadata, vector)], namespace=namespace)

    def delete(
        self,
        ids: Iterable[str] | None = None,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
    ) -> int:
        """Delete items by id or by filter, and return how many there were; see `Store.delete`."""
        check_deletion(ids, filter)
        if ids is not None:
            keys = [_key(namespace, id) for id in self.fetch(ids, namespace=namespace)]
            for start in range(0, len(keys), _PAGE):
                self._collection.delete(ids=keys[start : start + _PAGE])
            return len(keys)
        where = self._where(namespace, filter)
        count = self._collection.count(where) if where else 0
        if count:
            self._collection.delete(filter=where)
        return count

    def drop(self, namespace: str = "") -> int:
        """Delete a whole namespace, and return how many items it had."""
        where = _inside(namespace)
        count = self._collection.count(where)
        self._collection.delete(filter=where)
        self._collection.delete(ids=[f"{_NAMES}:{namespace}"])
        self._known.discard(namespace)
        return count

    # Reading

    def fetch(
        self, ids: Iterable[str], *, namespace: str = "", vectors: bool = False
    ) -> dict[str, Item]:
        """Return the items of ids, in their order; unknown ones are left out."""
        wanted = distinct(ids)
        fields = [*_FIELDS, "vector"] if vectors else _FIELDS
        found: dict[str, Item] = {}
        for start in range(0, len(wanted), _PAGE):
            keys = [_key(namespace, id) for id in wanted[start : start + _PAGE]]
            found |= {row["id"]: _item(row) for row in self._collection.get(keys, fields)}
        return {id: found[id] for id in wanted if id in found}

    def items(self, *, namespace: str = "", vectors: bool = False) -> Iterator[Item]:
        """Stream all items, in no particular order."""
        fields = [*_FIELDS, "vector"] if vectors else _FIELDS
        yield from map(_item, self._collection.scan(_inside(namespace), fields))

    def list(
        self, prefix: str = "", *, after: str = "", limit: int = 100, namespace: str = ""
    ) -> Sequence[str]:
        """Return up to `limit` ids that begin with `prefix`, in order, after the id `after`."""
        where = _inside(namespace)
        if prefix:
            end = f"{prefix}\U0010ffff"
            where += f" and id >= {quote(prefix)} and id < {quote(end)}"
        if after:
            where += f" and id > {quote(after)}"
        return heapq.nsmallest(limit, (row["id"] for row in self._collection.scan(where, ["id"])))

    def namespaces(self) -> dict[str, int]:
        """Return how many items each namespace has."""
        names = sorted(row["id"] for row in self._collection.scan(f'kind == "{_NAMES}"', ["id"]))
        return {name: self._collection.count(_inside(name)) for name in names}

    def describe(self) -> Description:
        """Return what the store holds; fields and bytes are the cluster's own affair."""
        spaces = {
            name: NamespaceDescription(items, unmerged=0, fields=None)
            for name, items in self.namespaces().items()
        }
        return Description(self.dimensions, self.metric, None, (), spaces)

    def query(
        self,
        vector: ArrayLike,
        k: int = 10,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
    ) -> Hits:
        """Return the k nearest items, best first; see `Store.query`."""
        checked = check_query(vector, self.dimensions, self.metric)
        sign = -1 if self.metric == "l2" else 1
        return [
            replace(hit, score=sign * hit.score)
            for hit in self._search("vector", checked, k, filter, namespace)
        ]

    def match(
        self,
        text: str,
        k: int = 10,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
        marks: tuple[str, str] | None = None,
    ) -> Hits:
        """Return the k items whose texts match a query's words best (BM25), best first."""
        if not re.search(r"\w", text):
            check_count(k)
            return []
        hits = self._search("words", text, k, filter, namespace)
        hits = [replace(hit, score=abs(hit.score)) for hit in hits]  # Milvus Lite gives minus BM25
        if marks is None:
            return hits
        return [replace(hit, highlight=_mark(hit.text, text, marks)) for hit in hits]

    def merge(self) -> None:
        """Seal what was written, so that the cluster indexes it now."""
        self._collection.flush()

    def _search(
        self,
        field: str,
        wanted: Any,
        k: int,
        filter: Mapping[str, Any] | str | None,
        namespace: str,
    ) -> Hits:
        check_count(k)
        where = self._where(namespace, filter)
        if where is None:
            return []
        found = self._collection.search(field, wanted, k, where, _FIELDS)
        return [
            Hit(
                hit["entity"]["id"],
                float(hit["distance"]),
                hit["entity"]["text"],
                hit["entity"]["metadata"],
            )
            for hit in found
        ]

    def _where(self, namespace: str, filter: Mapping[str, Any] | str | None) -> str | None:
        """The expression of a namespace and a filter; None where the namespace is empty."""
        if filter is None:
            return _inside(namespace)
        node = parse(filter)
        if not self._collection.query(_inside(namespace), ["id"], 1):
            return None
        for name in {c.field for c in conditions(node) if c.operator != "$exists"}:
            present = expression(Condition(name, "$exists", True))
            if not self._collection.query(f"{_inside(namespace)} and {present}", ["id"], 1):
                raise InputError(
                    f"filter: no item has the field {name!r}", hint="is it spelt as in the items?"
                )
        return f"{_inside(namespace)} and {expression(node)}"

    def _row(self, item: Item, vector: Any, namespace: str) -> dict[str, Any]:
        encode_metadata(item)
        if len(item.text.encode()) > LONGEST_TEXT:
            raise InputError(
                f"item {item.id!r}: its text has {len(item.text.encode()):,} bytes",
                hint=f"Milvus takes {LONGEST_TEXT:,}; divide it into passages",
            )
        facts = hashes(item.metadata)
        if len(facts) > MOST_FACTS:
            raise InputError(
                f"item {item.id!r}: its metadata has {len(facts):,} values",
                hint=f"Milvus takes {MOST_FACTS:,}",
            )
        return {
            "key": _key(namespace, item.id),
            "kind": _ITEMS,
            "namespace": namespace,
            "id": item.id,
            "text": item.text,
            "metadata": dict(item.metadata),
            "facts": facts,
            "vector": vector,
        }

    def _note(self, kind: str, name: str, metadata: dict[str, Any]) -> dict[str, Any]:
        """A row that is no item; every row needs a vector."""
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
    return f"{_ITEMS}:{len(namespace)}:{namespace}{id}"


def _inside(namespace: str) -> str:
    return f'kind == "{_ITEMS}" and namespace == {quote(namespace)}'


def _item(row: Mapping[str, Any]) -> Item:
    vector = np.asarray(row["vector"], np.float32) if "vector" in row else None
    return Item(row["id"], row["text"], row["metadata"], vector)


def _mark(text: str, query: str, marks: tuple[str, str]) -> str:
    """Mark the words of a text that begin like one of the query's."""
    stems = {word[: max(4, len(word) - 3)] for word in re.findall(r"\w+", query.casefold())}
    before, after = marks

    def mark(word: re.Match[str]) -> str:
        found = word.group()
        return f"{before}{found}{after}" if found.casefold().startswith(tuple(stems)) else found

    return re.sub(r"\w+", mark, text)
