r"""Records of a delimited file (`.csv`, `.tsv`): the first line names the columns.

The delimiter is whichever of `,` `;` tab `|` `#` gives the rows as many cells as the header; in a
tie, the usual one for the file type. Excel's first line `sep=;` is recognized. A column without a
name is called `column_3`, for example, and is omitted from records in which its cell is empty.
Repeated column names are numbered, such as `name_2`. The header may be one name shorter than the
rows, because R's `write.table` writes no name for the first column, which holds row names.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from idiolect.errors import InputError
from idiolect.text.fields import DOCUMENT_ID, QUERY_ID, QUERY_TEXT, TEXT, TITLE, find_fields
from idiolect.text.record_types.compressed_file import file_state, file_type
from idiolect.text.record_types.table_rows import RowReader, follows_rfc4180
from idiolect.text.record_types.text_lines import read_lines
from idiolect.text.skipped import Fault

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["column_names", "read_table"]

_LOG = logging.getLogger(__name__)
_USUAL = (*DOCUMENT_ID, *QUERY_ID, *TITLE, *TEXT, *QUERY_TEXT)
_DELIMITERS = (",", ";", "\t", "|", "#")
_SAMPLE_LINES = 300
_SAMPLE_CHARACTERS = 1 << 20
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)


def read_table(path: Path, limit: int) -> Iterator[tuple[int, dict[str, str] | Fault]]:
    """Stream the records of a delimited file, each with the number of its first line.

    Args:
        path: The file.
        limit: Maximum length in bytes of a line, and of a cell that spans several lines.

    Raises:
        InputError: The file, or its first line, cannot be read.
    """
    delimiter = _delimiter(path, file_state(path), limit)
    reader = RowReader(
        delimiter,
        limit=limit,
        is_regular=lambda: _is_regular(path, file_state(path), limit, delimiter),
        name=path.name,
    )
    rows = reader.rows(read_lines(path, limit))
    header = _header(path, rows)
    if header is None:
        return
    if _lacks_row_names(path, file_state(path), limit, delimiter):
        header = ["", *header]
    names = [cell.strip() for cell in header]
    if len(names) == 1 and not find_fields(names, _USUAL):
        _LOG.warning(
            "%s: the first line, %r, is read as the name of the only column", path, names[0]
        )
    named = [bool(name) for name in names]
    least = max((n for n, is_named in enumerate(named, 1) if is_named), default=0)
    reader.expect(len(names), least)
    labels = column_names(names)
    if labels != names and len(set(filter(None, names))) < sum(named):
        _LOG.warning("%s has columns of one name; they are read as %s", path, ", ".join(labels))
    for number, cells in rows:
        if isinstance(cells, Fault):
            yield number, cells
            continue
        if cells[0].endswith(header[0]) and _is_header(cells, header):
            _LOG.warning("%s line %d repeats the header; it is left out", path, number)
            continue
        record = dict(zip(labels, cells, strict=True))
        if least < len(names) or not all(named):
            record = {
                label: record[label]
                for label, is_named in zip(labels, named, strict=True)
                if is_named or record[label]
            }
        yield number, record


def column_names(header: list[str]) -> list[str]:
    """Return a unique name for each column.

    >>> column_names(["id", "name", "", "name"])
    ['id', 'name', 'column_3', 'name_2']
    """
    names: list[str] = []
    taken = {name for name in header if name}
    for number, name in enumerate(header, 1):
        own, count = name or f"column_{number}", 1
        while own in names or (not name and own in taken):
            count += 1
            own = f"{name or f'column_{number}'}_{count}"
        names.append(own)
    return names


@lru_cache(maxsize=1024)
def _lacks_row_names(path: Path, state: tuple[int, int, bytes], limit: int, delimiter: str) -> bool:
    reader = RowReader(
        delimiter, limit=_SAMPLE_CHARACTERS, is_regular=lambda: True, name="the sample"
    )
    rows = reader.rows(_sample(path, limit))
    header = _header(path, rows)
    return header is not None and _has_row_names(header, [cells for _, cells in rows])


def _has_row_names(header: list[str], rows: list[list[str] | Fault]) -> bool:
    """Return whether all rows begin with a unique row name, in a column missing from the header."""
    read = [row for row in rows if not isinstance(row, Fault)]
    return (
        bool(read)
        and all(len(row) == len(header) + 1 for row in read)
        and any(row[-1] for row in read)  # otherwise each row ends with a delimiter
        and len({row[0] for row in read} - {""}) == len(read)
    )


def _header(path: Path, rows: Iterator[tuple[int, list[str] | Fault]]) -> list[str] | None:
    """Return the cells of the header; None if the file is empty."""
    for number, cells in rows:
        if isinstance(cells, Fault):
            raise InputError(
                f"{path} line {number}: the names of the columns cannot be read: {cells.reason}",
                hint="correct the line, or convert the file to UTF-8",
            )
        if cells[0].lower().startswith("sep=") and len("".join(cells)) <= len("sep=,"):
            continue
        if not any(cell.strip() for cell in cells):
            raise InputError(
                f"{path} line {number}: no column has a name",
                hint="the first line names the columns",
            )
        return cells
    return None


def _is_header(cells: list[str], header: list[str]) -> bool:
    return [cells[0].removeprefix("\ufeff"), *cells[1:]] == header


@lru_cache(maxsize=1024)
def _is_regular(path: Path, state: tuple[int, int, bytes], limit: int, delimiter: str) -> bool:
    return follows_rfc4180(read_lines(path, limit), delimiter)


@lru_cache(maxsize=1024)
def _delimiter(path: Path, state: tuple[int, int, bytes], limit: int) -> str:
    """Detect the delimiter; an empty string if there is a single column."""
    sample = _sample(path, limit)
    if not sample:
        return ""
    usual = "\t" if file_type(path) in (".tsv", ".tab") else ","
    first = sample[0][1]
    if isinstance(first, str) and (separator := _SEPARATOR_LINE.fullmatch(first.strip())):
        found = "\t" if "\t" in first else separator[1]
    else:
        found = _best_delimiter(sample, usual)
    if found not in (usual, ""):
        name = "tabs" if found == "\t" else found
        _LOG.warning("%s: the cells are separated by %s", path, name)
    return found


def _sample(path: Path, limit: int) -> list[tuple[int, str | Fault]]:
    """Return the first lines, beginning at the first that is not blank."""
    lines: list[tuple[int, str | Fault]] = []
    size = 0
    for number, line in islice(read_lines(path, limit), _SAMPLE_LINES):
        if lines or isinstance(line, Fault) or line.strip():
            lines.append((number, line))
            size += 0 if isinstance(line, Fault) else len(line)
        if size > _SAMPLE_CHARACTERS:
            break
    return lines


def _best_delimiter(sample: list[tuple[int, str | Fault]], usual: str) -> str:
    shares = {}
    for delimiter in (usual, *(one for one in _DELIMITERS if one != usual)):
        reader = RowReader(
            delimiter, limit=_SAMPLE_CHARACTERS, is_regular=lambda: True, name="the sample"
        )
        header, *rows = (cells for _, cells in reader.rows(sample))
        if isinstance(header, Fault) or len(header) < 2:
            continue
        # pandas and R write row numbers in a first column without a name.
        if delimiter != usual and not all(cell.strip() for cell in header[1:]):
            continue
        width = len(header) + _has_row_names(header, rows)
        alike = sum(not isinstance(row, Fault) and len(row) == width for row in rows)
        shares[delimiter] = (alike + 1) / (len(rows) + 1)
    best = max(shares, key=lambda one: shares[one], default="")
    if usual in shares:
        return best if shares[usual] < 0.5 and shares[best] > 0.9 else usual
    return best if best and shares[best] > 0.5 else ""
