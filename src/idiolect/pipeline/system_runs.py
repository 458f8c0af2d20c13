"""Rankings of every system of a run, their metrics, and the differences between systems.

- All systems answer the same queries over the same items. They search vectors exactly; only `words`
  and `hybrid` search the finished index, as a user does. For similar items, `hybrid` fuses the
  rankings of the tuned encoder and BM25.
- Vectors of a base that was not published as an encoder are whitened, without using judgements,
  because raw vectors hardly discriminate between texts. Untuned systems are whitened with the
  items' texts, tuning whitens with the documents of its pairs.
- Queries with answers seen in training are easier. If there are such queries, the others are also
  evaluated and compared separately.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import product
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.pipeline.encoder_choice import stored_vectors
from idiolect.pipeline.example_searches import (
    ExampleSearches,
    compare_searches,
    compare_similar,
    find_missed,
    some_queries,
)
from idiolect.pipeline.judged_tests import answerable_queries, lowest_relevant, unseen_queries
from idiolect.pipeline.stage import Work
from idiolect.pipeline.stage_models import load_system
from idiolect.pipeline.stages.index_stage import index_encoder, index_system, open_index
from idiolect.pipeline.systems import MeasuredSystem, PairedDifference, pairs_to_compare
from idiolect.ranking.evaluation.baselines import BM25, Dense
from idiolect.ranking.evaluation.judged_collection import JudgedCollection
from idiolect.ranking.evaluation.metrics import Evaluation, Run
from idiolect.ranking.evaluation.metrics import evaluate as measure
from idiolect.ranking.evaluation.significance import compare
from idiolect.search.fusion import Fusion, fuse
from idiolect.search.index import Index, Mode
from idiolect.search.items import Hit
from idiolect.text.files import write_atomic

__all__ = ["Significance", "System", "SystemRuns"]

_MEASURES = ("ndcg@10", "recall@100", "mrr@10", "judged@10")
_DEPTH = 100


class System(TypedDict):
    """The metrics of a system."""

    name: str
    """bm25, base, vocabulary, pretraining, tuning, words, hybrid; the controls: untrained,
    plain.pretraining, plain.tuning, random.pretraining, random.tuning."""
    label: str
    """For display."""
    control: bool
    search: dict[str, float] | None
    """Means over the queries, by metric: ndcg@10, recall@100, mrr@10, judged@10 (the share of the
    first ten results that have a judgement). None if not measured."""
    similar: dict[str, float] | None
    """The same for similar items."""
    unseen: dict[str, dict[str, float]]
    """The same by test, over the queries without a relevant item in the training pairs; only for
    tests where training has seen the answers of some queries but not of all."""


class Significance(PairedDifference):
    """The difference between two systems over the same queries."""

    test: str
    """search or similar."""
    unseen: bool
    """Whether the comparison covers only queries without answers seen in training."""
    measure: str


class SystemRuns:
    """The rankings of all systems in both tests, and their metrics.

    Args:
        work: The input of the evaluating stage.
        search: The test with queries, if there is one.
        similar: The similar-items test, if there is one.
        seen: Ids of the items that occur in training pairs.
    """

    def __init__(
        self,
        work: Work[Any],
        search: JudgedCollection | None,
        similar: JudgedCollection | None,
        seen: Collection[str],
    ) -> None:
        self.work, self.texts = work, work.data.texts
        self.tests = {"search": search, "similar": similar}
        self.values: dict[str, dict[str, Evaluation]] = {"search": {}, "similar": {}}
        self._bm25 = BM25(self.texts)
        self._tuned: Dense | None = None
        self._unseen = {
            name: unseen_queries(collection, seen)
            for name, collection in self.tests.items()
            if collection is not None
        }
        self._before: Run = {}
        self._found: Run = {}
        # The index's metrics count truncated texts; here each system would log them again.
        self._counts = EncodingCounts()

    def add(self, system: MeasuredSystem) -> None:
        """Evaluate a system on both tests."""
        if not system.ranks:
            return
        if system.by == "bm25":
            self._rank(
                system, self._bm25.search, lambda items: self._bm25.search(items, _DEPTH + 1)
            )
        elif system.by == "vectors":
            self._add_vectors(system)
        else:
            with open_index(self.work.folder.parents[1], self._counts) as index:
                similar = self._fusing(index.fusion) if system.by == "hybrid" else None
                self._rank(system, partial(_search, index, system.by), similar)
                if system.by == "hybrid":
                    self._write_searches(index)

    def _add_vectors(self, system: MeasuredSystem) -> None:
        if system.name == index_system(self.work.folder.parents[1]):
            dense = self._indexed
        else:
            known = stored_vectors(self.work.done["index"], system.name)
            dense = Dense(
                load_system(self.work, system), self.texts, vectors=known, counts=self._counts
            )
        self._rank(system, dense.search, lambda items: _nearest(dense, items))
        if system.name == "base" and (test := self._shown_test) is not None:
            queries = some_queries(test)
            self._before = (
                dense.search(queries) if self.tests["search"] else _nearest(dense, queries)
            )
        if system.name == "tuning":
            self._tuned = dense
            np.save(self.work.folder / "vectors.npy", self._tuned.vectors)

    def figures(self, system: MeasuredSystem) -> System:
        """Return a system's metrics."""
        means = {
            test: found[system.name].means if system.name in found else None
            for test, found in self.values.items()
        }
        return {
            "name": system.name,
            "label": system.label,
            "control": system.control,
            "search": means["search"],
            "similar": means["similar"],
            "unseen": {
                test: {
                    measure: float(np.mean([scores[query] for query in unseen]))
                    for measure, scores in self.values[test][system.name].per_query.items()
                }
                for test, unseen in self._partly_seen()
                if system.name in self.values[test]
            },
        }

    def _partly_seen(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the tests with some answers seen in training, and their queries without."""
        for test, unseen in self._unseen.items():
            if 0 < len(unseen) < len(answerable_queries(self.tests[test])):
                yield test, unseen

    def differences(self) -> Iterator[Significance]:
        """Yield the tested differences between systems."""
        partly = dict(self._partly_seen())
        for test, found in self.values.items():
            some = [(False, None), (True, partly[test])] if test in partly else [(False, None)]
            for (unseen, queries), (first, second) in product(
                some, pairs_to_compare(self.work.systems)
            ):
                if first in found and second in found:
                    sides = (found[name].per_query["ndcg@10"] for name in (first, second))
                    result = compare(
                        *(
                            scores if queries is None else {q: scores[q] for q in queries}
                            for scores in sides
                        )
                    )
                    yield {
                        "test": test,
                        "unseen": unseen,
                        "measure": "ndcg@10",
                        "first": first,
                        "second": second,
                        "difference": result.difference,
                        "low": result.low,
                        "high": result.high,
                        "p_value": result.p_value,
                        "wins": result.wins,
                        "losses": result.losses,
                    }

    def matryoshka(self, tuned: Sequence[int]) -> list[dict[str, float]]:
        """Evaluate the tuned encoder with fewer dimensions.

        Args:
            tuned: The sizes it was tuned at, in addition to the full one.
        """
        if self._tuned is None:
            return []
        width = self._tuned.encoder.dimensions
        trained = {*tuned, width}
        halves = {width >> n for n in range(1, 5) if width >> n >= 8}
        curve = []
        for size in sorted(trained | halves):
            point: dict[str, float] = {"dimensions": size, "trained": float(size in trained)}
            for test, collection in self.tests.items():
                if collection is not None:
                    run = _cut(self._tuned, collection, test, size)
                    relevant = lowest_relevant(collection)
                    found = measure(collection.qrels, run, metrics=["ndcg@10"], relevant=relevant)
                    point[test] = found.means["ndcg@10"]
            curve.append(point)
        return curve

    def _fusing(self, fusion: tuple[Fusion, tuple[float, float] | None]) -> Callable[..., Run]:
        """Return a function that fuses two rankings of similar items as the index does."""
        dense = self._indexed
        method, weights = fusion

        def similar(items: Mapping[str, str]) -> Run:
            sides = [
                _without_queries(run)
                for run in (_nearest(dense, items), self._bm25.search(items, _DEPTH + 1))
            ]
            return {
                item: _fused([run.get(item, {}) for run in sides], method, weights)
                for item in items
            }

        return similar

    @cached_property
    def _indexed(self) -> Dense:
        """Exact search over the stored vectors of the index."""
        run = self.work.folder.parents[1]
        with open_index(run) as index:
            vectors = {item.id: item.vector for item in index.store.items(vectors=True)}
        dense = Dense(Encoder.load(index_encoder(run)), {}, counts=self._counts)
        dense.ids = [name for name in self.texts if vectors.get(name) is not None]
        dense.vectors = np.stack([v for name in dense.ids if (v := vectors[name]) is not None])
        return dense

    def _rank(
        self,
        system: MeasuredSystem,
        search: Callable[[Mapping[str, str]], Run],
        similar: Callable[[Mapping[str, str]], Run] | None,
    ) -> None:
        for test, rank in (("search", search), ("similar", similar)):
            collection = self.tests[test]
            if collection is None or rank is None:
                continue
            run = rank(collection.queries)
            if test == "similar":
                run = _without_queries(run)
            elif system.by == "hybrid":
                self._found = run
            self.values[test][system.name] = measure(
                collection.qrels, run, metrics=_MEASURES, relevant=lowest_relevant(collection)
            )

    @property
    def _shown_test(self) -> JudgedCollection | None:
        """The test whose queries are shown."""
        return self.tests["search"] or self.tests["similar"]

    def _write_searches(self, index: Index) -> None:
        test, search, items = self._shown_test, self.tests["search"], self.work.data.items
        shown: ExampleSearches = {
            "kind": "similar" if search is None and test is not None else "search",
            "examples": [],
            "missed": [],
            "missed_of": (0, 0),
        }
        if test is not None:
            examples = compare_searches if search is not None else compare_similar
            shown["examples"] = examples(index, self._before, test, items)
        if search is not None:
            shown["missed"], shown["missed_of"] = find_missed(search, self._found, items)
        _write_json(self.work, "searches.json", shown)


def _search(index: Index, mode: Mode, queries: Mapping[str, str]) -> Run:
    """Search an index as a user does."""
    return {
        name: {hit.id: hit.score for hit in index.search(text, _DEPTH, mode=mode)}
        for name, text in queries.items()
    }


def _fused(
    sides: list[Mapping[str, float]], method: Fusion, weights: tuple[float, float] | None
) -> dict[str, float]:
    rankings = [[Hit(*pair, "", {}) for pair in side.items()] for side in sides]
    return {hit.id: hit.score for hit in fuse(rankings, method=method, weights=weights)}


def _nearest(dense: Dense, items: Iterable[str], dimensions: int | None = None) -> Run:
    """Find the items nearest to given items, by stored vectors; items without one are left out."""
    vectors = dense.vectors[:, :dimensions]
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    places = {name: place for place, name in enumerate(dense.ids)}
    return {
        item: _best(dense.ids, vectors @ vectors[places[item]]) for item in items if item in places
    }


def _best(ids: list[str], scores: NDArray[np.float32]) -> dict[str, float]:
    best = np.argsort(-scores, kind="stable")[: _DEPTH + 1]
    return {ids[place]: float(scores[place]) for place in best}


def _cut(dense: Dense, collection: JudgedCollection, test: str, dimensions: int) -> Run:
    if test == "search":
        return dense.search(collection.queries, dimensions=dimensions)
    return _without_queries(_nearest(dense, collection.queries, dimensions))


def _without_queries(run: Run) -> Run:
    """Remove each query from its own results, since the queries of this test are items."""
    return {
        query: {name: score for name, score in scores.items() if name != query}
        for query, scores in run.items()
    }


def _write_json(work: Work[Any], name: str, value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1)
    write_atomic(work.folder / name, f"{text}\n".encode())
