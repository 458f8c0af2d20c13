"""What a learnt ranking looks at: scores of searches, and facts that only the user knows.

Every score comes twice: as it is, and as its share of the best that the query's candidates have,
since trees compare one query's numbers with another's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError
from idiolect.ranking.evaluation.baselines import BM25, Dense

__all__ = ["Features", "Given"]

Given = Callable[[str, str], float] | Mapping[str, float]
"""A fact of a query and a document, called with both ids; or a number for each document's id, such
as a price or how often it was bought. Not a number where it is not known."""


class Features:
    """Makes a row of numbers of a query and a document.

    >>> features = Features(queries, bm25=BM25(texts), given={"price": prices})  # doctest: +SKIP
    >>> features.names                                                           # doctest: +SKIP
    ('bm25', 'bm25, share', 'price')

    Args:
        queries: The text of each query.
        bm25: Gives BM25's score.
        dense: Gives the likeness of the vectors.
        dimensions: Also their likeness in so many of the first dimensions (Matryoshka).
        given: More, by name.

    Raises:
        InputError: There is nothing to look at, or dimensions are given and no vectors.
    """

    def __init__(
        self,
        queries: Mapping[str, str],
        *,
        bm25: BM25 | None = None,
        dense: Dense | None = None,
        dimensions: Sequence[int] = (),
        given: Mapping[str, Given] | None = None,
    ) -> None:
        if dimensions and dense is None:
            raise InputError("dimensions without vectors", hint="give dense as well")
        self.queries = queries
        self._scores: dict[str, Callable[[str, Sequence[str]], NDArray[np.float32]]] = {}
        if bm25 is not None:
            self._scores["bm25"] = bm25.score
        if dense is not None:
            self._scores["dense"] = dense.score
            for size in dimensions:
                self._scores[f"dense, {size} dimensions"] = _cut(dense, size)
        self._given = dict(given or {})
        if not self._scores and not self._given:
            raise InputError("no features", hint="give bm25, dense or features of your own")

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each column."""
        shared = [name for score in self._scores for name in (score, f"{score}, share")]
        return (*shared, *self._given)

    def table(self, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        """Return the features of a query's candidates. Shape: (documents, features).

        Args:
            query: Its id.
            documents: Their ids.

        Raises:
            InputError: The query has no text, or a number is infinite.
        """
        if query not in self.queries:
            raise InputError(f"query {query!r} has no text", hint="give all queries")
        columns = []
        for score in self._scores.values():
            values = score(self.queries[query], documents)
            best = float(values.max(initial=0.0))
            columns += [values, values / best if best > 0 else np.zeros_like(values)]
        for fact in self._given.values():
            columns.append(np.array([_look_up(fact, query, name) for name in documents]))
        table = np.stack(columns, axis=1).astype(np.float32)
        if np.isinf(table).any():
            row, column = (int(place) for place in np.argwhere(np.isinf(table))[0])
            raise InputError(
                f"the feature {self.names[column]!r} of document {documents[row]!r} for query "
                f"{query!r} is infinite",
                hint="give not-a-number where it is not known",
            )
        return table


def _look_up(fact: Given, query: str, document: str) -> float:
    if isinstance(fact, Mapping):
        return float(fact.get(document, np.nan))
    return float(fact(query, document))


def _cut(dense: Dense, size: int) -> Callable[[str, Sequence[str]], NDArray[np.float32]]:
    return lambda query, documents: dense.score(query, documents, dimensions=size)
