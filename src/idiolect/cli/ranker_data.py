"""Training data of `idiolect tune cross-encoder`, `two-tower` and `lambdamart`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from idiolect.cli.judged_data import read_collection, read_named_runs
from idiolect.errors import ConfigError, InputError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from idiolect.ranking.evaluation.judged_collection import JudgedCollection
    from idiolect.ranking.evaluation.metrics import Evaluation, Run
    from idiolect.ranking.groups import QueryGroup
    from idiolect.ranking.rerank import Scorer

__all__ = [
    "JudgedFiles",
    "TrainingSource",
    "Validation",
    "covered_queries",
    "judged_groups",
    "ndcg",
    "require_relevant",
    "unjudged_groups",
]

_ANY = sys.float_info.min
"""The smallest grade of a relevant document."""


@dataclass(frozen=True)
class TrainingSource:
    """Judged data with the candidates of each query."""

    collection: JudgedCollection
    candidates: Run
    """The best documents of each query."""


@dataclass(frozen=True)
class JudgedFiles:
    """The data files given by the options of a command, not yet read."""

    data: Path | None
    """A folder in the BEIR layout, instead of the single files."""
    split: str
    documents: Path | None
    queries: Path | None
    qrels: Path | None
    run: Path | None = None
    """A TREC run with the candidates. Without it, BM25 finds them."""
    top_k: int = 100
    """Candidates of each query."""

    def read(self) -> TrainingSource:
        """Read judged data and find the candidates of its queries."""
        collection = self.read_judged()
        require_relevant(collection)
        return TrainingSource(collection, self._candidates(collection))

    def read_judged(self) -> JudgedCollection:
        """Read judged data and report skipped records."""
        with _status("reading the judged data"):
            collection = read_collection(
                self.data, self.split, self.documents, self.queries, self.qrels
            )
        for note in collection.notes:
            _note(note)
        return collection

    def read_unjudged(self) -> TrainingSource:
        """Read queries and documents without judgements, and find the candidates."""
        from idiolect.ranking.evaluation.judged_collection import (
            JudgedCollection,
            read_documents,
            read_queries,
        )

        if self.documents is None or self.queries is None:
            raise ConfigError("no queries or no documents", hint="give --documents and --queries")
        collection = JudgedCollection(
            read_documents(self.documents), read_queries(self.queries), {}
        )
        return TrainingSource(collection, self._candidates(collection))

    def read_split(self, split: str) -> TrainingSource:
        """Read another split of the folder, and find the candidates of its queries."""
        if self.data is None:
            raise ConfigError("--valid-split without --data", hint="give a folder with splits")
        from idiolect.ranking.evaluation.judged_collection import read_run

        files = JudgedFiles(self.data, split, None, None, None, self.run, self.top_k)
        collection = files.read_judged()
        # The run of the training queries need not contain those of another split.
        covers = self.run is not None and not collection.queries.keys().isdisjoint(
            read_run(self.run)
        )
        files = files if covers else replace(files, run=None)
        return TrainingSource(collection, files._candidates(collection))

    def _candidates(self, collection: JudgedCollection) -> dict[str, dict[str, float]]:
        """Return the best documents of each query, by the run or by BM25."""
        from idiolect.ranking.feature_settings import FeatureSettings
        from idiolect.ranking.rerank import check_run

        runs = {} if self.run is None else read_named_runs([str(self.run)])
        texts = collection.queries, collection.documents
        with _status("finding candidates"):
            found = FeatureSettings(runs=tuple(runs)).candidates(runs, *texts, depth=self.top_k)
        found = covered_queries(found, collection, str(self.run or "BM25"))
        check_run(found, *texts)
        return found


@dataclass(frozen=True)
class Validation:
    """Report nDCG@10 on a held-out split, if there is one."""

    source: TrainingSource | None
    top_k: int

    @classmethod
    def read(cls, files: JudgedFiles, split: str | None) -> Validation:
        """Read the split and report the nDCG@10 of its candidates."""
        if split is None:
            return cls(None, files.top_k)
        source = files.read_split(split)
        value = ndcg(source.collection, source.candidates)
        typer.echo(f"nDCG@10 of the candidates: {value:.4f}")
        return cls(source, files.top_k)

    def measure(self, when: str, score: Scorer) -> None:
        """Report the nDCG@10 after reranking by a model."""
        if self.source is None:
            return
        from idiolect.ranking.rerank import rerank

        collection = self.source.collection
        texts = collection.queries, collection.documents
        better = rerank(self.source.candidates, *texts, score, top_k=self.top_k)
        typer.echo(f"nDCG@10 {when}: {ndcg(collection, better):.4f}")


def covered_queries(
    found: dict[str, dict[str, float]], collection: JudgedCollection, name: str
) -> dict[str, dict[str, float]]:
    """Return the queries that have candidates, and report the others."""
    kept = {query: documents for query, documents in found.items() if documents}
    if not kept:
        raise InputError(
            f"{name} has no candidates for any of the {len(collection.queries)} queries",
            hint="give a run of these queries",
        )
    if missing := len(collection.queries) - len(kept):
        _note(f"{missing} queries have no candidates")
    return kept


def require_relevant(collection: JudgedCollection) -> None:
    """Check that there is a relevant document.

    Raises:
        InputError: There is no relevant document.
    """
    if not any(g > 0 for grades in collection.qrels.values() for g in grades.values()):
        raise InputError(
            "no query has a relevant document", hint="relevant documents have a grade above 0"
        )


def judged_groups(source: TrainingSource, negatives: int, loss: str, seed: int) -> list[QueryGroup]:
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
    # A softmax over one document is always 1, so there is nothing to learn.
    usable = groups if loss == "pointwise" else [g for g in groups if len(g.documents) > 1]
    if not usable:
        raise InputError(
            "no query has both a relevant document and a negative",
            hint="give a run with more candidates, or --loss pointwise",
        )
    if unused := len(groups) - len(usable):
        _note(f"{unused} relevant documents have no negatives and are left out")
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
    """Return the nDCG@10 of a run; queries without candidates count as zero."""
    from idiolect.ranking.evaluation.metrics import evaluate

    # As in training, any grade above 0 is relevant, such as a mean of assessors or a gain of 0.1.
    found: Evaluation = evaluate(collection.qrels, run, metrics=["ndcg@10"], relevant=_ANY)
    return found.means["ndcg@10"]


def _note(text: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(f"note: {text}", style="yellow", markup=False)


def _status(text: str) -> AbstractContextManager[object]:
    from idiolect.training.progress import status

    return status(text)
