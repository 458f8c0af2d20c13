"""One Milvus collection: its fields and indexes, and the calls a store makes on it.

It is made with consistency level Strong, so every read sees every write before it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from idiolect.errors import CheckpointError, InputError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from idiolect.search.diskann.metric import Metric

__all__ = ["LONGEST_TEXT", "MOST_FACTS", "MilvusCollection"]

LONGEST_TEXT = 65_535
"""Bytes; of a VARCHAR."""
MOST_FACTS = 4096
"""Of one item; of an ARRAY."""

_PAGE = 1000
_MESSAGE = 8 << 20  # bytes written at once; a server takes 64 MiB
_OVERHEAD = 1000  # bytes of a row besides its vector and text, about
_FIELDS = {"key", "kind", "namespace", "id", "text", "metadata", "facts", "vector", "words"}
_METRICS: dict[Metric, str] = {"cosine": "COSINE", "inner": "IP", "l2": "L2"}
_ANALYZER = {
    "tokenizer": "standard",
    "filter": ["lowercase", "asciifolding", {"type": "stemmer", "language": "english"}],
}


class MilvusCollection:
    """One collection of a cluster, reached by a client that reads what it wrote.

    Every call raises CheckpointError where the cluster refuses or cannot be reached.
    """

    def __init__(self, client: Any, name: str, dimensions: int, metric: Metric) -> None:
        self._client = client
        self._name = name
        self.dimensions = dimensions
        self.metric: Metric = metric

    @classmethod
    def open(
        cls, uri: str, name: str, token: str, made: tuple[int, Metric, int] | None
    ) -> MilvusCollection:
        """Open a collection; where there is none, make it of (dimensions, metric, shards).

        Raises:
            MissingDependencyError: `pymilvus` is not installed.
            InputError: there is none and none is to be made, or it is another program's.
        """
        try:
            from pymilvus import MilvusClient
        except ImportError as error:
            raise MissingDependencyError(
                "pymilvus is not installed", hint="pip install 'idiolect[milvus]'"
            ) from error
        with _told():
            client = MilvusClient(uri=uri, token=token)
            if not client.has_collection(name):
                if made is None:
                    raise InputError(f"no collection {name!r}", hint="export an index to it")
                _make(client, name, *made, local="://" not in uri)
            found = _describe(client, name)
        if found is None:
            raise InputError(
                f"collection {name!r} is another program's; nothing was changed",
                hint="choose another name",
            )
        return cls(client, name, *found)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def get(self, keys: list[str], fields: list[str]) -> list[dict[str, Any]]:
        """Return the rows of keys, in any order; unknown ones are left out."""
        with _told():
            return list(self._client.get(self._name, ids=keys, output_fields=fields))

    def query(self, where: str, fields: list[str], limit: int) -> list[dict[str, Any]]:
        """Return up to `limit` rows that an expression holds for."""
        with _told():
            return list(
                self._client.query(self._name, filter=where, output_fields=fields, limit=limit)
            )

    def count(self, where: str) -> int:
        """Count the rows that an expression holds for."""
        with _told():
            found = self._client.query(self._name, filter=where, output_fields=["count(*)"])
        return int(found[0]["count(*)"])

    def scan(self, where: str, fields: list[str]) -> Iterator[dict[str, Any]]:
        """Stream all rows that an expression holds for, in any order."""
        with _told():
            iterator = self._client.query_iterator(
                self._name, filter=where, output_fields=fields, batch_size=_PAGE
            )
            try:
                while page := iterator.next():
                    yield from page
            finally:
                iterator.close()

    def search(
        self, field: str, wanted: Any, k: int, where: str, fields: list[str]
    ) -> list[dict[str, Any]]:
        """Return the k nearest rows by one field, among those an expression holds for."""
        with _told():
            (found,) = self._client.search(
                self._name,
                data=[wanted],
                anns_field=field,
                limit=k,
                filter=where,
                output_fields=fields,
            )
        return list(found)

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add or replace rows, in messages that a server takes."""
        batch: list[dict[str, Any]] = []
        size = 0
        for row in rows:
            batch.append(row)
            size += 4 * self.dimensions + 3 * len(row["text"]) + _OVERHEAD
            if size > _MESSAGE:
                self._send(batch)
                batch, size = [], 0
        self._send(batch)

    def _send(self, batch: list[dict[str, Any]]) -> None:
        if batch:
            with _told():
                self._client.upsert(self._name, batch)

    def delete(self, **which: Any) -> None:
        """Delete rows by `ids` or by `filter`."""
        with _told():
            self._client.delete(self._name, **which)

    def flush(self) -> None:
        """Seal what was written, so that the cluster indexes it now."""
        with _told():
            self._client.flush(self._name)


def _make(
    client: Any, collection: str, dimensions: int, metric: Metric, shards: int, *, local: bool
) -> None:
    """Make an empty collection.

    Args:
        client: connected.
        collection: its name.
        dimensions: of its vectors.
        metric: how they are compared.
        shards: over which writes are spread.
        local: whether the client is Milvus Lite, which has no DISKANN and no
            index of arrays.
    """
    from pymilvus import DataType, Function, FunctionType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    text = {"max_length": LONGEST_TEXT, "enable_analyzer": True, "analyzer_params": _ANALYZER}
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=1100)
    schema.add_field("kind", DataType.VARCHAR, max_length=1)
    schema.add_field("namespace", DataType.VARCHAR, max_length=512, is_partition_key=True)
    schema.add_field("id", DataType.VARCHAR, max_length=512)
    schema.add_field("text", DataType.VARCHAR, **text)
    schema.add_field("metadata", DataType.JSON)
    schema.add_field("facts", DataType.ARRAY, element_type=DataType.INT64, max_capacity=MOST_FACTS)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimensions)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(
        Function(
            name="bm25",
            function_type=FunctionType.BM25,
            input_field_names=["text"],
            output_field_names=["words"],
        )
    )
    indexes = client.prepare_index_params()
    kind = "AUTOINDEX" if local else "DISKANN"
    indexes.add_index(field_name="vector", index_type=kind, metric_type=_METRICS[metric])
    indexes.add_index(field_name="words", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    for field in ("kind",) if local else ("kind", "facts"):
        indexes.add_index(field_name=field, index_type="INVERTED")
    client.create_collection(
        collection,
        schema=schema,
        index_params=indexes,
        consistency_level="Strong",
        num_shards=shards,
    )


def _describe(client: Any, collection: str) -> tuple[int, Metric] | None:
    """Return dimensions and metric of a collection, or None if it is not one of ours."""
    fields = {field["name"]: field for field in client.describe_collection(collection)["fields"]}
    if set(fields) != _FIELDS:
        return None
    named = client.describe_index(collection, "vector")["metric_type"]
    metrics = {theirs: ours for ours, theirs in _METRICS.items()}
    return int(fields["vector"]["params"]["dim"]), metrics[named]


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn what the cluster raises into one line."""
    from pymilvus import MilvusException

    try:
        yield
    except MilvusException as error:
        raise CheckpointError(
            f"Milvus: {' '.join(str(error.message).split())}", hint="is the cluster there and well?"
        ) from error
