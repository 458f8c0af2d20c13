"""Records of a Parquet file, with all values converted to JSON types.

A column that cannot be converted is an error that names it.

    text, also dictionary, large and view      text
    integers, booleans, null                   unchanged
    floats                                     numbers; NaN is null, as pandas writes it for missing
    decimals                                   integers without decimal places, numbers of up to 15
                                               digits, otherwise text, so that no digit is lost
    dates, times and timestamps                text in ISO 8601
    durations                                  seconds
    lists, structs and maps                    lists and objects of converted values
    binary                                     text if it is UTF-8, otherwise an error
"""

from __future__ import annotations

import datetime
import math
import shutil
import tempfile
import uuid
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from idiolect.errors import InputError
from idiolect.text.record_types.compressed_file import is_compressed, open_file
from idiolect.text.skipped import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["parquet_columns", "read_parquet"]

_ROWS = 64
"""Number of rows to read at once."""
_EXACT_DIGITS = 15
"""Number of decimal digits that a float represents exactly."""


def parquet_columns(path: Path) -> dict[str, bool]:
    """Return the names of a file's columns, and whether each holds text.

    Raises:
        InputError: The file cannot be read.
    """
    with _parquet(path) as table:
        return {column.name: _is_text(column.type) for column in table.schema_arrow}


def read_parquet(
    path: Path, limit: int, columns: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, Any] | Fault]]:
    """Stream the records of a Parquet file, each with its number, counted from 1.

    Args:
        path: The file.
        limit: Maximum length of a text, in characters; a row with a longer one is a `Fault`.
        columns: The columns to read; by default all.

    Raises:
        InputError: The file cannot be read, or a column cannot be converted.
    """
    with _parquet(path) as table:
        schema = table.schema_arrow
        chosen = [field for field in schema if not columns or field.name in columns]
        convert = {field.name: _converter(field.type, path, field.name) for field in chosen}
        number = 0
        for batch in table.iter_batches(batch_size=_ROWS, columns=list(columns) or None):
            cells = [
                [one if one is None else change(one) for one in values] if change else values
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
                for change, values in [(convert[name], _pylist(column, path, name))]
            ]
            for row in zip(*cells, strict=True) if cells else ():
                number += 1
                if any(isinstance(cell, str) and len(cell) > limit for cell in row):
                    yield number, Fault("oversized")
                else:
                    yield number, dict(zip(batch.schema.names, row, strict=True))


@contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_file(path) as file, tempfile.TemporaryFile() as plain:
        source: Any = path
        if is_compressed(path):  # Parquet is read from its end: each seek would decompress anew
            shutil.copyfileobj(file, plain)
            plain.seek(0)
            source = plain
        try:
            table = pq.ParquetFile(source)
            names = table.schema_arrow.names
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise InputError(
                    f"{path} has several columns {', '.join(twice)}", hint="rename all but one"
                )
            yield table
        except (pa.ArrowException, OSError) as error:
            message = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{path} is not a readable Parquet file: {message}") from error


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    view = getattr(pa.types, "is_string_view", lambda _: False)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or view(kind))


def _pylist(column: pa.Array[Any], path: Path, name: str) -> list[Any]:
    """Return Python values; times with nanoseconds become text, as Python has no type for them."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        try:
            column = column.cast(pa.timestamp("us", column.type.tz))
        except pa.ArrowInvalid:  # nanoseconds would be lost
            texts = column.cast(pa.string()).to_pylist()
            return [text and text.replace(" ", "T", 1) for text in texts]
    try:
        return column.to_pylist()
    except (ValueError, TypeError, NotImplementedError, pa.ArrowException) as error:
        raise _no_conversion(path, name, f"{column.type}: {error}") from error


def _converter(kind: pa.DataType, path: Path, name: str) -> Callable[[Any], Any] | None:
    """Return the function that converts a column's values; None if no conversion is needed."""
    import pyarrow as pa

    types = pa.types
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if _is_text(kind) or types.is_integer(kind) or types.is_boolean(kind) or types.is_null(kind):
        return None
    digits = kind.precision if types.is_decimal(kind) else 0
    scale = kind.scale if types.is_decimal(kind) else 0

    def convert(value: Any) -> Any:
        return _plain(value, path, name)

    def decimal(value: Decimal) -> int | float | str:
        if scale <= 0:
            return int(value)
        return float(value) if digits <= _EXACT_DIGITS else str(value)

    return decimal if digits else convert


def _plain(value: Any, path: Path, name: str) -> Any:
    """Convert one value, and the values within it."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {key: _plain(one, path, name) for key, one in value.items()}
    if isinstance(value, list | tuple):
        if value and all(isinstance(one, tuple) and len(one) == 2 for one in value):  # a map
            return {str(key): _plain(one, path, name) for key, one in value}
        return [_plain(one, path, name) for one in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise _no_conversion(path, name, "bytes that are not UTF-8") from error
    try:
        return _plain(float(value), path, name)  # such as half precision
    except (TypeError, ValueError) as error:
        raise _no_conversion(path, name, f"values of type {type(value).__name__}") from error


def _no_conversion(path: Path, name: str, what: str) -> InputError:
    return InputError(
        f"{path}: the column {name} holds {what}",
        hint="choose other columns, or convert it before",
    )
