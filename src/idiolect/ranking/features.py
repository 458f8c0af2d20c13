"""Features for learning to rank: retrieval scores, and values that the caller provides.

Each score yields two features: the score itself, and its ratio to the highest score among the
query's candidates. The ratio makes scores comparable between queries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError
from idiolect.ranking.evaluation.baselines import BM25, Dense
from idiolect.ranking.evaluation.metrics import Run

__all__ = ["Features", "Given"]

Given = Callable[[str, str], float] | Mapping[str, float]
"""A value for a query and a document: a function of both ids, or a number for each document id,
such as a price or how often it was bought. NaN if unknown."""
_Scorer = Callable[[str, Sequence[str]], NDArray[np.float32]]
"""Scores documents for a query, both identified by their ids."""


class Features:
    """Compute feature vectors of query-document pairs.

    >>> features = Features(queries, bm25=BM25(texts), given={"price": prices})  # doctest: +SKIP
    >>> features.names                                                           # doctest: +SKIP
    ('bm25', 'bm25, share', 'price')

    Args:
        queries: The text of each query.
        bm25: Adds the BM25 score.
        dense: Adds the similarity of the embeddings.
        dimensions: Also add the similarity of the embeddings truncated to these sizes (Matryoshka).
        runs: Adds the scores of other systems, by name. NaN for documents a run does not return.
        given: Other features, by name.

    Raises:
        InputError: There are no features, two have one name, or `dimensions` come without `dense`.
    """

    def __init__(
        self,
        queries: Mapping[str, str],
        *,
        bm25: BM25 | None = None,
        dense: Dense | None = None,
        dimensions: Sequence[int] = (),
        runs: Mapping[str, Run] | None = None,
        given: Mapping[str, Given] | None = None,
    ) -> None:
        if dimensions and dense is None:
            raise InputError("dimensions without embeddings", hint="pass dense as well")
        self.queries = queries
        self._scores: dict[str, _Scorer] = {}
        if bm25 is not None:
            self._scores["bm25"] = lambda query, docs: bm25.score(queries[query], docs)
        if dense is not None:
            self._scores["dense"] = lambda query, docs: dense.score(queries[query], docs)
            for size in dimensions:
                self._scores[f"dense, {size} dimensions"] = _truncated(dense, queries, size)
        self._given = dict(given or {})
        for name, run in (runs or {}).items():
            if name in self._scores or name in self._given:
                raise InputError(f"two features named {name!r}", hint="rename one of them")
            self._scores[name] = _run_scorer(run)
        if not self._scores and not self._given:
            raise InputError("no features", hint="pass bm25, dense, runs or given")

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each column."""
        scores = [name for score in self._scores for name in (score, f"{score}, share")]
        return (*scores, *self._given)

    @property
    def single(self) -> tuple[str, ...]:
        """The columns except the ratios, which rank documents in the same order as their scores."""
        return (*self._scores, *self._given)

    def table(self, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        """Return the features of a query's candidates. Shape: (documents, features).

        Args:
            query: The query id.
            documents: The document ids.

        Raises:
            InputError: The query has no text, or a value is infinite.
        """
        if query not in self.queries:
            raise InputError(f"query {query!r} has no text", hint="pass the text of every query")
        columns = []
        for score in self._scores.values():
            values = score(query, documents)
            best = float(np.fmax.reduce(values, initial=0.0))  # ignores NaN
            columns += [values, values / best if best > 0 else np.zeros_like(values)]
        for value in self._given.values():
            columns.append(np.array([_look_up(value, query, name) for name in documents]))
        table = np.stack(columns, axis=1).astype(np.float32)
        if np.isinf(table).any():
            row, column = (int(index) for index in np.argwhere(np.isinf(table))[0])
            raise InputError(
                f"the feature {self.names[column]!r} of document {documents[row]!r} for query "
                f"{query!r} is infinite",
                hint="use NaN for unknown values",
            )
        return table

    def rankings(self, run: Run) -> dict[str, dict[str, dict[str, float]]]:
        """Rank the candidates by each single feature.

        Returns:
            A run for each feature, by the feature's name.

        Args:
            run: The candidates. A document without a value is left out of that feature's ranking.

        Raises:
            InputError: As for `table`.
        """
        columns = [(name, self.names.index(name)) for name in self.single]
        result: dict[str, dict[str, dict[str, float]]] = {name: {} for name, _ in columns}
        for query, found in run.items():
            if not found:
                continue
            documents = list(found)
            table = self.table(query, documents)
            for name, column in columns:
                values = zip(documents, table[:, column].tolist(), strict=True)
                result[name][query] = {doc: value for doc, value in values if value == value}
        return result


def _look_up(value: Given, query: str, document: str) -> float:
    if isinstance(value, Mapping):
        return float(value.get(document, np.nan))
    return float(value(query, document))


def _truncated(dense: Dense, queries: Mapping[str, str], size: int) -> _Scorer:
    return lambda query, docs: dense.score(queries[query], docs, dimensions=size)


def _run_scorer(run: Run) -> _Scorer:
    def score(query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        found = run.get(query, {})
        return np.array([found.get(doc, np.nan) for doc in documents], np.float32)

    return score
