"""One Milvus collection: its schema, its indexes, and the operations that a store needs.

Its consistency level is Strong, so every read sees all earlier writes.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from idiolect.errors import CheckpointError, InputError, MissingDependencyError
from idiolect.search.milvus.expressions import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from idiolect.search.diskann.metric import Metric

__all__ = ["MAX_HASHES", "MAX_TEXT_BYTES", "MilvusCollection"]

MAX_TEXT_BYTES = 65_535
"""The limit of a VARCHAR."""
MAX_HASHES = 4096
"""The limit of an ARRAY, for the metadata hashes of one item."""

_PAGE = 1000
_MESSAGE_BYTES = 8 << 20  # of one request; a server accepts 64 MiB
_MAX_QUERIES, _MAX_FOUND = 1000, 20_000  # of one request; a server accepts 16,384 queries
_OVERHEAD = 1000  # estimated bytes of a row without its vector and text
_FIELDS = {"key", "kind", "namespace", "id", "text", "metadata", "facts", "vector", "words"}
_METRICS: dict[Metric, str] = {"cosine": "COSINE", "inner": "IP", "l2": "L2"}
_ANALYZER = {
    "tokenizer": "standard",
    "filter": ["lowercase", "asciifolding", {"type": "stemmer", "language": "english"}],
}


class MilvusCollection:
    """One collection of a cluster.

    Every method raises CheckpointError if the cluster rejects the request or is unreachable.
    """

    def __init__(self, client: Any, name: str, dimensions: int, metric: Metric) -> None:
        self._client = client
        self._name = name
        self.dimensions = dimensions
        self.metric: Metric = metric

    @classmethod
    def open(
        cls, uri: str, name: str, token: str, create: tuple[int, Metric, int] | None
    ) -> MilvusCollection:
        """Open a collection; create it with (dimensions, metric, shards) if it does not exist.

        Raises:
            MissingDependencyError: `pymilvus` is not installed.
            InputError: it does not exist and `create` is None, or it belongs to another program.
        """
        try:
            from pymilvus import MilvusClient
        except ImportError as error:
            raise MissingDependencyError(
                "pymilvus is not installed", hint="pip install 'idiolect[milvus]'"
            ) from error
        # The client also logs each error that it raises, with several tracebacks.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        with _one_line_errors():
            client = MilvusClient(uri=uri, token=token)
            if not client.has_collection(name):
                if create is None:
                    raise InputError(f"no collection {name!r}", hint="export an index to it")
                _create(client, name, *create, local="://" not in uri)
            description = _describe(client, name)
        if description is None:
            raise InputError(
                f"collection {name!r} belongs to another program; nothing was changed",
                hint="choose another name",
            )
        return cls(client, name, *description)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def get(self, keys: list[str], fields: list[str]) -> list[dict[str, Any]]:
        """Return the rows with the given keys, in any order; unknown keys are skipped."""
        return self.query(_among(keys), fields, len(keys)) if keys else []

    def query(self, where: str, fields: list[str], limit: int) -> list[dict[str, Any]]:
        """Return up to `limit` rows that match an expression."""
        with _one_line_errors():
            return list(
                self._client.query(self._name, filter=where, output_fields=fields, limit=limit)
            )

    def count(self, where: str) -> int:
        """Count the rows that match an expression."""
        with _one_line_errors():
            found = self._client.query(self._name, filter=where, output_fields=["count(*)"])
        return int(found[0]["count(*)"])

    def scan(self, where: str, fields: list[str]) -> Iterator[dict[str, Any]]:
        """Stream all rows that match an expression, in any order.

        The client's own iterator breaks at keys with quotes or backslashes, which it does not
        escape. With its options, a page has the smallest keys, in order.
        """
        options = {"limit": _PAGE, "iterator": "True", "reduce_stop_for_best": "True"}
        after = ""
        while True:
            with _one_line_errors():
                page = self._client.query(
                    self._name,
                    filter=f"key > {quote(after)} and ({where})",
                    output_fields=["key", *fields],
                    **options,
                )
            if not page:
                return
            yield from page
            after = page[-1]["key"]

    def search(
        self, field: str, queries: Sequence[Any], top_k: int, where: str, fields: list[str]
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield the k nearest rows of each query by one field, among those of an expression."""
        step = max(1, min(_MAX_QUERIES, _MAX_FOUND // top_k))
        for start in range(0, len(queries), step):
            with _one_line_errors():
                found = self._client.search(
                    self._name,
                    data=list(queries[start : start + step]),
                    anns_field=field,
                    limit=top_k,
                    filter=where,
                    output_fields=fields,
                )
            yield from map(list, found)

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add or replace rows, in requests that a server accepts."""
        batch: list[dict[str, Any]] = []
        size = 0
        for row in rows:
            batch.append(row)
            size += 4 * self.dimensions + 3 * len(row["text"]) + _OVERHEAD
            if size > _MESSAGE_BYTES:
                self._send(batch)
                batch, size = [], 0
        self._send(batch)

    def _send(self, batch: list[dict[str, Any]]) -> None:
        if batch:
            with _one_line_errors():
                self._client.upsert(self._name, batch)

    def delete(self, where: str) -> None:
        """Delete the rows that match an expression."""
        with _one_line_errors():
            self._client.delete(self._name, filter=where)

    def delete_keys(self, keys: list[str]) -> None:
        """Delete the rows with the given keys."""
        if keys:
            self.delete(_among(keys))

    def flush(self) -> None:
        """Seal written rows, so that the cluster indexes them now."""
        with _one_line_errors():
            self._client.flush(self._name)


def _among(keys: list[str]) -> str:
    """Return the expression of keys; the client's own does not escape quotes and backslashes."""
    return f"key in [{', '.join(map(quote, keys))}]"


def _create(
    client: Any, collection: str, dimensions: int, metric: Metric, shards: int, *, local: bool
) -> None:
    """Create an empty collection.

    Args:
        client: a connected client.
        collection: the name of the collection.
        dimensions: width of the vectors.
        metric: metric of the vector index.
        shards: the number of shards that share the writes.
        local: whether the client is Milvus Lite, which has neither DISKANN nor array indexes.
    """
    from pymilvus import DataType, Function, FunctionType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    text = {"max_length": MAX_TEXT_BYTES, "enable_analyzer": True, "analyzer_params": _ANALYZER}
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=1100)
    schema.add_field("kind", DataType.VARCHAR, max_length=1)
    schema.add_field("namespace", DataType.VARCHAR, max_length=512, is_partition_key=True)
    schema.add_field("id", DataType.VARCHAR, max_length=512)
    schema.add_field("text", DataType.VARCHAR, **text)
    schema.add_field("metadata", DataType.JSON)
    schema.add_field("facts", DataType.ARRAY, element_type=DataType.INT64, max_capacity=MAX_HASHES)
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
    index_type = "AUTOINDEX" if local else "DISKANN"
    indexes.add_index(field_name="vector", index_type=index_type, metric_type=_METRICS[metric])
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
    """Return dimensions and metric, or None if another program created the collection."""
    fields = {field["name"]: field for field in client.describe_collection(collection)["fields"]}
    if set(fields) != _FIELDS:
        return None
    metric_type = client.describe_index(collection, "vector")["metric_type"]
    metrics = {milvus_name: metric for metric, milvus_name in _METRICS.items()}
    return int(fields["vector"]["params"]["dim"]), metrics[metric_type]


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Raise errors of the cluster as one-line errors."""
    from pymilvus import MilvusException

    try:
        yield
    except MilvusException as error:
        raise CheckpointError(
            f"Milvus: {' '.join(str(error.message).split())}",
            hint="check that the cluster is running",
        ) from error
