r"""Split the lines of a delimited file into rows of cells, without losing rows to stray quotes.

A quote opens a quoted cell only at the cell's beginning, and closes it only before a delimiter or
the line's end. A row is parsed in the first of these ways that gives the right number of cells:

1. following RFC 4180: a quoted cell may contain delimiters, line breaks and doubled quotes;
2. with quotes escaped by a backslash, `\"`, as some programs write them;
3. cell by cell: quotes that are not well-formed in their cell are ordinary characters;
4. with all quotes as ordinary characters.

In a row without quoted cells, a backslash before a delimiter escapes it, as MySQL and PostgreSQL
write it, if only this gives the right number of cells.

If a cell spans several lines that would each be a valid row, it is accepted only if all quotes of
the file follow RFC 4180. Otherwise two stray quotes would swallow the rows between them.
"""

from __future__ import annotations

import csv
import logging
import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from idiolect.text.skipped import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["RowReader", "follows_rfc4180"]

_LOG = logging.getLogger(__name__)
_ENDS = "\r\n"
_MALFORMED = Fault("malformed CSV")


class RowReader:
    """Splits the lines of one file into rows.

    Args:
        delimiter: The cell separator; empty if each row is one cell.
        limit: Maximum length of a quoted cell that spans several lines, in characters.
        is_regular: Whether all quotes of the file follow RFC 4180; called only if a row depends
            on it.
        name: The file's name, for warnings.
    """

    def __init__(
        self, delimiter: str, *, limit: int, is_regular: Callable[[], bool], name: str
    ) -> None:
        self._delimiter = delimiter
        self._limit = limit
        self._is_regular = is_regular
        self._name = name
        self._width: int | None = None
        self._least = 0
        self._doubled = _Quoting(delimiter, backslash=False)
        self._escaped = _Quoting(delimiter, backslash=True)
        self._warned = False

    def expect(self, width: int, least: int) -> None:
        """Set the number of cells of a row: `width`, of which the first `least` are required."""
        self._width, self._least = width, least

    def rows(
        self, source: Iterable[tuple[int, str | Fault]]
    ) -> Iterator[tuple[int, list[str] | Fault]]:
        """Yield the number of each row's first line, and its cells or a `Fault`.

        Blank lines are skipped.
        """
        lines = _Lines(source)
        delimiter, line_feed, parse = self._delimiter, _Line(), None
        if delimiter:
            parse = csv.reader(line_feed, delimiter=delimiter, strict=True)
        for number, line in lines:
            if isinstance(line, Fault):
                yield number, line
                continue
            body = line.rstrip(_ENDS)
            if not body:
                continue
            if '"' not in line:
                cells = body.split(delimiter) if delimiter else [body]
            elif parse is not None:
                # `csv` is fastest for a row on one line, and raises an error for other rows.
                line_feed.text = body
                try:
                    cells = next(parse)
                except csv.Error:
                    cells = []
            else:
                cells = []
            if cells and len(cells) == self._width:
                yield number, cells
            elif self._width is not None or not body.isspace():
                found = self._resolve(number, line, lines)
                if found is not None:
                    yield number, found

    def _resolve(self, number: int, line: str, lines: _Lines) -> list[str] | Fault | None:
        """Read a row that is not a single line with the right number of cells."""
        if (unquoted := self._with_escaped_delimiters(line.rstrip(_ENDS))) is not None:
            return unquoted
        for quoting in (self._doubled, self._escaped):
            taken, cells = self._gather(quoting, line, lines)
            fitting = None if cells is None else self._fit(cells)
            if fitting is not None and (not taken or self._is_one_row(number, line, taken)):
                return fitting
            lines.push_back(taken)
        body = line.rstrip(_ENDS)
        if (alone := self._alone(body)) is not None:
            return alone
        if self._width is not None and body.isspace():
            return None
        if len(parts := re.split("[\r\n]", body)) > 1 and all(map(self._alone, parts)):
            # Lines that end differently from the file's first line.
            lines.push_back([(number, part) for part in parts[1:]])
            return self._alone(parts[0])
        return _MALFORMED

    def _with_escaped_delimiters(self, body: str) -> list[str] | None:
        r"""Read a row without quoted cells in which `\,` is a comma; None if it is not one."""
        escaped = "\\" + self._delimiter
        if not self._delimiter or escaped not in body:
            return None
        cells = re.split(rf"(?<!\\){re.escape(self._delimiter)}", body)
        if len(cells) != self._width or any(cell.startswith('"') for cell in cells):
            return None
        return [cell.replace(escaped, self._delimiter) for cell in cells]

    def _split(self, body: str) -> list[str]:
        return body.split(self._delimiter) if self._delimiter else [body]

    def _fit(self, cells: list[str]) -> list[str] | None:
        """Pad or trim a row to its width; None if required cells lack or extra ones are filled."""
        width = self._width
        if width is None or len(cells) == width:
            return cells
        if len(cells) > width and not any(cells[width:]):
            return cells[:width]
        if self._least <= len(cells) < width:
            return cells + [""] * (width - len(cells))
        return None

    def _gather(
        self, quoting: _Quoting, line: str, lines: _Lines
    ) -> tuple[list[tuple[int, str | Fault]], list[str] | None]:
        """Read a row to its end, which may be on a later line.

        Returns:
            The lines taken after the first, and the cells; None if the quotes are not well-formed.
        """
        row, taken, size = _Row(), list[tuple[int, str | Fault]](), 0
        while True:
            body = line.rstrip(_ENDS)
            if not quoting.add(body, row):
                return taken, None
            if row.inside is None:
                return taken, row.cells
            row.inside.append(line[len(body) :])
            size += len(line)
            following = next(lines, None)
            if following is None:
                return taken, None
            taken.append(following)
            if isinstance(following[1], Fault) or size > self._limit:
                return taken, None
            line = following[1]

    def _is_one_row(self, number: int, line: str, taken: list[tuple[int, str | Fault]]) -> bool:
        """Return whether several lines are one row, although each might be a row by itself."""
        texts = [line, *(str(text) for _, text in taken)]
        if self._width is None or any(self._alone(text.rstrip(_ENDS)) is None for text in texts):
            return True
        if not self._is_regular():
            return False
        if not self._warned and self._width > 1:
            _LOG.warning(
                "%s line %d: a quoted cell holds %d lines that could be rows by themselves",
                self._name,
                number,
                len(texts),
            )
            self._warned = True
        return True

    def _alone(self, body: str) -> list[str] | None:
        """Read a line as one row, cell by cell; None if it has a different number of cells.

        A cell is quoted if its quotes are well-formed in either style, otherwise plain.
        """
        cells, at = list[str](), 0
        while at <= len(body):
            quoted = self._doubled.cell(body, at) or self._escaped.cell(body, at)
            if quoted is None:
                end = body.find(self._delimiter, at) if self._delimiter else -1
                quoted = body[at : end if end >= 0 else len(body)], end if end >= 0 else len(body)
            cells.append(quoted[0])
            at = quoted[1] + 1
        fitting = self._fit(cells)
        return self._fit(self._split(body)) if fitting is None else fitting


def follows_rfc4180(lines: Iterable[tuple[int, str | Fault]], delimiter: str) -> bool:
    """Return whether all quotes of a file are well-formed: around whole cells, doubled inside."""
    quoting, row = _Quoting(delimiter, backslash=False), _Row()
    for _, line in lines:
        if isinstance(line, Fault) or (row.inside is None and '"' not in line):
            continue
        body = line.rstrip(_ENDS)
        if not quoting.add(body, row) or row.stray:
            return False
        if row.inside is not None:
            row.inside.clear()
    return row.inside is None


@dataclass
class _Row:
    """A partially read row."""

    cells: list[str] = field(default_factory=list)
    inside: list[str] | None = None
    """The parts of a quoted cell that is not closed yet."""
    stray: bool = False
    """Whether an unquoted cell contains a quote."""


class _Quoting:
    """One quoting style: quotes in a quoted cell are doubled, or also escaped by a backslash."""

    def __init__(self, delimiter: str, *, backslash: bool) -> None:
        self._delimiter = delimiter
        self._backslash = backslash
        content = r'(?:[^"\\]++|\\(?:.|\Z)|"")*+' if backslash else r'[^"]*+(?:""[^"]*+)*+'
        end = rf'"(?={re.escape(delimiter)}|\Z)' if delimiter else r'"\Z'
        self._content = re.compile(content, re.DOTALL)
        self._closed = re.compile(f"({content}){end}", re.DOTALL)

    def add(self, body: str, row: _Row) -> bool:
        """Add a line to a row; return whether its quotes are well-formed."""
        at, size = 0, len(body)
        while True:
            if row.inside is not None:
                match = self._closed.match(body, at)
                if match is None:
                    row.inside.append(body[at:])
                    return self._content.fullmatch(body, at) is not None
                row.inside.append(match[1])
                row.cells.append(self._unescape("".join(row.inside)))
                row.inside, at = None, match.end()
            elif body.startswith('"', at):
                row.inside, at = [], at + 1
                continue
            else:
                end = body.find(self._delimiter, at) if self._delimiter else -1
                cell = body[at : size if end < 0 else end]
                row.cells.append(cell)
                row.stray = row.stray or '"' in cell
                at += len(cell)
            if at >= size:
                return True
            at += 1
            if at == size:  # a delimiter ends the line
                row.cells.append("")
                return True

    def cell(self, body: str, at: int) -> tuple[str, int] | None:
        """Return the quoted cell at a position, and its end; None if no quoted cell is there."""
        match = self._closed.match(body, at + 1) if body.startswith('"', at) else None
        return match and (self._unescape(match[1]), match.end())

    def _unescape(self, text: str) -> str:
        if self._backslash:
            return re.sub(r'\\(["\\])|""', lambda found: found[1] or '"', text)
        return text.replace('""', '"')


class _Line:
    """Feeds one line to `csv.reader`."""

    def __init__(self) -> None:
        self.text: str | None = None

    def __iter__(self) -> _Line:
        return self

    def __next__(self) -> str:
        text, self.text = self.text, None
        if text is None:
            raise StopIteration
        return text


class _Lines:
    """An iterator over lines that allows lines to be pushed back."""

    def __init__(self, source: Iterable[tuple[int, str | Fault]]) -> None:
        self._source = iter(source)
        self._again: deque[tuple[int, str | Fault]] = deque()

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> tuple[int, str | Fault]:
        return self._again.popleft() if self._again else next(self._source)

    def push_back(self, lines: list[tuple[int, str | Fault]]) -> None:
        """Return lines to the front of the iterator."""
        self._again.extendleft(reversed(lines))
