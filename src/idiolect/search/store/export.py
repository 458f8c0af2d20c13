"""Export a store to JSON lines, to Parquet, or into another store.

A file gets its name only when it is complete. A copy into another store is written in batches. If
it is interrupted, run it again: items that were already copied are overwritten with equal ones.
"""

from __future__ import annotations

import json
import os
import uuid
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from idiolect.search.items import Item
    from idiolect.search.store.any_store import AnyStore

__all__ = ["copy", "write_jsonl", "write_parquet"]

_BATCH_SIZE = 1000


def write_jsonl(store: AnyStore, path: Path) -> Iterator[int]:
    """Write one JSON object per line: namespace, id, text, metadata, vector.

    Yields:
        The number of items written so far, after each batch.
    """
    with _atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        done = 0
        for namespace, batch in _batches(store):
            for item in batch:
                record = {
                    "namespace": namespace,
                    "id": item.id,
                    "text": item.text,
                    "metadata": dict(item.metadata),
                    "vector": np.asarray(item.vector).tolist(),
                }
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
            done += len(batch)
            yield done


def write_parquet(store: AnyStore, path: Path) -> Iterator[int]:
    """Write a table: namespace, id, text, metadata as JSON text, vector as a list of float32.

    Yields:
        The number of items written so far, after each batch.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = dict.fromkeys(("namespace", "id", "text", "metadata"), pa.string())
    columns["vector"] = pa.list_(pa.float32(), store.dimensions)
    schema = pa.schema(list(columns.items()))
    with _atomic(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        done = 0
        for namespace, batch in _batches(store):
            flat = np.concatenate([np.asarray(item.vector, np.float32) for item in batch])
            arrays = [
                pa.array([namespace] * len(batch)),
                pa.array([item.id for item in batch]),
                pa.array([item.text for item in batch]),
                pa.array([json.dumps(dict(item.metadata), ensure_ascii=False) for item in batch]),
                pa.FixedSizeListArray.from_arrays(pa.array(flat), store.dimensions),
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            done += len(batch)
            yield done


def copy(store: AnyStore, other: AnyStore) -> Iterator[int]:
    """Copy all items and settings into another store.

    Yields:
        The number of items copied so far, after each batch.
    """
    own = ("dimensions", "metric", "epoch", "changes")
    done = 0
    for namespace, batch in _batches(store):
        other.upsert(batch, namespace=namespace)
        done += len(batch)
        yield done
    if settings := {k: v for k, v in store.settings.items() if k not in own}:
        other.remember(**settings)
    other.merge()


def _batches(store: AnyStore) -> Iterator[tuple[str, list[Item]]]:
    for namespace in store.namespaces():
        stream = store.items(namespace=namespace, vectors=True)
        while batch := list(islice(stream, _BATCH_SIZE)):
            yield namespace, batch


@contextmanager
def _atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path, and rename it to `path` if there is no error."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
