"""Training data of `idiolect tune cross-encoder`, `two-tower` and `lambdamart`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from idiolect.cli.judged_data import read_collection, read_named_runs
from idiolect.errors import ConfigError, InputError

if TYPE_CHECKING:
    from rich.console import Console

    from idiolect.ranking.evaluation.judged_collection import JudgedCollection
    from idiolect.ranking.evaluation.metrics import Evaluation, Run
    from idiolect.ranking.groups import QueryGroup
    from idiolect.ranking.rerank import Scorer

__all__ = [
    "TrainingSource",
    "Validation",
    "covered_queries",
    "judged_groups",
    "ndcg",
    "read_judged",
    "read_source",
    "read_unjudged",
    "require_relevant",
    "unjudged_groups",
]


@dataclass(frozen=True)
class TrainingSource:
    """Judged data with the candidates of each query."""

    collection: JudgedCollection
    candidates: Run
    """The best documents of each query."""


@dataclass(frozen=True)
class Validation:
    """Report nDCG@10 on a held-out split, if there is one."""

    source: TrainingSource | None
    top_k: int

    @classmethod
    def read(
        cls, errors: Console, data: Path | None, split: str | None, run: Path | None, top_k: int
    ) -> Validation:
        """Read the split and report the nDCG@10 of its candidates."""
        if split is None:
            return cls(None, top_k)
        if data is None:
            raise ConfigError("--valid-split without --data", hint="give a folder with splits")
        from idiolect.ranking.evaluation.judged_collection import read_run

        collection = read_judged(errors, data, split, None, None, None)
        # The run of the training queries need not have those of another split.
        covers = run is not None and not collection.queries.keys().isdisjoint(read_run(run))
        candidates = _candidates(errors, collection, run if covers else None, top_k)
        source = TrainingSource(collection, candidates)
        typer.echo(f"nDCG@10 of the candidates: {ndcg(collection, candidates):.4f}")
        return cls(source, top_k)

    def measure(self, when: str, score: Scorer) -> None:
        """Report the nDCG@10 after reranking by a model."""
        if self.source is None:
            return
        from idiolect.ranking.rerank import rerank

        collection = self.source.collection
        texts = collection.queries, collection.documents
        better = rerank(self.source.candidates, *texts, score, top_k=self.top_k)
        typer.echo(f"nDCG@10 {when}: {ndcg(collection, better):.4f}")


def read_source(
    errors: Console,
    data: Path | None,
    split: str,
    documents: Path | None,
    queries: Path | None,
    qrels: Path | None,
    run: Path | None,
    top_k: int,
) -> TrainingSource:
    """Read judged data and find the candidates of its queries."""
    collection = read_judged(errors, data, split, documents, queries, qrels)
    require_relevant(collection)
    return TrainingSource(collection, _candidates(errors, collection, run, top_k))


def read_judged(
    errors: Console,
    data: Path | None,
    split: str,
    documents: Path | None,
    queries: Path | None,
    qrels: Path | None,
) -> JudgedCollection:
    """Read judged data and report what it leaves out."""
    with errors.status("reading the judged data"):
        collection = read_collection(data, split, documents, queries, qrels)
    for note in collection.notes:
        _note(errors, note)
    return collection


def read_unjudged(
    errors: Console, documents: Path | None, queries: Path | None, run: Path | None, top_k: int
) -> TrainingSource:
    """Read queries and documents without judgements, and find the candidates."""
    from idiolect.ranking.evaluation.judged_collection import (
        JudgedCollection,
        read_documents,
        read_queries,
    )

    if documents is None or queries is None:
        raise ConfigError("no queries or no documents", hint="give --documents and --queries")
    collection = JudgedCollection(read_documents(documents), read_queries(queries), {})
    return TrainingSource(collection, _candidates(errors, collection, run, top_k))


def _candidates(
    errors: Console, collection: JudgedCollection, run: Path | None, top_k: int
) -> dict[str, dict[str, float]]:
    """Return the best documents of each query, by a run or by BM25."""
    from idiolect.ranking.feature_settings import FeatureSettings
    from idiolect.ranking.rerank import check_run

    runs = {} if run is None else read_named_runs([str(run)])
    texts = collection.queries, collection.documents
    with errors.status("finding candidates"):
        found = FeatureSettings(runs=tuple(runs)).candidates(runs, *texts, depth=top_k)
    found = covered_queries(errors, found, collection, str(run or "BM25"))
    check_run(found, *texts)
    return found


def covered_queries(
    errors: Console, found: dict[str, dict[str, float]], collection: JudgedCollection, name: str
) -> dict[str, dict[str, float]]:
    """Return the queries that have candidates, and report the others."""
    kept = {query: documents for query, documents in found.items() if documents}
    if not kept:
        raise InputError(
            f"{name} has no candidates for any of the {len(collection.queries)} queries",
            hint="give a run of these queries",
        )
    if missing := len(collection.queries) - len(kept):
        _note(errors, f"{missing} queries have no candidates")
    return kept


def require_relevant(collection: JudgedCollection) -> None:
    """Check that there is a relevant document.

    Raises:
        InputError: There is none.
    """
    if not any(g > 0 for grades in collection.qrels.values() for g in grades.values()):
        raise InputError(
            "no query has a relevant document", hint="relevant documents have a grade above 0"
        )


def judged_groups(
    errors: Console, source: TrainingSource, negatives: int, loss: str, seed: int
) -> list[QueryGroup]:
    """Group relevant documents with negatives.

    Raises:
        InputError: No group can be trained on.
    """
    from idiolect.ranking.groups import make_groups

    data = source.collection
    groups = make_groups(
        data.queries,
        data.documents,
        data.qrels,
        source.candidates,
        negatives=negatives,
        seed=seed,
    )
    # A softmax over one document is always 1: nothing to learn.
    usable = groups if loss == "pointwise" else [g for g in groups if len(g.documents) > 1]
    if not usable:
        raise InputError(
            "no query has both a relevant document and a negative",
            hint="give a run with more candidates, or --loss pointwise",
        )
    if unused := len(groups) - len(usable):
        _note(errors, f"{unused} relevant documents have no negatives and are left out")
    return usable


def unjudged_groups(source: TrainingSource, negatives: int, seed: int) -> list[QueryGroup]:
    """Group candidates for a teacher to label.

    Raises:
        InputError: No query has two candidates.
    """
    from idiolect.ranking.groups import candidate_groups

    data = source.collection
    texts = data.queries, data.documents
    groups = candidate_groups(*texts, source.candidates, negatives=negatives, seed=seed)
    if not groups:
        raise InputError("no query has two candidates", hint="give a run with more candidates")
    return groups


def ndcg(collection: JudgedCollection, run: Run) -> float:
    """Return the nDCG@10 of a run."""
    from idiolect.ranking.evaluation.metrics import evaluate

    found: Evaluation = evaluate(collection.qrels, run, metrics=["ndcg@10"])
    return found.means["ndcg@10"]


def _note(errors: Console, text: str) -> None:
    errors.print(f"note: {text}", style="yellow", markup=False)
