"""The Milvus collection of a store: its fields and its indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idiolect.search.items import Metric

__all__ = ["LONGEST_TEXT", "MOST_FACTS", "describe_collection", "make_collection"]

LONGEST_TEXT = 65_535
"""Bytes; of a VARCHAR."""
MOST_FACTS = 4096
"""Of one item; of an ARRAY."""

_FIELDS = {"key", "kind", "namespace", "id", "text", "metadata", "facts", "vector", "words"}
_METRICS: dict[Metric, str] = {"cosine": "COSINE", "inner": "IP", "l2": "L2"}
_ANALYZER = {
    "tokenizer": "standard",
    "filter": ["lowercase", "asciifolding", {"type": "stemmer", "language": "english"}],
}


def make_collection(
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


def describe_collection(client: Any, collection: str) -> tuple[int, Metric] | None:
    """Return dimensions and metric of a collection, or None if it is not one of ours."""
    fields = {field["name"]: field for field in client.describe_collection(collection)["fields"]}
    if set(fields) != _FIELDS:
        return None
    named = client.describe_index(collection, "vector")["metric_type"]
    metrics = {theirs: ours for ours, theirs in _METRICS.items()}
    return int(fields["vector"]["params"]["dim"]), metrics[named]
