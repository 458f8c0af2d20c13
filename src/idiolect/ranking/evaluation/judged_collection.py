"""Read test collections: documents, queries and relevance judgements (qrels).

Three layouts are supported. They may be mixed, and each file may be gzipped:

    BEIR   corpus.jsonl (_id, title, text)   queries.jsonl (_id, text)   qrels/test.tsv
    TREC   <doc> and <top> elements          qrels: query 0 document grade
    tables .csv, .tsv or .parquet with a header, such as query,docid,rating

See `idiolect.ranking.evaluation.judgement_files` for the layouts of judgements and runs.
Ids that one file names and another lacks are reported.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from idiolect.errors import InputError
from idiolect.ranking.evaluation.judgement_files import (
    read_lines,
    read_qrels,
    read_run,
    write_run,
)
from idiolect.ranking.evaluation.metrics import Qrels, count_ids
from idiolect.text.fields import join_parts
from idiolect.text.keyed_texts import documents_with_ids, queries_with_ids
from idiolect.text.records import has_fields

__all__ = [
    "JudgedCollection",
    "read_documents",
    "read_qrels",
    "read_queries",
    "read_run",
    "write_run",
]

_BODY = re.compile(r"<(title|head|headline|text)>(.*?)</\1>", re.IGNORECASE | re.DOTALL)


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
            *count_ids(missing_queries, "judged queries have no text"),
            *count_ids(missing, "judgements name missing documents"),
            *count_ids([q for q in kept if not queries[q].strip()], "queries are empty"),
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
    return _texts(Path(path), "doc", "docno", documents_with_ids)


def read_queries(path: str | Path) -> dict[str, str]:
    """Read queries: their text, or the title of TREC topics.

    Raises:
        InputError: The file is missing or damaged, or a record has no id or no text.
    """
    return _texts(Path(path), "top", "num", queries_with_ids)


def _existing(path: Path) -> Path:
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.exists() and not path.exists() else path


def _texts(
    path: Path,
    element: str,
    number: str,
    read_table: Callable[[Path], Iterator[tuple[str, str, str]]],
) -> dict[str, str]:
    texts: dict[str, str] = {}
    rows = read_table(path) if has_fields(path) else _elements(path, element, number)
    for _, name, text in rows:
        if name in texts:
            raise InputError(f"{path} has two texts with the id {name!r}", hint="keep one of them")
        texts[name] = text
    if not texts:
        raise InputError(
            f"{path} holds no texts",
            hint=f"supported: .jsonl, .csv, .tsv, .parquet, and TREC files of <{element}>",
        )
    return texts


def _elements(path: Path, element: str, number: str) -> Iterator[tuple[str, str, str]]:
    """Parse TREC elements; topics do not close their inner tags."""
    text = "".join(read_lines(path))
    for match in re.finditer(rf"<{element}>(.*?)</{element}>", text, re.IGNORECASE | re.DOTALL):
        inside = match[1]
        found = re.search(rf"<{number}>\s*(?:number:)?\s*([^<\s]+)", inside, re.IGNORECASE)
        if not found:
            continue
        title = re.search(r"<title>\s*(?:topic:)?([^<]*)", inside, re.IGNORECASE)
        parts = [title[1]] if element == "top" and title else [m[2] for m in _BODY.finditer(inside)]
        plain = [html.unescape(re.sub(r"<[^>]*>", " ", part)) for part in parts]
        yield str(path), found[1], join_parts(" ".join(part.split()) for part in plain)
