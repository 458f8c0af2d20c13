"""Read the vectors of records, from one of their fields or from a `.npy` file.

A field has a list of numbers, in CSV and TSV files as JSON text. A `.npy` file has one row for each
record, in the same order. Pickled data is not loaded.

>>> parse_vector("[0.5, -1]", "items.csv line 2")
array([ 0.5, -1. ], dtype=float32)
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError
from idiolect.text.suggestions import similar_path

__all__ = ["OwnVectors", "open_matrix", "parse_vector"]

_BLOCK = 1 << 24  # numbers that are checked at once


class OwnVectors:
    """Reads the vector of each record, in the order of the records.

    Args:
        source: the name of a field, or a file whose name ends in `.npy`.

    Raises:
        InputError: the file is missing, or is not a matrix of finite numbers.
    """

    def __init__(self, source: str | Path) -> None:
        self._source = str(source)
        is_file = self._source.lower().endswith(".npy")
        self._matrix = open_matrix(Path(source)) if is_file else None
        self._row = 0
        self._width = 0
        self._found = False

    @property
    def in_file(self) -> bool:
        """Whether vectors are in a separate file, so that every record must be readable."""
        return self._matrix is not None

    def take(self, record: dict[str, Any], place: str) -> NDArray[np.float32] | None:
        """Return the vector of the next record, and remove its field; None if it has none.

        Raises:
            InputError: it is not a list of finite numbers, or has another length than the first.
        """
        row, self._row = self._row, self._row + 1
        if self._matrix is not None:
            # `check_end` reports missing rows, after all records are counted.
            return np.array(self._matrix[min(row, len(self._matrix) - 1)], np.float32)
        value = record.pop(self._source, None)
        if value is None or value == "":
            return None
        self._found = True
        vector = parse_vector(value, place)
        self._width = self._width or len(vector)
        if len(vector) != self._width:
            raise InputError(
                f"{place}: its vector has {len(vector):,} numbers, the first has {self._width:,}",
                hint="all vectors of an index have one length",
            )
        return vector

    def check_end(self) -> None:
        """Check that every record had a row, or that some had the field; then rewind.

        Call it after the last record.

        Raises:
            InputError: the matrix has another number of rows, or no record has a vector.
        """
        if self._matrix is not None and len(self._matrix) != self._row:
            rows = len(self._matrix)
            raise InputError(
                f"{self._source} has {rows:,} rows, but there are {self._row:,} records",
                hint="it needs one row for each record, in their order",
            )
        if self._matrix is None and not self._found:
            raise InputError(
                f"no record has a vector in the field {self._source}",
                hint="choose another field, or a .npy file",
            )
        self._row = 0


def parse_vector(value: Any, place: str) -> NDArray[np.float32]:
    """Return the vector (n,) of a field's value: a list of numbers, or such a list as JSON text.

    Raises:
        InputError: the value is something else, empty or not finite.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    try:
        given = np.asarray(value) if isinstance(value, list | tuple | np.ndarray) else np.empty(0)
    except (ValueError, RecursionError):  # rows of different lengths
        given = np.empty(0)
    if given.ndim != 1 or not given.size or given.dtype.kind not in "fiu":
        gaps = [i for i, one in enumerate(given) if one is None] if given.ndim == 1 else []
        what = f"has NaN or null at {gaps[0]}" if gaps else "is not a list of numbers"
        raise InputError(f"{place}: its vector {what}", hint="for example [0.25, -1.5]")
    with np.errstate(over="ignore"):
        vector = given.astype(np.float32)
    _check_finite(vector[None], given[None], place)
    return vector


def open_matrix(path: Path) -> NDArray[Any]:
    """Map the matrix of a `.npy` file into memory, read-only.

    Returns:
        Shape (rows, width), of any real type.

    Raises:
        InputError: the file is missing or damaged, or has no such matrix of finite numbers.
    """
    if not path.is_file():
        raise InputError(f"no such file: {path}", hint=similar_path(path) or "check the path")
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran_order, kind = read(file)
            start, size = file.tell(), path.stat().st_size
    except Exception as error:  # parsing the header, a Python literal, fails in many ways
        raise InputError(
            f"{path} is not a file of NumPy, or is damaged", hint="write it with numpy.save"
        ) from error
    if kind.kind not in "fiu" or len(shape) != 2 or 0 in shape or min(shape) < 0:
        raise InputError(
            f"{path} has an array of the type {kind} and the shape {shape}",
            hint="it needs a matrix of numbers, one row for each record",
        )
    if math.prod(shape) * kind.itemsize != size - start:
        raise InputError(
            f"{path} has {size:,} bytes, not those of the shape {shape}", hint="write it again"
        )
    order: Literal["F", "C"] = "F" if fortran_order else "C"
    matrix: NDArray[Any] = np.memmap(path, kind, "r", start, shape, order)
    step = max(1, _BLOCK // shape[1])
    for first in range(0, shape[0], step):
        given = matrix[first : first + step]
        with np.errstate(over="ignore"):
            _check_finite(given.astype(np.float32), given, str(path), first)
    return matrix


def _check_finite(
    vectors: NDArray[np.float32], given: NDArray[Any], place: str, first: int | None = None
) -> None:
    bad = ~np.isfinite(vectors)
    if bad.any():
        row, column = (int(one[0]) for one in np.nonzero(bad))
        what = "its vector" if first is None else f"row {first + row:,}"
        raise InputError(
            f"{place}: {what} has {given[row, column]} at {column}", hint="use finite numbers"
        )
