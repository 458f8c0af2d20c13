"""`Lexical`: BM25 search of the texts of one namespace, with SQLite's FTS5.

BM25: Robertson & Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009.

The full-text index is part of the ledger file, and changes in the same transaction as the items.
FTS5 stores no second copy of the texts: it reads them from the items through a view, and can be
rebuilt from them. Each namespace has its own table, so that document frequencies are its own.

A query is any text. Its words are joined by OR, and a word with several parts is a phrase:

>>> match_expression('reset XR-2000B "quickly"')
'"reset" OR "XR-2000B" OR "quickly"'

Case and accents are ignored. Words are stemmed in the language of the index, in English by default
(Porter 1980). Text of scripts without spaces is indexed as pairs of characters; see
`idiolect.search.store.lexical_terms`.
"""

from __future__ import annotations

import sqlite3
from functools import cached_property
from typing import TYPE_CHECKING

from idiolect.errors import CheckpointError
from idiolect.search.store.lexical_terms import excerpt, index_text, query_terms, tokenizer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

__all__ = ["Lexical", "add_functions", "match_expression"]

_MAX_QUERY_WORDS = 256  # bounds the cost of a whole page pasted as a query
_SNIPPET = 32  # words


class Lexical:
    """The full-text index of one namespace, on one connection."""

    def __init__(self, db: sqlite3.Connection, namespace: int) -> None:
        self._db = db
        self._table = f"words_{namespace}"
        self._view = f"texts_{namespace}"
        self._namespace = namespace

    @cached_property
    def _language(self) -> str:
        query = "SELECT value FROM settings WHERE name = 'language'"
        return str(self._db.execute(query).fetchone()[0])

    def _indexed(self, rows: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        """Yield the text of each row in the form in which it is indexed."""
        language = self._language
        return ((row, index_text(text, language)) for row, text in rows)

    def create(self) -> None:
        """Create the tables of a new namespace."""
        self._db.execute(
            f"CREATE VIEW {self._view} AS SELECT row, index_text(text, '{self._language}') AS text"
            f" FROM items WHERE namespace = {self._namespace} AND text <> ''"
        )
        self._db.execute(
            f"CREATE VIRTUAL TABLE {self._table} USING fts5"
            f" (text, content='{self._view}', content_rowid='row',"
            f" tokenize='{tokenizer(self._language)}')"
        )

    def drop(self) -> None:
        """Remove the tables."""
        self._db.execute(f"DROP TABLE {self._table}")
        self._db.execute(f"DROP VIEW {self._view}")

    def add(self, rows: Iterable[tuple[int, str]]) -> None:
        """Add the text of each row; an empty one is not added."""
        self._db.executemany(
            f"INSERT INTO {self._table} (rowid, text) VALUES (?, ?)", self._indexed(rows)
        )

    def remove(self, rows: Iterable[tuple[int, str]]) -> None:
        """Remove rows; each comes with the text that was indexed for it."""
        self._db.executemany(
            f"INSERT INTO {self._table} ({self._table}, rowid, text) VALUES ('delete', ?, ?)",
            self._indexed(rows),
        )

    def rebuild(self) -> None:
        """Rebuild the index from the texts."""
        self._db.execute(f"INSERT INTO {self._table} ({self._table}) VALUES ('rebuild')")

    def optimize(self) -> None:
        """Merge the segments of the index."""
        self._db.execute(f"INSERT INTO {self._table} ({self._table}) VALUES ('optimize')")

    def verify(self) -> None:
        """Compare the index with the texts. The caller must hold the write lock.

        Raises:
            CheckpointError: they differ.
        """
        try:
            self._db.execute(
                f"INSERT INTO {self._table} ({self._table}, rank) VALUES ('integrity-check', 1)"
            )
        except sqlite3.DatabaseError as error:
            raise CheckpointError(
                f"the full-text index {self._table} does not match the texts: {error}",
                hint="run `idiolect index compact --rebuild`",
            ) from None

    def search(
        self, query: str, top_k: int, allowed: Collection[int] | None = None
    ) -> list[tuple[int, float]]:
        """Return the k best (row, BM25 score), best first; the older row wins a tie.

        Args:
            query: any text; a query without words finds nothing.
            top_k: the number of rows.
            allowed: the rows to search, or None for all.
        """
        terms = _terms(query, self._language)
        if not terms:
            return []
        if allowed is None and (rarer := self._rarer(terms)):
            found = self._best(rarer, top_k, None)
            if len(found) == top_k:
                return found
        return self._best(terms, top_k, allowed)

    def _rarer(self, terms: Sequence[str]) -> list[str]:
        """Return the terms that fewer than half of the items contain; none if that is all terms.

        FTS5 multiplies the other ones by 0.000001, but ranks every row that contains one, so that
        "the" and "of" take longer than all other words together.
        """
        if len(terms) == 1:
            return []
        query = f"SELECT count(*) FROM {self._table} WHERE {self._table} MATCH ?"
        counts = [self._db.execute(query, (term,)).fetchone()[0] for term in terms]
        # Count no more items than matter: rare words are found in less time than all are counted.
        query = "SELECT count(*) FROM (SELECT 1 FROM items WHERE namespace = ? LIMIT ?)"
        most = (self._namespace, 2 * max(counts) + 1)
        (items,) = self._db.execute(query, most).fetchone()
        rarer = [term for term, count in zip(terms, counts, strict=True) if 2 * count < items]
        return rarer if len(rarer) < len(terms) else []

    def _best(
        self, terms: Sequence[str], top_k: int, allowed: Collection[int] | None
    ) -> list[tuple[int, float]]:
        """Rank the rows that contain at least one term."""
        limit = f"LIMIT {top_k}" if allowed is None else ""
        cursor = self._db.execute(
            f"SELECT rowid, -rank FROM {self._table} WHERE {self._table} MATCH ?"
            f" ORDER BY rank, rowid {limit}",
            (" OR ".join(terms),),
        )
        found: list[tuple[int, float]] = []
        for row, score in cursor:
            if allowed is None or row in allowed:
                found.append((row, score))
                if len(found) == top_k:
                    break
        cursor.close()
        return found

    def highlight(
        self, query: str, rows: Collection[int], before: str, after: str
    ) -> dict[int, str]:
        """Return an excerpt of each row's text, with the words of the query marked.

        Rows that contain none of the words are skipped.
        """
        expression = match_expression(query, self._language)
        if not expression or not rows:
            return {}
        places = ",".join("?" * len(rows))
        found: dict[int, str] = dict(
            self._db.execute(
                f"SELECT rowid, snippet({self._table}, 0, ?, ?, '…', {_SNIPPET})"
                f" FROM {self._table} WHERE {self._table} MATCH ? AND rowid IN ({places})",
                (before, after, expression, *rows),
            )
        )
        texts = self._db.execute(
            f"SELECT row, text FROM items WHERE row IN ({','.join('?' * len(found))})", (*found,)
        )
        for row, text in texts:
            if index_text(text, self._language) != text:
                found[row] = excerpt(query, text, before, after, self._language)
        return found


def add_functions(db: sqlite3.Connection) -> None:
    """Add the SQL function that the views use to a connection."""
    db.create_function("index_text", 2, index_text, deterministic=True)


def match_expression(query: str, language: str = "en") -> str:
    """Return the FTS5 expression that matches any word of a text; empty if it has no words."""
    return " OR ".join(_terms(query, language))


def _terms(query: str, language: str) -> list[str]:
    cleaned = query.encode(errors="ignore").decode().replace("\x00", " ").replace('"', " ")
    return query_terms(cleaned, language)[:_MAX_QUERY_WORDS]
