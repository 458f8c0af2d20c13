"""Read and write files of relevance judgements (qrels) and of runs.

    judgements   query 0 document grade              TREC and MS MARCO
                 query document grade                not in .csv and .tsv, which need a header
                 query document                      matches, of grade 1
    runs         query Q0 document rank score name   TREC, also without the name
                 query document rank                 MS MARCO; the score is 1 / rank
    both         a table with a header, such as query-id,corpus-id,score (BEIR), or records with
                 these fields; judgements without a grade are matches, if there are two columns;
                 several documents are a list; JSON may be {query: {document: grade}}

White space, tabs, commas or semicolons separate the columns. Each file may be gzipped. All errors
of a file are reported together.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from idiolect.errors import InputError
from idiolect.ranking.evaluation.metrics import Run, ranked
from idiolect.text.fields import GRADE, GRADED_DOCUMENT, GRADED_QUERY, find_fields, id_text
from idiolect.text.files import write_atomic
from idiolect.text.record_types.text_lines import read_all_lines
from idiolect.text.records import DEFAULT_LIMIT, IdReader, file_type, has_fields, read_all_records

__all__ = ["read_qrels", "read_run", "write_run"]

_SHOWN = 10  # errors in a message
_SAMPLE = 100  # lines that are used to detect the separator
_NO_NUMBER = "is not a number"
_WITH_COMMA = re.compile(r"\d+(?:,\d+)+")  # two ids, or a number, but rarely one id
_QUOTED = re.compile(r'^"([^"]*)"$')
_AMBIGUOUS = frozenset({"topic", "item", "key"})
"""Column names that can mean a query as well as an id."""


@dataclass(frozen=True)
class _Layout:
    """The columns of a line without a header: positions of query, document and number."""

    columns: Mapping[int, tuple[int, int, int | None]]
    """Positions by number of columns; the last one is None if there are no grades."""
    usual: int
    matches: bool
    """Whether lines may have only a query and a document."""
    hint: str


_QRELS = _Layout(
    {4: (0, 2, 3), 3: (0, 1, 2), 2: (0, 1, None)},
    usual=4,
    matches=True,
    hint="lines are `query 0 document grade`, or `query document` for matches; the first line of a"
    " table names the columns, such as query_id,doc_id,score",
)
_LABELS = "grades and scores are numbers; turn labels such as E, S, C, I into 3, 2, 1, 0"
_RUN = _Layout(
    {6: (0, 2, 4), 5: (0, 2, 4), 3: (0, 1, 2)},
    usual=6,
    matches=False,
    hint="lines are `query Q0 document rank score name`; the first line of a table names the"
    " columns, such as query_id,doc_id,score",
)

_Row = tuple[str, str, object]
"""A query, a document and a number, which may be text."""


def read_qrels(path: str | Path) -> dict[str, dict[str, float]]:
    """Read relevance judgements: the grade of each document, by query.

    Raises:
        InputError: The file is missing or damaged, a line has other columns, a grade is not a
            finite number, or a document has two different grades for a query.
    """
    return _read(Path(path), _QRELS)


def read_run(path: str | Path) -> dict[str, dict[str, float]]:
    """Read a run: the score of each returned document, by query.

    The scores decide the order. Ranks in the file are ignored, unless it has no scores.

    Raises:
        InputError: As for `read_qrels`.
    """
    return _read(Path(path), _RUN)


def write_run(path: str | Path, run: Run, *, name: str = "idiolect") -> None:
    """Write a run in TREC format, best documents first. The write is atomic.

    Scores keep all their digits. Programs that read them in single precision, as `trec_eval` does,
    may find ties where there are none.

    Raises:
        InputError: An id or the name is empty or not valid in a column of the format, or a score is
            not finite.
    """
    lines = []
    for query, scores in run.items():
        for rank, doc in enumerate(ranked(scores), start=1):
            if not all(map(_fits_column, (query, doc, name))):
                raise InputError(
                    f"query {query!r}, document {doc!r}, name {name!r}: empty, white space in an"
                    " id, or not plain text",
                    hint="white space separates the columns of the TREC format; rename the id",
                )
            score = float(scores[doc])
            if not math.isfinite(score):
                raise InputError(
                    f"the score of document {doc!r} for query {query!r} is {score}",
                    hint="all values must be finite numbers",
                )
            lines.append(f"{query} Q0 {doc} {rank} {score!r} {name}\n")
    write_atomic(Path(path), "".join(lines).encode())


def _fits_column(text: object) -> bool:
    """Return whether a text is read back as one column."""
    if not isinstance(text, str) or text.split() != [text] or text[0] == "\ufeff":
        return False
    return "\x00" not in text and not any("\ud800" <= one <= "\udfff" for one in text)


def _read(path: Path, layout: _Layout) -> dict[str, dict[str, float]]:
    """Read a number for each query and document, and report all errors together."""
    table: dict[str, dict[str, float]] = {}
    faults: list[str] = []
    count = 0
    size, rows = _rows(path, layout)
    for place, row in rows:
        count += 1
        problem = row if isinstance(row, str) else _add(table, *row)
        if problem:
            faults.append(f"{place}: {problem}")
    if len(faults) == 1:
        raise InputError(f"{path}, {faults[0]}", hint=layout.hint)
    if faults:
        labels = all(fault.endswith(_NO_NUMBER) for fault in faults)
        more = f"; and {len(faults) - _SHOWN:,} more" if len(faults) > _SHOWN else ""
        raise InputError(
            f"{path}: {len(faults):,} of {count:,} lines are wrong: "
            + "; ".join(faults[:_SHOWN])
            + more,
            hint=_LABELS if labels else layout.hint,
        )
    if not table:
        raise InputError(f"{path} is empty", hint=layout.hint)
    if layout is _RUN and size == 3 and all(_are_ranks([*r.values()]) for r in table.values()):
        return {q: {doc: 1 / rank for doc, rank in ranks.items()} for q, ranks in table.items()}
    return table


def _are_ranks(numbers: list[float]) -> bool:
    """Return whether a query's numbers are ranks: 1 to n, but not descending, as scores are."""
    usual = list(range(1, len(numbers) + 1))
    return numbers == usual or (sorted(numbers) == usual and numbers != usual[::-1])


def _add(table: dict[str, dict[str, float]], query: str, doc: str, value: object) -> str:
    """Add a number to the table, or return why it cannot be used."""
    if not query or not doc:
        return "no query" if not query else "no document"
    try:
        if isinstance(value, str) and "_" in value:  # Python reads 1_0 as 10
            raise ValueError
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return f"{value!r:.40} {_NO_NUMBER}"
    if not math.isfinite(number):
        return f"{value!r} is not a finite number"
    earlier = table.setdefault(query, {}).setdefault(doc, number)
    if earlier == number:
        return ""
    return (
        f"document {doc!r} has {number:g} for query {query!r}, and {earlier:g} in an earlier line"
    )


def _rows(path: Path, layout: _Layout) -> tuple[int, Iterator[tuple[str, _Row | str]]]:
    """Open a file.

    Returns:
        The number of columns, or 0 if they have names; and for each row its place in the file, with
        the row or an error message.
    """
    is_table = file_type(path) in (".csv", ".tsv")
    if has_fields(path) and not is_table:
        return 0, _records(path, read_all_records(path), layout)
    try:
        sample = [
            *islice((line for line in read_all_lines(path, DEFAULT_LIMIT) if line.strip()), _SAMPLE)
        ] or [""]
    except InputError:
        if not is_table:
            raise
        return 0, _records(path, read_all_records(path), layout)  # it may have another encoding
    first = sample[0]
    separator, header = _find_separator(sample, file_type(path), layout)
    if header:
        records = read_all_records(path) if is_table else _table(path, separator)
        return 0, _records(path, records, layout)
    cells = _split(first, separator)
    if is_table and len(cells) == 3 and layout is _QRELS:  # a grade, or a day, or a count?
        raise InputError(
            f"{path}: the first line names the columns, and no query and document are among"
            f" {', '.join(cells)}",
            hint=layout.hint,
        )
    # `1 0 d7` is more likely a TREC line without its last column than a line with document 0.
    cut = len(cells) == 3 and _is_trec(cells)
    size = layout.usual if cut or len(cells) not in layout.columns else len(cells)
    return size, _columns(path, separator, size, layout.columns[size])


def _find_separator(lines: Sequence[str], kind: str, layout: _Layout) -> tuple[str | None, bool]:
    """Detect the column separator (None: white space), and whether the first line is a header."""
    signs: list[str | None] = [sign for sign in ("\t", ",", ";", "|") if sign in lines[0]]
    if kind == ".csv":
        signs.sort(key=lambda sign: sign == "\t")
    elif kind != ".tsv":  # ids may have commas
        signs.sort(key=lambda sign: sign != "\t")
        signs.insert("\t" in signs, None)
    candidates = [*signs, None]
    for separator in candidates:
        if _is_header(_split(lines[0], separator)):
            return separator, True

    def fitting(separator: str | None) -> tuple[int, bool]:
        rows = [_split(line, separator) for line in lines]
        sizes = [len(cells) for cells in rows]
        alike = sizes.count(sizes[0]) if sizes[0] in layout.columns else 0
        return alike, sizes[0] == layout.usual and _is_trec(rows[0])  # tabs among spaces

    return max(candidates, key=fitting), False


def _is_trec(cells: Sequence[str]) -> bool:
    return len(cells) > 2 and cells[1] in ("0", "Q0", "q0")


def _split(line: str, separator: str | None) -> list[str]:
    if separator is None:
        return line.split()
    if separator == "\t":  # a quote is part of the text, unless the cell also ends in one
        return [_QUOTED.sub(r"\1", cell.strip()) for cell in line.split("\t")]
    cells = next(csv.reader([line], delimiter=str(separator), skipinitialspace=True), [])
    return [cell.strip() for cell in cells]


def _is_header(cells: Sequence[str]) -> bool:
    query, doc = find_fields(cells, GRADED_QUERY), find_fields(cells, GRADED_DOCUMENT)
    if query and doc:
        return True
    return len(cells) == 2 and any(name.lower() not in _AMBIGUOUS for name in (*query, *doc))


def _columns(
    path: Path, separator: str | None, size: int, places: tuple[int, int, int | None]
) -> Iterator[tuple[str, _Row | str]]:
    """Yield the rows of a file without a header."""
    query, doc, value = places
    for number, line in enumerate(read_all_lines(path, DEFAULT_LIMIT), start=1):
        cells = _split(line, separator)
        if len(cells) == size and value is None and _WITH_COMMA.fullmatch(cells[doc]):
            yield f"line {number}", f"{cells[doc]!r} is not one id"
        elif len(cells) == size:
            yield f"line {number}", (cells[query], cells[doc], 1 if value is None else cells[value])
        elif line.strip():
            yield f"line {number}", f"{len(cells)} columns instead of {size}"


def _table(path: Path, separator: str | None) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Yield the records of a text file with a header."""
    header: list[str] = []
    for number, line in enumerate(read_all_lines(path, DEFAULT_LIMIT), start=1):
        cells = _split(line, separator)
        if not line.strip():
            continue
        if not header:
            header = cells
        else:
            matching = len(cells) == len(header)
            yield f"line {number}", dict(zip(header, cells, strict=True)) if matching else None


def _records(
    path: Path, records: Iterator[tuple[str, dict[str, Any] | None]], layout: _Layout
) -> Iterator[tuple[str, _Row | str]]:
    """Yield the rows of records; if the first lacks a field, all do."""
    first, id_of = True, IdReader(path)
    for place, record in records:
        shown = place.removeprefix(f"{path}, ")
        if record is None:
            yield shown, "more or fewer columns than the header"
            continue
        rows = _record_rows(record, layout, id_of)
        if first and isinstance(rows, str):
            raise InputError(f"{path}, {shown} {rows}", hint=layout.hint)
        first = False
        for row in [rows] if isinstance(rows, str) else rows:
            yield shown, row


def _record_rows(
    record: dict[str, Any], layout: _Layout, id_of: Callable[[dict[str, Any], str], str | None]
) -> list[_Row] | str:
    """Return query, document and number of each judgement of a record, or an error message.

    A record may have a list of documents, or map queries to documents and their grades.
    """
    if record and all(isinstance(value, dict) for value in record.values()):
        return [(query, doc, one) for query, of in record.items() for doc, one in of.items()]
    filled = [name for name, value in record.items() if isinstance(value, str | int | float | list)]
    queries, documents = find_fields(filled, GRADED_QUERY), find_fields(filled, GRADED_DOCUMENT)
    if len(record) == len(filled) == 2 and bool(queries) != bool(documents):
        other = tuple(name for name in filled if name not in (*queries, *documents))
        queries, documents = queries or other, documents or other
    grades = find_fields(record, GRADE)
    matches = layout.matches and len(record) == 2 and not grades
    for found, known in ((queries, GRADED_QUERY), (documents, GRADED_DOCUMENT), (grades, GRADE)):
        if not found and not (known is GRADE and matches):
            return f"has none of the fields {', '.join(known)}; found: {', '.join(record)}"
    value = 1 if matches else record[grades[0]]
    query, documents_field = id_of(record, queries[0]) or "", documents[0]
    listed = _listed(record[documents_field])
    if matches and listed is None and _WITH_COMMA.fullmatch(str(record[documents_field])):
        return f"has {record[documents_field]!r}, which is not one id"
    if listed is None:
        return [(query, id_of(record, documents_field) or "", value)]
    return [(query, id_text(doc) or "", value) for doc in listed]


def _listed(value: object) -> list[Any] | None:
    """Return a list of ids, which may be JSON text in a table; None if it is not a list of ids."""
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    is_list = isinstance(value, list) and all(isinstance(one, str | int | float) for one in value)
    return list(value) if is_list else None  # type: ignore[call-overload]
