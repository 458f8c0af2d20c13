"""Read test collections: documents, queries and relevance judgements (qrels).

Three layouts are supported. They may be mixed, and each file may be gzipped:

    BEIR   corpus.jsonl (_id, title, text)   queries.jsonl (_id, text)   qrels/test.tsv
    TREC   <doc> and <top> elements          qrels: query 0 document grade
           runs: query Q0 document rank score name
    tables .csv, .tsv or .parquet with a header, such as query,docid,rating

Ids that one file names and another lacks are reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from idiolect.errors import InputError
from idiolect.ranking.evaluation.metrics import Qrels, Run
from idiolect.ranking.evaluation.trec_elements import read_elements
from idiolect.text.fields import GRADE, GRADED_DOCUMENT, GRADED_QUERY, find_fields
from idiolect.text.files import write_atomic
from idiolect.text.keyed_texts import documents_with_ids, queries_with_ids
from idiolect.text.record_types.text_lines import read_lines
from idiolect.text.records import DEFAULT_LIMIT, KNOWN_TYPES, has_fields, read_all_records
from idiolect.text.skipped import Fault

__all__ = [
    "JudgedCollection",
    "read_documents",
    "read_qrels",
    "read_queries",
    "read_run",
    "write_run",
]


@dataclass(frozen=True)
class JudgedCollection:
    """Documents, queries and judgements with consistent ids."""

    documents: Mapping[str, str]
    """The text of each document."""
    queries: Mapping[str, str]
    """The text of each query with judgements."""
    qrels: Qrels
    """The grade of each judged document, by query."""
    notes: tuple[str, ...] = ()
    """Messages about what was left out."""

    @classmethod
    def load(cls, folder: str | Path, *, split: str = "test") -> JudgedCollection:
        """Read a folder in the BEIR layout (Thakur et al. 2021, 2104.08663).

        Raises:
            InputError: A file is missing or damaged, or no ids match.
        """
        folder = Path(folder)
        return cls.join(
            read_documents(_existing(folder / "corpus.jsonl")),
            read_queries(_existing(folder / "queries.jsonl")),
            read_qrels(_existing(folder / "qrels" / f"{split}.tsv")),
        )

    @classmethod
    def join(
        cls,
        documents: Mapping[str, str],
        queries: Mapping[str, str] | None,
        qrels: Qrels,
    ) -> JudgedCollection:
        """Combine the parts and drop judgements of missing documents and queries.

        Args:
            documents: Text by id.
            queries: Text by id; `None` if the judgements hold the text of each query.
            qrels: Grades by ids.

        Raises:
            InputError: No judgement is left.
        """
        if queries is None:
            queries = {query: query for query in qrels}
        missing_queries = [query for query in qrels if query not in queries]
        kept: dict[str, dict[str, float]] = {}
        missing = []
        for query in qrels.keys() & queries.keys():
            grades = qrels[query]
            missing += [doc for doc in grades if doc not in documents]
            kept[query] = {doc: grade for doc, grade in grades.items() if doc in documents}
        kept = {query: kept[query] for query in qrels if kept.get(query)}
        notes = (
            *_note(missing_queries, "judged queries have no text"),
            *_note(missing, "judgements name missing documents"),
            *_note([q for q in kept if not queries[q].strip()], "queries are empty"),
        )
        if not kept:
            raise InputError(
                "no judgement names an existing query and document: " + "; ".join(notes),
                hint="use files of the same collection",
            )
        return cls(documents, {query: queries[query] for query in kept}, kept, notes)


def read_documents(path: str | Path) -> dict[str, str]:
    """Read documents: the title and the text of each, joined as the index joins them.

    A document with an empty text is kept, because published figures count it.

    Raises:
        InputError: The file is missing or damaged, or a record has no id or no text.
    """
    return _texts(Path(path), "doc", documents_with_ids)


def read_queries(path: str | Path) -> dict[str, str]:
    """Read queries: their text, or the title of TREC topics.

    Raises:
        InputError: The file is missing or damaged, or a record has no id or no text.
    """
    return _texts(Path(path), "top", queries_with_ids)


def read_qrels(path: str | Path) -> dict[str, dict[str, float]]:
    """Read relevance judgements: the grade of each document, by query.

    Raises:
        InputError: The file is missing or damaged, a grade is not a number, or a document has two
            different grades for a query.
    """
    return _numbers(Path(path), columns=4, value=3)


def read_run(path: str | Path) -> dict[str, dict[str, float]]:
    """Read a run: the score of each returned document, by query.

    Raises:
        InputError: As for `read_qrels`.
    """
    return _numbers(Path(path), columns=6, value=4)


def write_run(path: str | Path, run: Run, *, name: str = "idiolect") -> None:
    """Write a run in TREC format, best documents first. The write is atomic.

    Raises:
        InputError: An id contains white space, which separates the columns of the format.
    """
    lines = []
    for query, scores in run.items():
        for rank, doc in enumerate(sorted(scores, key=lambda d: (scores[d], d), reverse=True)):
            if any(len(part.split()) != 1 for part in (query, doc)):
                raise InputError(
                    f"query {query!r}, document {doc!r}: white space in an id",
                    hint="white space separates the columns of the TREC format; rename the id",
                )
            lines.append(f"{query} Q0 {doc} {rank + 1} {scores[doc]:.9g} {name}\n")
    write_atomic(Path(path), "".join(lines).encode())


def _note(ids: Iterable[str], what: str) -> tuple[str, ...]:
    ids = list(ids)
    shown = ", ".join(map(repr, ids[:3])) + (", …" if len(ids) > 3 else "")
    return (f"{len(ids)} {what}: {shown}",) if ids else ()


def _existing(path: Path) -> Path:
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.exists() and not path.exists() else path


def _lines(path: Path) -> Iterator[str]:
    for number, line in read_lines(path, DEFAULT_LIMIT):
        if isinstance(line, Fault):
            raise InputError(f"{path}, line {number:,}: {line.reason}", hint="convert it to UTF-8")
        yield line


def _texts(
    path: Path,
    element: Literal["doc", "top"],
    read_table: Callable[[Path], Iterator[tuple[str, str, str]]],
) -> dict[str, str]:
    texts: dict[str, str] = {}
    rows = read_table(path) if has_fields(path) else read_elements(path, element)
    for _, name, text in rows:
        if name in texts:
            raise InputError(f"{path} has two texts with the id {name!r}", hint="keep one of them")
        texts[name] = text
    if not texts:
        raise InputError(
            f"{path} holds no texts",
            hint=f"supported: {KNOWN_TYPES}, and TREC files of <{element}>",
        )
    return texts


def _numbers(path: Path, *, columns: int, value: int) -> dict[str, dict[str, float]]:
    """Read a number for each query and document: a table with a header, or TREC columns."""
    table: dict[str, dict[str, float]] = {}
    rows = _cells(path) if has_fields(path) else _columns(path, columns, value)
    for place, query, doc, text in rows:
        try:
            number = float(text)
        except ValueError:
            raise InputError(f"{place}: {text!r} is not a number", hint="correct it") from None
        earlier = table.setdefault(query, {}).setdefault(doc, number)
        if earlier != number and not math.isnan(number):
            raise InputError(
                f"{place}: document {doc!r} has {number:g} for query {query!r}, and {earlier:g} "
                "in an earlier line",
                hint="keep one of them",
            )
    if not table:
        raise InputError(f"{path} is empty", hint="the first line of a table names the columns")
    return table


def _cells(path: Path) -> Iterator[tuple[str, str, str, str]]:
    for place, record in read_all_records(path):
        query, doc, number = (
            str(record[_field(record, known, place)])
            for known in (GRADED_QUERY, GRADED_DOCUMENT, GRADE)
        )
        yield place, query, doc, number


def _columns(path: Path, columns: int, value: int) -> Iterator[tuple[str, str, str, str]]:
    for number, text in enumerate(_lines(path), 1):
        parts = text.split()
        if parts and len(parts) != columns:
            raise InputError(
                f"{path}, line {number}: {len(parts)} columns instead of {columns}",
                hint="TREC qrels are `query 0 document grade`, runs `query Q0 document rank "
                "score name`; a table with a header ends in .csv or .tsv",
            )
        if parts:
            yield f"{path}, line {number}", parts[0], parts[2], parts[value]


def _field(record: Mapping[str, Any], known: tuple[str, ...], place: str) -> str:
    """Return the first known field that holds a text or a number."""
    cells = [name for name, value in record.items() if isinstance(value, str | int | float)]
    found = find_fields(cells, known)
    if not found:
        raise InputError(
            f"{place} has none of the fields {', '.join(known)}",
            hint=f"found: {', '.join(record)}; the first line names the columns",
        )
    return found[0]
