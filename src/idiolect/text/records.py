"""Documents out of one file: lines, JSON lines, tables, each within a limit on memory.

A file is read in binary, one record at a time; a record over the limit is passed over without
being held. What cannot be used is counted under its reason: `bad UTF-8`, `malformed JSON`,
`malformed CSV`, `no field`, `empty`, `oversized`.
"""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import tempfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from idiolect.errors import InputError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Sequence
    from io import BufferedIOBase
    from pathlib import Path

    import pyarrow.parquet as pq

__all__ = ["DEFAULT_LIMIT", "flaw", "is_readable", "read_documents", "read_records"]

DEFAULT_LIMIT = 16 << 20
"""Bytes; the largest document read unless told otherwise."""

_USUAL_FIELDS = ("text", "content", "body", "document", "abstract", "description", "title")


def is_readable(path: Path) -> bool:
    """Whether the file's name says it is of a type read here."""
    return _type(path) in _READERS


def flaw(text: str) -> str | None:
    """Why a text cannot be a document: `empty`, or `bad UTF-8`; None where it can.

    A JSON escape may give half of a surrogate pair, which no encoding of text has.
    """
    if not text.strip():
        return "empty"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "bad UTF-8"
    return None


def read_documents(
    path: Path, fields: Sequence[str], per: str, limit: int, skipped: Counter[str]
) -> Iterator[str]:
    """Stream the documents of one file.

    Args:
        path: the file; its name decides how it is read.
        fields: the fields to join by a line break; empty to choose the usual one.
        per: `line` or `file`, for plain text.
        limit: the largest document in bytes.
        skipped: is counted up by reason for each record left out.

    Raises:
        InputError: the file's type is unknown, it is damaged as a whole, or no field can be
            chosen.
    """
    kind = "whole" if per == "file" and _type(path) == ".txt" else _type(path)
    if kind not in _READERS:
        raise InputError(
            f"{path.name} is of a type that cannot be read",
            hint=f"known: {', '.join(k for k in _READERS if k[0] == '.')}, each also with .gz",
        )
    with _readable(path) as file:
        for text in _READERS[kind](file, path, fields, limit, skipped):
            reason = "oversized" if len(text) > limit else flaw(text)
            if reason is None:
                yield text
            else:
                skipped[reason] += 1


def read_records(
    path: Path, skipped: Counter[str], *, limit: int = DEFAULT_LIMIT
) -> Iterator[dict[str, Any]]:
    """Stream the records of one file that has fields: `.jsonl`, `.csv`, `.tsv` or `.parquet`.

    Args:
        path: the file; its name decides how it is read.
        skipped: is counted up by reason for each record left out.
        limit: the largest record in bytes.

    Raises:
        InputError: the file is missing, of another type, or damaged as a whole.
    """
    if _type(path) not in _ROWS:
        raise InputError(
            f"{path.name} is of a type that has no fields",
            hint=f"known: {', '.join(_ROWS)}, each also with .gz",
        )
    with _readable(path) as file:
        for record in _ROWS[_type(path)](file, path, limit, skipped):
            if isinstance(record, dict):
                yield record
            else:
                skipped["no field"] += 1


@contextmanager
def _readable(path: Path) -> Iterator[BufferedIOBase]:
    try:
        with _open(path) as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read: {error}", hint="is it complete and undamaged?"
        ) from error


def _type(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _open(path: Path) -> BufferedIOBase:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _lines(file: BufferedIOBase, limit: int, skipped: Counter[str]) -> Iterator[str]:
    """Yield lines with their ends; never hold more than the limit."""
    first = True
    while raw := file.readline(limit + 2):
        if len(raw) > limit and not raw.endswith(b"\n"):
            while (rest := file.readline(limit)) and not rest.endswith(b"\n"):
                pass
            skipped["oversized"] += 1
            continue
        try:
            yield raw.decode("utf-8-sig" if first else "utf-8")
        except UnicodeDecodeError:
            skipped["bad UTF-8"] += 1
        first = False


def _read_lines(
    file: BufferedIOBase, path: Path, fields: Sequence[str], limit: int, skipped: Counter[str]
) -> Iterator[str]:
    for line in _lines(file, limit, skipped):
        yield line.rstrip("\r\n")


def _read_whole(
    file: BufferedIOBase, path: Path, fields: Sequence[str], limit: int, skipped: Counter[str]
) -> Iterator[str]:
    raw = file.read(limit + 1)
    if len(raw) > limit:
        skipped["oversized"] += 1
        return
    try:
        yield raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        skipped["bad UTF-8"] += 1


def _read_json_lines(
    file: BufferedIOBase, path: Path, fields: Sequence[str], limit: int, skipped: Counter[str]
) -> Iterator[str]:
    for record in _json_records(file, path, limit, skipped):
        if isinstance(record, str):
            yield record
        elif isinstance(record, dict):
            fields = fields or _choose(record, path)
            yield from _join(record, fields, skipped)
        else:
            skipped["no field"] += 1


def _json_records(
    file: BufferedIOBase, path: Path, limit: int, skipped: Counter[str]
) -> Iterator[Any]:
    for line in _lines(file, limit, skipped):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            skipped["malformed JSON"] += 1


def _read_table(
    file: BufferedIOBase, path: Path, fields: Sequence[str], limit: int, skipped: Counter[str]
) -> Iterator[str]:
    for record in _table_rows(file, path, limit, skipped, fields):
        fields = fields or _choose(record, path)
        yield from _join(record, fields, skipped)


def _table_rows(
    file: BufferedIOBase,
    path: Path,
    limit: int,
    skipped: Counter[str],
    fields: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    # The module's own limit of 128 KiB a field is process-wide; it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), limit))
    delimiter = "\t" if _type(path) == ".tsv" else ","
    header: list[str] | None = None
    for record in _table_records(file, limit, skipped):
        try:
            row = next(csv.reader(record, delimiter=delimiter), [])
        except csv.Error:  # such as a carriage return within a line
            skipped["malformed CSV"] += 1
            continue
        if header is None:
            header = row
            if fields and not set(fields) <= set(header):
                raise _no_field(path, fields, header)
        elif len(row) != len(header):
            if row:
                skipped["malformed CSV"] += 1
        else:
            yield dict(zip(header, row, strict=True))


def _table_records(file: BufferedIOBase, limit: int, skipped: Counter[str]) -> Iterator[list[str]]:
    """Group lines into records: a quoted cell may hold line breaks.

    A quote that never closes would swallow the rest of the file; past the limit the record is
    given up and the next line begins a new one.
    """
    record: list[str] = []
    size = quotes = 0
    for line in _lines(file, limit, skipped):
        record.append(line)
        size += len(line)
        quotes += line.count('"')
        if quotes % 2 and size <= limit:
            continue
        if size > limit:
            skipped["oversized"] += 1
        else:
            yield record
        record, size, quotes = [], 0, 0
    if record:
        skipped["malformed CSV"] += 1


def _read_parquet(
    file: BufferedIOBase, path: Path, fields: Sequence[str], limit: int, skipped: Counter[str]
) -> Iterator[str]:
    import pyarrow as pa

    with _parquet(file, path) as table:
        names = table.schema_arrow.names
        if fields and not set(fields) <= set(names):
            raise _no_field(path, fields, names)
        strings = [
            column.name
            for column in table.schema_arrow
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        ]
        fields = fields or _choose(dict.fromkeys(strings, ""), path)
        for batch in table.iter_batches(batch_size=64, columns=list(fields)):
            for record in batch.to_pylist():
                yield from _join(record, fields, skipped)


def _parquet_rows(
    file: BufferedIOBase, path: Path, limit: int, skipped: Counter[str]
) -> Iterator[dict[str, Any]]:
    with _parquet(file, path) as table:
        for batch in table.iter_batches(batch_size=64):
            yield from batch.to_pylist()


@contextmanager
def _parquet(file: BufferedIOBase, path: Path) -> Iterator[pq.ParquetFile]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with tempfile.TemporaryFile() as plain:
        compressed = path.suffix.lower() == ".gz"
        if compressed:  # the format is read from its end: seeking in gzip would start over
            shutil.copyfileobj(file, plain)
            plain.seek(0)
        try:
            yield pq.ParquetFile(plain if compressed else path)
        except pa.ArrowException as error:
            raise InputError(f"{path} is no readable Parquet file: {error}") from error


def _choose(record: dict[str, Any], path: Path) -> tuple[str]:
    """Choose the field that holds the text, or say which there are."""
    strings = [name for name, value in record.items() if isinstance(value, str)]
    usual = [name for name in strings if name.lower() in _USUAL_FIELDS]
    exact = [name for name in strings if name.lower() == "text"]
    for candidates in (exact, [] if usual == ["title"] else usual, strings):
        if len(candidates) == 1:
            return (candidates[0],)
    raise InputError(
        f"{path}: which field holds the text? There are {', '.join(strings or record)}"
        if record
        else f"{path}: the first record has no fields",
        hint="choose with field=, or several to join",
    )


def _no_field(path: Path, fields: Sequence[str], names: Sequence[str]) -> InputError:
    missing = ", ".join(name for name in fields if name not in names)
    return InputError(f"{path} has no field {missing}", hint=f"there are {', '.join(names)}")


def _join(record: dict[str, Any], fields: Sequence[str], skipped: Counter[str]) -> Iterator[str]:
    values = [record[name] for name in fields if isinstance(record.get(name), str)]
    if values:
        yield "\n".join(value for value in values if value)
    else:
        skipped["no field"] += 1


_READERS: dict[
    str, Callable[[BufferedIOBase, Path, Sequence[str], int, Counter[str]], Iterator[str]]
] = {
    ".txt": _read_lines,
    ".jsonl": _read_json_lines,
    ".csv": _read_table,
    ".tsv": _read_table,
    ".parquet": _read_parquet,
    "whole": _read_whole,
}

_ROWS: dict[str, Callable[[BufferedIOBase, Path, int, Counter[str]], Iterator[Any]]] = {
    ".jsonl": _json_records,
    ".csv": _table_rows,
    ".tsv": _table_rows,
    ".parquet": _parquet_rows,
}
