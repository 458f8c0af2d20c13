"""Divide a corpus into parts that any machine can read independently.

A part is a file, or a range of one: lines of an uncompressed `.jsonl` or `.txt` file, or row groups
of a Parquet file. Compressed and delimited (CSV) files cannot be split and are one part each; nor
can files in UTF-16, and those whose JSON values span several lines. The documents of all parts, in
order, are those of the corpus.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from idiolect.errors import InputError
from idiolect.scale.storage import Storage, is_uri
from idiolect.text.corpus import source_files
from idiolect.text.records import (
    DEFAULT_LIMIT,
    KNOWN_TYPES,
    choose_fields,
    file_type,
    has_independent_rows,
    is_readable,
    read_documents,
)
from idiolect.text.skipped import MAX_UNREADABLE, Skipped, check_share

__all__ = ["CorpusPart", "ReadingOptions", "UnreadableRows", "divide_corpus"]

_LINES = (".jsonl", ".ndjson", ".txt")
_PROBE_BYTES = 1 << 16
_READABLE = ("empty", "no field")
"""Reasons for leaving out records that could be read."""


@dataclass(frozen=True)
class ReadingOptions:
    """How documents are read; see `Corpus`."""

    fields: tuple[str, ...] = ()
    per: str = "line"
    max_unreadable: float = MAX_UNREADABLE


@dataclass(frozen=True)
class CorpusPart:
    """A file of a corpus, or a range of it."""

    number: int
    """Position in the corpus, from 0."""
    source: str
    """Path or URI of the file."""
    size: int
    """Size of the file in bytes."""
    changed: int
    """Modification time of the file, in nanoseconds."""
    begin: int = 0
    """First byte, or first row group of a Parquet file."""
    end: int | None = None
    """End of the range (exclusive); None for a whole file."""
    fields: tuple[str, ...] | None = None
    """For a range: text fields as chosen from the first record of the file; see `choose_fields`."""

    def documents(self, options: ReadingOptions, skipped: Skipped) -> Iterator[str]:
        """Stream the documents of the part.

        Of a range of a file, any share of rows may be unreadable; see `UnreadableRows`.

        Raises:
            InputError: See `read_documents`.
            CheckpointError: The file cannot be read on this machine.
        """
        share = options.max_unreadable if self.end is None else 1.0
        with self.local() as path:
            yield from read_documents(
                path,
                options.fields or self.fields or (),
                options.per,
                DEFAULT_LIMIT,
                skipped,
                share,
                chosen=self.fields is not None,
            )

    def record(self) -> dict[str, Any]:
        """Return the values that identify the part."""
        return {name: value for name, value in asdict(self).items() if name != "fields"}

    @contextmanager
    def local(self) -> Iterator[Path]:
        """Yield a local file that contains only the part."""
        storage = Storage.of(self.source)
        if not is_uri(self.source) and self.end is None:
            if not Path(self.source).exists():
                storage.read(0, 1)  # raises an error with a hint
            yield Path(self.source)
            return
        with tempfile.TemporaryDirectory(prefix="idiolect-") as folder:
            stem, dot, endings = storage.name.partition(".")
            if self.end is None:
                path = Path(folder, storage.name)
                storage.download(path)
            elif file_type(Path(storage.name)) == ".parquet":
                path = Path(folder, f"{stem}-from-group-{self.begin}{dot}{endings}")
                with storage.files.open_input_file(storage.path) as file:
                    groups = list(range(self.begin, self.end))
                    pq.write_table(pq.ParquetFile(file).read_row_groups(groups), path)
            else:
                path = Path(folder, f"{stem}-from-byte-{self.begin}{dot}{endings}")
                storage.download(path, self.begin, self.end)
            yield path


class UnreadableRows:
    """Counts the unreadable rows of files in several parts: a limit holds for a whole file."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[int, Skipped]] = {}

    def add(self, part: CorpusPart, documents: int, skipped: Skipped) -> None:
        """Add a part that has been read.

        Args:
            part: The part.
            documents: Number of its documents.
            skipped: Its records that were left out.
        """
        if part.end is None:
            return
        read, faults = self._files.get(part.source, (0, Skipped()))
        faults.update(skipped)
        self._files[part.source] = (read + documents, faults)

    def check(self, max_unreadable: float) -> None:
        """Check the share of unreadable rows of each file.

        Raises:
            InputError: It exceeds `max_unreadable`.
        """
        for source, (read, faults) in self._files.items():
            for reason in _READABLE:
                read += faults.pop(reason, 0)
            check_share(source, "row", read, faults, max_unreadable)


def divide_corpus(
    sources: Sequence[str | Path], options: ReadingOptions, part_bytes: int
) -> list[CorpusPart]:
    """Divide files into parts of about `part_bytes` bytes, in the order of `Corpus`.

    Args:
        sources: Files, folders or globs as for `Corpus`, or URIs of files or folders.
        options: How documents are read.
        part_bytes: The approximate size of a part on disk.

    Raises:
        InputError: A file is missing or of an unknown type.
    """
    if part_bytes < 1:
        raise InputError(f"part_bytes is {part_bytes}", hint="at least 1")
    parts: list[CorpusPart] = []
    for source in sources:
        for file in _files(source):
            info = file.info()
            whole = (file.uri, int(info.size), int(info.mtime_ns or 0))
            ranges, fields = _ranges(file, info.size, options, part_bytes), None
            if len(ranges) > 1:
                with CorpusPart(len(parts), *whole, *ranges[0]).local() as path:
                    if has_independent_rows(path):
                        fields = None if options.fields else choose_fields(path)
                    else:
                        ranges = [(0, None)]
            for begin, end in ranges:
                parts.append(CorpusPart(len(parts), *whole, begin, end, fields))
    return parts


def _files(source: str | Path) -> list[Storage]:
    if not is_uri(source):
        return [Storage.of(path.absolute()) for path in source_files(source)]
    storage = Storage.of(source)
    if storage.info().is_file:
        return [storage]
    found = [one for one in storage.list() if is_readable(Path(one.name))]
    if not found:
        raise InputError(f"no text files in {source}", hint=f"known: .txt {KNOWN_TYPES}")
    return found


def _ranges(
    file: Storage, size: int, options: ReadingOptions, part_bytes: int
) -> list[tuple[int, int | None]]:
    """Return the ranges of a file; the end is None for a file that is not split."""
    path = Path(file.name)
    by_lines = path.suffix.lower() in _LINES and not (
        path.suffix.lower() == ".txt" and options.per == "file"
    )
    if size <= part_bytes:
        return [(0, None)]
    if path.suffix.lower() == ".parquet":
        return _row_groups(file, part_bytes)
    if not by_lines or file.read(0, 2) == b"\x1f\x8b":  # gzip with another suffix
        return [(0, None)]
    bounds = [0]
    while bounds[-1] + part_bytes < size:
        bounds.append(_next_line(file, bounds[-1] + part_bytes, size))
    if bounds[-1] < size:
        bounds.append(size)
    return list(pairwise(bounds)) if len(bounds) > 2 else [(0, None)]


def _next_line(file: Storage, position: int, size: int) -> int:
    """Return the offset of the first line that starts after a position."""
    while position < size:
        block = file.read(position, min(position + _PROBE_BYTES, size))
        at = block.find(b"\n")
        if at >= 0:
            return position + at + 1
        position += len(block)
    return size


def _row_groups(file: Storage, part_bytes: int) -> list[tuple[int, int | None]]:
    with file.files.open_input_file(file.path) as stream:
        table = pq.ParquetFile(stream).metadata
        sizes = [table.row_group(i).total_byte_size for i in range(table.num_row_groups)]
    bounds, filled = [0], 0
    for number, size in enumerate(sizes):
        if filled and filled + size > part_bytes:
            bounds.append(number)
            filled = 0
        filled += size
    bounds.append(len(sizes))
    return list(pairwise(bounds)) if len(bounds) > 2 else [(0, None)]
