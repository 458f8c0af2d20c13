"""Pairs of a query and a relevant document: read from files and indexed for training.

A file in `.jsonl`, `.json`, `.csv`, `.tsv` or `.parquet` has one record per pair:

    query, document        texts, or ids if the texts are in separate files
    negative…              all fields with this prefix: one or more texts that are not relevant
    scores                 a teacher's scores of the document and its negatives, in that order

In `.csv` a list is written as JSON. The names of the fields for query and document can be set.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from idiolect.errors import InputError
from idiolect.text.arguments import iterate, wrong_type
from idiolect.text.fields import id_text, shown_names
from idiolect.text.keyed_texts import documents_with_ids, queries_with_ids
from idiolect.text.records import IdReader, numbered_records, unusable
from idiolect.text.skipped import MAX_UNREADABLE, Skipped, skip, summary
from idiolect.text.text_file import TextFile, text_digest

__all__ = ["Pair", "PairFile", "PairTable", "read_query_texts", "read_texts"]


@dataclass(frozen=True)
class Pair:
    """A query and a relevant document."""

    query: str
    document: str
    negatives: tuple[str, ...] = ()
    """Documents that are not relevant."""
    scores: tuple[float, ...] = ()
    """A teacher's scores of the document and the negatives; may be empty."""


class PairFile:
    """The pairs of a file. Each iteration reads the file again.

    Args:
        path: The file.
        query: Name of the field with the query.
        document: Name of the field with the document.
        queries: Query texts by id, if the field holds ids.
        documents: Texts of documents and negatives by id, if the fields hold ids.
        max_unreadable: The share of rows that may be unreadable.

    Raises:
        InputError: The file cannot be read; on iteration also: too many rows cannot be read, a
            field is missing, an id has no text, scores are invalid, or there are no pairs.
    """

    skipped: Skipped
    """Records skipped in the latest iteration: counts by reason, and where the first ones are."""

    def __init__(
        self,
        path: str | Path,
        *,
        query: str = "query",
        document: str = "document",
        queries: Mapping[str, str] | None = None,
        documents: Mapping[str, str] | None = None,
        max_unreadable: float = MAX_UNREADABLE,
    ) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"no such file: {path}", hint="check the path")
        self._query, self._document = query, document
        self._queries, self._documents = queries, documents
        self._max_unreadable = max_unreadable
        self.skipped = Skipped()
        self._id_of = IdReader(self.path)

    def __iter__(self) -> Iterator[Pair]:
        self.skipped = skipped = Skipped()
        found = False
        records = numbered_records(self.path, skipped, max_unreadable=self._max_unreadable)
        for place, record in records:
            pair = self._pair(record, f"{self.path}, {place}")
            texts = (pair.query, pair.document, *pair.negatives)
            reason = next((reason for text in texts if (reason := unusable(text))), None)
            if reason is not None:
                skip(skipped, reason, f"{self.path.name} {place}")
                continue
            found = True
            yield pair
        if not found:
            raise InputError(
                f"no pairs in {self.path}",
                hint=f"skipped: {summary(skipped)}" if skipped else "it is empty",
            )

    def _pair(self, record: Mapping[str, Any], where: str) -> Pair:
        missing = [name for name in (self._query, self._document) if record.get(name) is None]
        if missing:
            raise InputError(
                f"{where} has no field {' and no field '.join(missing)}",
                hint=f"there are {shown_names(record)}; name those with query and document",
            )
        negatives = [
            one
            for name, value in record.items()
            if str(name).startswith("negative")
            for one in _listed(value, name, where, ids=self._documents is not None)
        ]
        scores = _listed(record.get("scores"), "scores", where)
        if any(isinstance(score, bool) or not isinstance(score, int | float) for score in scores):
            raise InputError(f"{where}: scores are {scores!r}", hint="expected a list of numbers")
        return Pair(
            _text(self._cell(record, self._query, self._queries), self._queries, "query", where),
            _text(
                self._cell(record, self._document, self._documents),
                self._documents,
                "document",
                where,
            ),
            tuple(_text(one, self._documents, "document", where) for one in negatives),
            tuple(float(score) for score in scores),
        )

    def _cell(self, record: Mapping[str, Any], name: str, texts: object) -> Any:
        """Return a text, or the id of one."""
        return record[name] if texts is None else self._id_of(record, name)


def read_texts(path: str | Path) -> dict[str, str]:
    """Read a file of documents with ids. Title and text are joined as in an index.

    Raises:
        InputError: The file or a record cannot be read, a record has no id or no text, or an id is
            repeated.
    """
    return _by_id(documents_with_ids(Path(path)))


def read_query_texts(path: str | Path) -> dict[str, str]:
    """Read a file of queries with ids.

    Raises:
        InputError: As for `read_texts`.
    """
    return _by_id(queries_with_ids(Path(path)))


def _by_id(rows: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for place, name, text in rows:
        if name in texts:
            raise InputError(f"{place}: the id {name} comes twice", hint="keep one of them")
        texts[name] = text
    return texts


def _listed(value: Any, name: str, where: str, *, ids: bool = False) -> list[Any]:
    """Return a field's value as a list; a JSON list is parsed.

    A text that begins with a bracket but is not a JSON list of texts (or of ids) is a single value,
    such as `[2024] A review`.
    """
    if value is None or value == "":
        return []
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            parsed = json.loads(value)
        except RecursionError:
            raise InputError(f"{where}: {name} is nested too deeply: {value[:20]!r}…") from None
        except ValueError:
            if name == "scores":
                raise InputError(f"{where}: {name} is {value!r}, not a JSON list") from None
            return [value]
        kinds = str | int | float if ids else str
        if name == "scores" or all(isinstance(one, kinds) for one in parsed):
            return list(parsed)
    return value if isinstance(value, list) else [value]


def _text(value: Any, texts: Mapping[str, str] | None, kind: str, where: str) -> str:
    if texts is None:
        if not isinstance(value, str):
            raise InputError(
                f"{where}: a {kind} is {value!r}, not a text",
                hint=f"if it is an id, provide the texts of the {kind}s",
            )
        return value
    text = texts.get(str(id_text(value)))
    if text is None:
        raise InputError(f"{where}: no {kind} has the id {value!r}", hint="provide all texts")
    return text


@dataclass
class PairTable:
    """Pairs as indices into lists of distinct texts.

    >>> table = PairTable.of([Pair("a", "x"), Pair("a", "y"), Pair("b", "x")])
    >>> table.pairs, table.right
    ([(0, 0), (0, 1), (1, 0)], [{0, 1}, {0}])
    """

    queries: list[str] = field(default_factory=list)
    documents: Sequence[str] = ()
    """The documents of the pairs, and other candidates for negatives; stored on disk."""
    pairs: list[tuple[int, int]] = field(default_factory=list)
    """Query index and document index of each pair."""
    negatives: list[tuple[int, ...]] = field(default_factory=list)
    """The explicit negatives of each pair."""
    scores: list[tuple[float, ...]] = field(default_factory=list)
    """A teacher's scores of each pair's document and negatives."""
    right: list[set[int]] = field(default_factory=list)
    """For each query the documents that are never negatives: its positives, and a document with the
    same text."""

    @classmethod
    def of(cls, pairs: Iterable[Pair], corpus: Iterable[str] = ()) -> Self:
        """Build a table from pairs.

        A negative that is a positive of the same query in another pair is removed.

        Args:
            pairs: The pairs; repeated ones are removed.
            corpus: Additional documents.

        Raises:
            InputError: There are no pairs, a text is empty, or a pair with scores does not have one
                for its document and for each negative.
        """
        table, stored = cls(), TextFile()
        table.documents = stored
        queries, documents = _Numbers(table.queries.append), _Numbers(stored.append)
        rows: dict[tuple[int, int], Pair] = {}
        for number, given in enumerate(iterate(pairs, "pairs", "a list of pairs"), start=1):
            pair = _as_pair(given, number)
            _check(pair, number)
            key = queries.number(pair.query), documents.number(pair.document)
            rows.setdefault(key, pair)
        if not rows:
            raise InputError("no pairs to tune on", hint="check the file of pairs")
        table.pairs = list(rows)
        negatives = [list(map(documents.number, pair.negatives)) for pair in rows.values()]
        for text in corpus:
            documents.number(text)
        table.right = [documents.known(text) for text in table.queries]
        for query, document in table.pairs:
            table.right[query].add(document)
        for (query, _), pair, numbers in zip(table.pairs, rows.values(), negatives, strict=True):
            kept = [i for i, one in enumerate(numbers) if one not in table.right[query]]
            table.negatives.append(tuple(numbers[i] for i in kept))
            places = (0, *(1 + i for i in kept)) if pair.scores else ()
            table.scores.append(tuple(pair.scores[i] for i in places))
        return table

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.pairs)

    @property
    def fingerprint(self) -> str:
        """A hash of all texts, pairs and scores."""
        digest = hashlib.blake2b(digest_size=16)
        for texts in (self.queries, self.documents):
            for text in texts:
                data = text.encode()
                digest.update(len(data).to_bytes(8, "little") + data)
        digest.update(repr((self.pairs, self.negatives, self.scores)).encode())
        return digest.hexdigest()


def _as_pair(value: Any, number: int) -> Pair:
    """Return a pair, which may be a dict of its fields or a tuple of its texts."""
    hint = "pass a Pair, (query, document), or a dict with query and document"
    try:
        if isinstance(value, Mapping):
            value = Pair(**value)
        elif isinstance(value, tuple | list):
            value = Pair(*value)
    except TypeError as error:
        raise InputError(f"pair {number} is {value!r:.80}", hint=hint) from error
    if not isinstance(value, Pair):
        raise wrong_type(value, f"pair {number}", "a pair", hint)
    return value


def _check(pair: Pair, number: int) -> None:
    for text in (pair.query, pair.document, *iterate(pair.negatives, "negatives", "a list")):
        if not isinstance(text, str):
            raise wrong_type(text, f"pair {number}: a text of it", "a text", "pass strings")
    for text in (pair.query, pair.document, *pair.negatives):
        if reason := unusable(text):
            raise InputError(f"pair {number} has an invalid text: {reason}")
    if pair.scores and len(pair.scores) != 1 + len(pair.negatives):
        raise InputError(
            f"pair {number} has {len(pair.scores)} scores and {1 + len(pair.negatives)} documents",
            hint="expected one for the document, then one for each negative",
        )
    if not all(map(math.isfinite, pair.scores)):
        raise InputError(f"pair {number} has the scores {pair.scores}", hint="they must be finite")


class _Numbers:
    """Indices of distinct texts, by digest, so that the texts need not stay in memory."""

    def __init__(self, append: Callable[[str], object]) -> None:
        self._append = append
        self._numbers: dict[bytes, int] = {}

    def number(self, text: str) -> int:
        """Return the index of a text; a new text is appended."""
        digest = text_digest(text)
        if digest not in self._numbers:
            self._numbers[digest] = len(self._numbers)
            self._append(text)
        return self._numbers[digest]

    def known(self, text: str) -> set[int]:
        """Return a set with the index of a text; empty if the text is unknown."""
        digest = text_digest(text)
        return {self._numbers[digest]} if digest in self._numbers else set()
