"""Read test collections: documents, queries and relevance judgements (qrels).

Three layouts are supported. They may be mixed, and each file may be gzipped:

    BEIR   corpus.jsonl (_id, title, text)   queries.jsonl (_id, text)   qrels/test.tsv
    TREC   <doc> and <top> elements          qrels: query 0 document grade
    tables .csv, .tsv or .parquet with a header, such as query,docid,rating

See `idiolect.ranking.evaluation.judgement_files` for the layouts of judgements and runs.
Ids that occur in one file but are missing in another are reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from idiolect.errors import InputError
from idiolect.ranking.evaluation.judgement_files import read_qrels, read_run, write_run
from idiolect.ranking.evaluation.metrics import Qrels, count_ids
from idiolect.ranking.evaluation.trec_elements import read_elements
from idiolect.text.keyed_texts import documents_with_ids, queries_with_ids
from idiolect.text.records import KNOWN_TYPES, has_fields

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
    """Messages about parts that were left out."""

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
    """Read documents. Title and text are joined as in an index.

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


def _existing(path: Path) -> Path:
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.exists() and not path.exists() else path


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
