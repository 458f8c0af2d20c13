"""`Lexical`: BM25 over the texts of one namespace, by SQLite's FTS5 (Robertson & Zaragoza 2009).

The words live in the ledger's own file and change in the same transaction as the items. FTS5 keeps
no second copy of the texts: it reads them from the items through a view, and can be rebuilt from
them. A namespace has its own table, so that how rare a word is, is told by that namespace alone.

A query is any text. Its words are alternatives, and a word of several parts is a phrase:

>>> match_expression('reset XR-2000B "quickly"')
'"reset" OR "XR-2000B" OR "quickly"'

Words are folded (case, accents) and English endings dropped (Porter 1980).
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from idiolect.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["Lexical", "match_expression"]

_TOKENIZER = "porter unicode61 remove_diacritics 2"
_MOST_WORDS = 256  # of one query; a page pasted into the search box is cut there
_SNIPPET = 32  # words


class Lexical:
    """The words of one namespace, seen through one connection."""

    def __init__(self, db: sqlite3.Connection, namespace: int) -> None:
        self._db = db
        self._words = f"words_{namespace}"
        self._texts = f"texts_{namespace}"
        self._namespace = namespace

    def create(self) -> None:
        """Create the tables of a new namespace."""
        self._db.execute(
            f"CREATE VIEW {self._texts} AS SELECT row, text FROM items"
            f" WHERE namespace = {self._namespace} AND text <> ''"
        )
        self._db.execute(
            f"CREATE VIRTUAL TABLE {self._words} USING fts5"
            f" (text, content='{self._texts}', content_rowid='row', tokenize='{_TOKENIZER}')"
        )

    def drop(self) -> None:
        """Remove the tables."""
        self._db.execute(f"DROP TABLE {self._words}")
        self._db.execute(f"DROP VIEW {self._texts}")

    def add(self, rows: Iterable[tuple[int, str]]) -> None:
        """Add the text of each row; an empty one is not added."""
        self._db.executemany(f"INSERT INTO {self._words} (rowid, text) VALUES (?, ?)", rows)

    def remove(self, rows: Iterable[tuple[int, str]]) -> None:
        """Remove rows; each comes with the text it was added with."""
        self._db.executemany(
            f"INSERT INTO {self._words} ({self._words}, rowid, text) VALUES ('delete', ?, ?)", rows
        )

    def rebuild(self) -> None:
        """Read all texts again."""
        self._db.execute(f"INSERT INTO {self._words} ({self._words}) VALUES ('rebuild')")

    def optimise(self) -> None:
        """Join the parts of the index into one."""
        self._db.execute(f"INSERT INTO {self._words} ({self._words}) VALUES ('optimize')")

    def verify(self) -> None:
        """Compare the index with the texts.

        Raises:
            CheckpointError: they differ.
        """
        try:
            self._db.execute(
                f"INSERT INTO {self._words} ({self._words}, rank) VALUES ('integrity-check', 1)"
            )
        except sqlite3.DatabaseError as error:
            raise CheckpointError(
                f"the word index {self._words} does not fit the texts: {error}",
                hint="compact the index: it is rebuilt from the items",
            ) from None

    def search(
        self, query: str, k: int, among: Collection[int] | None = None
    ) -> list[tuple[int, float]]:
        """Return the k best (row, BM25 score), larger being better; ties go to the older row.

        Args:
            query: any text; without a word in it nothing is found.
            k: how many rows.
            among: only these rows, or None for all.
        """
        expression = match_expression(query)
        if not expression:
            return []
        limit = f"LIMIT {k}" if among is None else ""
        cursor = self._db.execute(
            f"SELECT rowid, -rank FROM {self._words} WHERE {self._words} MATCH ?"
            f" ORDER BY rank, rowid {limit}",
            (expression,),
        )
        found: list[tuple[int, float]] = []
        for row, score in cursor:
            if among is None or row in among:
                found.append((row, score))
                if len(found) == k:
                    break
        cursor.close()
        return found

    def highlight(
        self, query: str, rows: Collection[int], before: str, after: str
    ) -> dict[int, str]:
        """Return the part of each row's text that holds most of the query's words, marked.

        Rows that hold none of the words are left out.
        """
        expression = match_expression(query)
        if not expression or not rows:
            return {}
        places = ",".join("?" * len(rows))
        return dict(
            self._db.execute(
                f"SELECT rowid, snippet({self._words}, 0, ?, ?, '…', {_SNIPPET})"
                f" FROM {self._words} WHERE {self._words} MATCH ? AND rowid IN ({places})",
                (before, after, expression, *rows),
            )
        )


def match_expression(query: str) -> str:
    """Return the FTS5 expression that finds any of a text's words; empty if it has none."""
    clean = query.encode(errors="ignore").decode().replace("\x00", " ").replace('"', " ")
    words = dict.fromkeys(clean.split())
    return " OR ".join(f'"{word}"' for word in list(words)[:_MOST_WORDS])
