"""Vectors of a corpus in Parquet shards, on a local disk or in an object store.

    part-000000.parquet      a column `vector` of the first part of the corpus, in order
    part-000001.parquet
    …
    vectors.json             the record: encoder, settings, counts, and the rows of each shard

`vectors.json` is written last; a folder without it is not finished. Until then, `started.json` has
everything that determines the vectors: encoding with the same settings resumes, and with other
settings it is an error.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from idiolect.errors import CheckpointError, InputError
from idiolect.scale.storage import Storage

__all__ = ["VectorShards", "finish_shards", "finished_shard", "start_shards", "write_shard"]

_FORMAT = 1
"""Version of the folder layout."""
_RECORD, _STARTED = "vectors.json", "started.json"
_KEY = b"idiolect"


@dataclass(frozen=True)
class VectorShards:
    """A finished folder of vectors."""

    folder: Storage
    """The folder."""
    record: Mapping[str, Any]
    """`format`, `encoder`, `kind`, `precision`, `dimensions`, `rows`, `counts`, `skipped` and
    `shards`, the rows of each."""

    @classmethod
    def open(cls, source: str | Path) -> Self:
        """Open a folder that `encode_on_ray` wrote.

        Raises:
            CheckpointError: It is missing, not finished, or of a later version.
        """
        folder = Storage.of(source)
        if not (folder / _RECORD).info().is_file:
            raise CheckpointError(
                f"there are no finished vectors in {source}", hint="run the command again to resume"
            )
        record = (folder / _RECORD).read_json()
        if record.get("format") != _FORMAT:
            raise CheckpointError(
                f"{source} has the format {record.get('format')}, this version reads {_FORMAT}",
                hint="update idiolect",
            )
        return cls(folder, record)

    def __len__(self) -> int:
        return int(self.record["rows"])

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the vectors of each shard, shape (rows, dimensions).

        Raises:
            CheckpointError: A shard is missing or damaged.
        """
        for number, rows in enumerate(self.record["shards"]):
            file = self.folder / _name(number)
            try:
                column = pq.read_table(pa.BufferReader(file.read())).column("vector")
            except (pa.ArrowException, KeyError) as error:
                raise CheckpointError(f"{file.uri} is damaged: {error}") from error
            lists: Any = column.combine_chunks()
            flat = lists.flatten().to_numpy()
            vectors = flat.reshape(-1, int(self.record["dimensions"]))
            if len(vectors) != rows:
                raise CheckpointError(f"{file.uri} has {len(vectors)} rows instead of {rows}")
            yield vectors

    def array(self) -> NDArray[np.float32]:
        """Return all vectors in memory, shape (rows, dimensions)."""
        empty = np.zeros((0, int(self.record["dimensions"])), np.float32)
        return np.concatenate([empty, *self.blocks()])


def start_shards(folder: Storage, settings: Mapping[str, Any]) -> None:
    """Start a folder, or check that its existing contents have the same settings.

    Args:
        folder: The folder of the shards.
        settings: Everything that determines the shards.

    Raises:
        InputError: The folder holds vectors of other texts or settings.
    """
    file = folder / _STARTED
    if not file.info().is_file:
        if folder.list():
            raise InputError(
                f"{folder.uri} holds other files", hint="choose an empty or a new folder"
            )
        file.write(f"{json.dumps(settings, indent=2)}\n".encode())
        return
    before = file.read_json()
    for name, value in settings.items():
        if before.get(name) != value:
            what = "other texts" if name == "parts" else f"{name} {before.get(name)}, not {value}"
            raise InputError(
                f"{folder.uri} was started with {what}",
                hint="choose another folder, or remove it to start again",
            )


def write_shard(
    folder: Storage, number: int, vectors: NDArray[np.float32], outcome: Mapping[str, Any]
) -> None:
    """Write the vectors and the record of a part; the file becomes visible when it is complete."""
    width = vectors.shape[1]
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, width)
    table = pa.table({"vector": column}).replace_schema_metadata(
        {_KEY: json.dumps(outcome).encode()}
    )
    with tempfile.TemporaryDirectory(prefix="idiolect-") as temporary:
        path = Path(temporary, _name(number))
        # Mantissas are nearly random, so dictionaries and compression would only cost time.
        pq.write_table(table, path, use_dictionary=False, compression="none")
        (folder / _name(number)).write(path)


def finished_shard(folder: Storage, number: int) -> dict[str, Any] | None:
    """Return the record of a shard; None if it is missing or damaged."""
    file = folder / _name(number)
    if not file.info().is_file:
        return None
    try:
        with file.files.open_input_file(file.path) as stream:
            metadata = pq.ParquetFile(stream).schema_arrow.metadata
        outcome: dict[str, Any] = json.loads(metadata[_KEY])
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        return None
    return outcome


def finish_shards(
    folder: Storage,
    settings: Mapping[str, Any],
    shards: list[int],
    counts: Mapping[str, int],
    skipped: Mapping[str, int],
) -> VectorShards:
    """Write the record, which makes the folder complete."""
    record = {name: value for name, value in settings.items() if name != "parts"}
    record |= {"format": _FORMAT, "rows": sum(shards), "shards": shards}
    record |= {"counts": dict(counts), "skipped": dict(skipped)}
    (folder / _RECORD).write(f"{json.dumps(record, indent=2)}\n".encode())
    return VectorShards.open(folder.uri)


def _name(number: int) -> str:
    return f"part-{number:06}.parquet"
