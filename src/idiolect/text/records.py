"""Read the records or documents of one file, within a limit on memory.

A file is read in binary, one record at a time. A record over the limit is skipped without being
held in memory. Each skipped record is counted by reason: `bad UTF-8`, `malformed JSON`,
`malformed CSV`, `no field`, `empty`, `oversized`.
"""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import tempfile
import zlib
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from idiolect.errors import InputError
from idiolect.text.fields import TITLE, find_fields, join_fields, text_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from io import BufferedIOBase
    from pathlib import Path

    import pyarrow.parquet as pq

__all__ = [
    "DEFAULT_LIMIT",
    "file_type",
    "has_fields",
    "is_readable",
    "read_all_records",
    "read_documents",
    "read_records",
    "unusable",
]

DEFAULT_LIMIT = 16 << 20
"""Default size of the largest document, in bytes."""


def file_type(path: Path) -> str:
    """Return the ending that names a file's type, such as `.csv`, without `.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_readable(path: Path) -> bool:
    """Return whether the file's name has a known type."""
    return file_type(path) in _DOCUMENTS


def has_fields(path: Path) -> bool:
    """Return whether the file's type has records with named fields."""
    return file_type(path) in _RECORDS


def unusable(text: str) -> str | None:
    """Return why a text cannot be a document: `empty`, `bad UTF-8`, or None if it can.

    A JSON escape may be half of a surrogate pair, which UTF-8 cannot encode.
    """
    if not text.strip():
        return "empty"
    return "bad UTF-8" if _has_surrogates(text) else None


def read_documents(
    path: Path, fields: Sequence[str], per: str, limit: int, skipped: Counter[str]
) -> Iterator[str]:
    """Stream the documents of one file.

    Args:
        path: the file; its name decides how it is read.
        fields: the fields to join by a line break; empty for the usual ones.
        per: `line` or `file`, for plain text.
        limit: the largest document in bytes.
        skipped: counts the skipped records by reason.

    Raises:
        InputError: the file's type is unknown, the whole file is damaged, or no field can be
            chosen.
    """
    type_ = "whole" if per == "file" and file_type(path) == ".txt" else file_type(path)
    if type_ not in _DOCUMENTS:
        known = ", ".join(one for one in _DOCUMENTS if one.startswith("."))
        raise InputError(
            f"{path.name} is of a type that cannot be read",
            hint=f"known: {known}, each also with .gz",
        )
    with _readable(path) as file:
        for text in _DOCUMENTS[type_](file, path, fields, limit, skipped):
            reason = "oversized" if len(text) > limit else unusable(text)
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
        skipped: counts the skipped records by reason.
        limit: the largest record in bytes.

    Raises:
        InputError: the file is missing, of another type, or damaged as a whole.
    """
    if not has_fields(path):
        raise InputError(
            f"{path.name} is of a type that has no fields",
            hint=f"known: {', '.join(_RECORDS)}, each also with .gz",
        )
    with _readable(path) as file:
        for record in _RECORDS[file_type(path)](file, path, limit, skipped, ()):
            if isinstance(record, dict):
                yield record
            else:
                skipped["no field"] += 1


def read_all_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Stream the records of a file in which every record must be readable.

    Yields:
        A record's file and number, for messages, and the record.

    Raises:
        InputError: as in `read_records`; or, once the whole file has been read, some records cannot
            be read.
    """
    skipped = Counter[str]()
    for number, record in enumerate(read_records(path, skipped), start=1):
        if not skipped:
            yield f"{path}, record {number}", record
    if skipped:
        reasons = ", ".join(f"{count} with {reason}" for reason, count in skipped.items())
        raise InputError(f"{path} has records that cannot be read: {reasons}", hint="correct them")


@contextmanager
def _readable(path: Path) -> Iterator[BufferedIOBase]:
    try:
        with _open(path) as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read: {error}", hint="check that it is complete and undamaged"
        ) from error


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


def _read_fields(
    file: BufferedIOBase, path: Path, fields: Sequence[str], limit: int, skipped: Counter[str]
) -> Iterator[str]:
    records = _RECORDS[file_type(path)](file, path, limit, skipped, fields)
    return _texts(records, path, fields, skipped)


def _texts(
    records: Iterator[Any], path: Path, fields: Sequence[str], skipped: Counter[str]
) -> Iterator[str]:
    """Yield the text of each record; a JSON line may also be a bare string."""
    chosen = bool(fields)
    for record in records:
        if isinstance(record, str):
            yield record
            continue
        if isinstance(record, dict) and not chosen:
            fields, chosen = _choose(record, path), True
        text = join_fields(record, fields) if isinstance(record, dict) else None
        if text is None:
            skipped["no field"] += 1
        else:
            yield text


def _json_records(
    file: BufferedIOBase, path: Path, limit: int, skipped: Counter[str], fields: Sequence[str]
) -> Iterator[Any]:
    for line in _lines(file, limit, skipped):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            escaped = json.dumps(record, ensure_ascii=False) if "\\u" in line else ""
        except (ValueError, RecursionError):
            skipped["malformed JSON"] += 1
            continue
        if _has_surrogates(escaped):
            skipped["bad UTF-8"] += 1
        else:
            yield record


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _table_rows(
    file: BufferedIOBase, path: Path, limit: int, skipped: Counter[str], fields: Sequence[str]
) -> Iterator[dict[str, Any]]:
    # The module's own limit of 128 KiB a field is process-wide; it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), limit))
    delimiter = "\t" if file_type(path) == ".tsv" else ","
    header: list[str] | None = None
    for record in _table_records(file, limit, skipped):
        try:
            row = next(csv.reader(record, delimiter=delimiter), [])
        except csv.Error:  # such as a carriage return within a line
            skipped["malformed CSV"] += 1
            continue
        if header is None:
            header = row
            _check_fields(path, fields, header)
        elif len(row) != len(header):
            if row:
                skipped["malformed CSV"] += 1
        else:
            yield dict(zip(header, row, strict=True))


def _table_records(file: BufferedIOBase, limit: int, skipped: Counter[str]) -> Iterator[list[str]]:
    """Group lines into records: a quoted cell may hold line breaks.

    A quote that never closes would make one record of the rest of the file. Past the limit the
    record is skipped, and the next line begins a new one.
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


def _parquet_rows(
    file: BufferedIOBase, path: Path, limit: int, skipped: Counter[str], fields: Sequence[str]
) -> Iterator[dict[str, Any]]:
    with _parquet(file, path) as table:
        yield from _rows(table, fields, limit, skipped)


def _rows(
    table: pq.ParquetFile, fields: Sequence[str], limit: int, skipped: Counter[str]
) -> Iterator[dict[str, Any]]:
    for batch in table.iter_batches(batch_size=64, columns=list(fields) or None):
        for record in batch.to_pylist():
            if any(isinstance(cell, str) and len(cell) > limit for cell in record.values()):
                skipped["oversized"] += 1
            else:
                yield record


def _read_parquet(
    file: BufferedIOBase, path: Path, fields: Sequence[str], limit: int, skipped: Counter[str]
) -> Iterator[str]:
    """Yield the text of each row, without reading other columns, such as vectors."""
    import pyarrow as pa

    with _parquet(file, path) as table:
        _check_fields(path, fields, table.schema_arrow.names)
        strings = [
            column.name
            for column in table.schema_arrow
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        ]
        row = dict.fromkeys(strings, "")
        fields = fields or _choose(row, path) or text_fields(row)
        yield from _texts(_rows(table, fields, limit, skipped), path, fields, skipped)


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
            raise InputError(f"{path} is not a readable Parquet file: {error}") from error


def _choose(record: dict[str, Any], path: Path) -> tuple[str, ...]:
    """Choose the text field of a file's records, or list the fields in an error.

    Returns:
        The only field; or no field, if the usual ones are to be looked up in each record.
    """
    strings = [name for name, value in record.items() if value is None or isinstance(value, str)]
    usual = text_fields(record)
    if usual and (usual != find_fields(strings, TITLE) or len(strings) == len(usual)):
        return ()
    if len(strings) == 1:
        return (strings[0],)
    raise InputError(
        f"{path}: cannot tell which field holds the text: {', '.join(strings or record)}"
        if record
        else f"{path}: the first record has no fields",
        hint="choose a field, or several to join",
    )


def _check_fields(path: Path, fields: Sequence[str], names: Sequence[str]) -> None:
    if missing := ", ".join(name for name in fields if name not in names):
        raise InputError(f"{path} has no field {missing}", hint=f"there are {', '.join(names)}")


_DOCUMENTS: dict[
    str, Callable[[BufferedIOBase, Path, Sequence[str], int, Counter[str]], Iterator[str]]
] = {
    ".txt": _read_lines,
    ".jsonl": _read_fields,
    ".csv": _read_fields,
    ".tsv": _read_fields,
    ".parquet": _read_parquet,
    "whole": _read_whole,
}

_RECORDS: dict[
    str, Callable[[BufferedIOBase, Path, int, Counter[str], Sequence[str]], Iterator[Any]]
] = {
    ".jsonl": _json_records,
    ".csv": _table_rows,
    ".tsv": _table_rows,
    ".parquet": _parquet_rows,
}
