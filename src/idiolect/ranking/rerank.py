"""Rerank the candidates of a search with a slower, more precise model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError, VerificationError
from idiolect.ranking.evaluation.metrics import Run, ranked
from idiolect.text.arguments import iterate
from idiolect.training.progress import track

__all__ = ["Scorer", "check_pairs", "check_run", "rerank"]

Scorer = Callable[[Sequence[tuple[str, str]]], NDArray[np.float32]]
"""Scores pairs of a query text and a document text. Shape of the result: (pairs,)."""


def rerank(
    run: Run,
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    score: Scorer,
    *,
    top_k: int = 100,
    progress: bool = False,
) -> dict[str, dict[str, float]]:
    """Rerank the best documents of each query by a model's scores and drop the others.

    Args:
        run: The candidates. Queries without text or candidates are left out of the result.
        queries: The text of each query.
        documents: The text of each document.
        score: The model's scoring function, such as `CrossEncoder.score`.
        top_k: Number of documents to rerank per query.
        progress: Show the progress.

    Raises:
        InputError: The run names a query or document that has no text.
        VerificationError: A score is not finite.
    """
    check_run(run, queries, documents)
    result: dict[str, dict[str, float]] = {}
    for query in track(run, "reranking", len(run), shown=progress):
        found = run[query]
        names = ranked(found)[:top_k]
        if not names or not queries[query].strip():
            continue
        scores = score([(queries[query], documents[name]) for name in names])
        if not np.isfinite(scores).all():
            bad = names[int(np.flatnonzero(~np.isfinite(scores))[0])]
            raise VerificationError(
                f"the score of document {bad!r} for query {query!r} is not finite",
                hint="the model's weights are damaged or its training diverged",
            )
        result[query] = dict(zip(names, scores.tolist(), strict=True))
    return result


def check_pairs(pairs: Any) -> list[tuple[str, str]]:
    """Return pairs of a query and a document as a list.

    Raises:
        InputError: `pairs` is not a list of pairs of texts.
    """
    checked = []
    for number, pair in enumerate(iterate(pairs, "pairs", "a list of pairs")):
        two = isinstance(pair, Iterable) and not isinstance(pair, str | bytes | Mapping)
        if not two or len(texts := [*pair]) != 2 or not all(isinstance(t, str) for t in texts):
            raise InputError(
                f"pair {number} is {pair!r:.80}", hint="pass [(query, document), …], all texts"
            )
        checked.append((texts[0], texts[1]))
    return checked


def check_run(run: Run, queries: Mapping[str, str], documents: Mapping[str, str]) -> None:
    """Check that all queries and documents of a run have text.

    Raises:
        InputError: The run names a query or document that has no text.
    """
    unknown = [query for query in run if query not in queries]
    unknown += [doc for found in run.values() for doc in found if doc not in documents]
    if unknown:
        raise InputError(
            f"{len(unknown)} ids of the run have no text: {', '.join(map(str, unknown[:3]))}",
            hint="pass the queries and documents that the run was made with",
        )
