"""Vectors on disk: a memory-mapped `.npy` file whose writing can be resumed.

Two files hold the vectors until all are written:

    docs.npy.part         the header, then rows
    docs.npy.part.json    the record: settings, number of complete rows, a hash of their texts

A block of rows is flushed to disk before the record counts it, so a killed process loses at most
one block. The next process checks that texts and settings are the same, truncates the file to the
recorded rows and resumes. At the end the number of rows is written to the header and both files are
renamed to `docs.npy` and `docs.npy.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import CheckpointError, InputError
from idiolect.nn.matrix_precision import ChosenPrecision
from idiolect.text.files import read_json, write_atomic
from idiolect.text.format_version import check_format, with_format
from idiolect.training.progress import notice

__all__ = ["DiskVectors", "Vectors"]

_HEADER_BYTES = 128


@dataclass(frozen=True)
class Vectors:
    """A finished file of vectors."""

    path: Path
    """The `.npy` file."""
    array: NDArray[np.float32]
    """The vectors, memory-mapped and read-only. Shape: (texts, dimensions)."""
    record: Mapping[str, Any]
    """`encoder` (its fingerprint), `kind`, `precision`, `dimensions`, `rows`, `texts` (a hash),
    `counts`."""

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a file that `Encoder.encode_to` wrote.

        Raises:
            CheckpointError: It is missing or damaged, or does not match its record.
        """
        path = Path(path)
        record = check_format(read_json(_record_path(path)), _record_path(path))
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read {path}: {error}", hint="encode again") from error
        if array.shape != (record.get("rows"), record.get("dimensions")):
            raise CheckpointError(
                f"{path} has the shape {array.shape}, its record "
                f"({record.get('rows')}, {record.get('dimensions')})",
                hint="encode again",
            )
        return cls(path, array, record)


class DiskVectors:
    """A file of vectors that is being written.

    Args:
        path: The finished file.
        settings: Everything that determines the vectors; a partial file with others is refused.
        dimensions: Width of the vectors.

    Raises:
        InputError: The path cannot be written to, or holds another file.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any], dimensions: int) -> None:
        self.path = Path(path)
        self.part = self.path.with_name(f"{self.path.name}.part")
        self._settings = {**settings, "dimensions": dimensions}
        self._dimensions = dimensions
        self._digest = hashlib.blake2b(digest_size=16)
        self.rows: int = 0
        """Number of complete rows."""
        self.counts: dict[str, int] = {}
        """The encoding counts up to that row."""
        self._texts: str | None = None
        if self.path.exists() and not _record_path(self.path).exists():
            raise InputError(
                f"{path} exists and was not written by idiolect", hint="choose another name"
            )
        self.finished = self.path.exists()
        """Whether all vectors are written."""
        record = _record_path(self.path if self.finished else self.part)
        if record.exists():
            self._resume(record)
        if self.finished:
            _record_path(self.part).unlink(missing_ok=True)
        else:
            self._open()

    def _resume(self, path: Path) -> None:
        """Resume after the rows that the record counts; if it is damaged, start again."""
        try:
            record = read_json(path)
        except CheckpointError as error:
            problem = error.message
        else:
            record = check_format(record, path)  # do not delete the file of a newer version
            try:
                self._continue(record)
                self._check_size()
                return
            except CheckpointError as error:
                problem = error.message
        notice(f"{problem}; encoding all texts again")
        self._forget()

    @staticmethod
    def precision_of(path: str | Path) -> ChosenPrecision | None:
        """Return the precision in which a file was started, or None if there is none."""
        path = Path(path)
        for file in (path, path.with_name(f"{path.name}.part")):
            if _record_path(file).exists():
                precision: ChosenPrecision = read_json(_record_path(file)).get("precision", "fp32")
                return precision
        return None

    def _continue(self, record: Mapping[str, Any]) -> None:
        record = {"precision": "fp32", **record}  # earlier versions did not record it
        for name, value in self._settings.items():
            if record.get(name) != value:
                option = "prompt" if name == "kind" else name
                before, now = (one or "none" for one in (record.get(name), value))
                raise InputError(
                    f"{self.path} was started with {option} {before}, not {now}",
                    hint="choose another name, or remove it to start again",
                )
        self.rows, self.counts = record["rows"], dict(record["counts"])
        self._texts = record["texts"]

    def _check_size(self) -> None:
        file = self.path if self.finished else self.part
        size = file.stat().st_size if file.exists() else 0
        if size < self._end or (self.finished and size > self._end):
            raise CheckpointError(f"{file} has {size:,} bytes instead of {self._end:,}")

    def _forget(self) -> None:
        """Delete the partial files."""
        for file in (self.path, self.part):
            file.unlink(missing_ok=True)
            _record_path(file).unlink(missing_ok=True)
        self.finished, self.rows, self.counts, self._texts = False, 0, {}, None

    def _open(self) -> None:
        if not self.rows:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.part.write_bytes(_header(0, self._dimensions))
        os.truncate(self.part, self._end)

    @property
    def _end(self) -> int:
        return _HEADER_BYTES + self.rows * self._dimensions * 4

    def remaining(self, texts: Iterable[str], block: int) -> Iterator[list[str]]:
        """Skip the texts of existing rows, and yield the others in blocks.

        Raises:
            InputError: The skipped texts differ from those of the existing rows.
        """
        stream = iter(texts)
        left = self.rows
        while left:
            done = list(islice(stream, min(left, block)))
            if not done:
                break
            self._hash(done)
            left -= len(done)
        if self.rows and (left or self._digest.hexdigest() != self._texts):
            raise InputError(
                f"{self.path} was started with other texts",
                hint="choose another name, or remove it to start again",
            )
        while texts_of_block := list(islice(stream, block)):
            if self.finished:
                raise InputError(
                    f"{self.path} is finished and holds only {self.rows} of the texts",
                    hint="choose another name, or remove it to start again",
                )
            yield texts_of_block

    def append(
        self, texts: Sequence[str], vectors: NDArray[np.float32], counts: Mapping[str, int]
    ) -> None:
        """Add the rows of a block; they are on disk when this returns."""
        with self.part.open("ab") as file:
            file.write(np.ascontiguousarray(vectors, dtype="<f4").data)
            file.flush()
            os.fsync(file.fileno())
        self._hash(texts)
        self.rows += len(texts)
        self.counts = dict(counts)
        write_atomic(_record_path(self.part), self._record())

    def finish(self) -> Vectors:
        """Complete the file and rename it."""
        if not self.finished:
            with self.part.open("r+b") as file:
                file.write(_header(self.rows, self._dimensions))
                file.flush()
                os.fsync(file.fileno())
            write_atomic(_record_path(self.path), self._record())
            os.replace(self.part, self.path)
            _record_path(self.part).unlink(missing_ok=True)
        return Vectors.open(self.path)

    def _hash(self, texts: Iterable[str]) -> None:
        for text in texts:
            data = text.encode()
            self._digest.update(len(data).to_bytes(8, "little") + data)

    def _record(self) -> bytes:
        record = with_format(
            {
                **self._settings,
                "rows": self.rows,
                "texts": self._digest.hexdigest(),
                "counts": self.counts,
            }
        )
        return f"{json.dumps(record, indent=2)}\n".encode()


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _header(rows: int, dimensions: int) -> bytes:
    """Return a `.npy` header (version 1.0) of constant length for any number of rows."""
    shape = f"({rows}, {dimensions})"
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    magic = b"\x93NUMPY\x01\x00" + (_HEADER_BYTES - 10).to_bytes(2, "little")
    return magic + text.ljust(_HEADER_BYTES - 11).encode() + b"\n"
