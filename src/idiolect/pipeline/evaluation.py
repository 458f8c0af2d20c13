"""The stage `evaluate`: what each step of the road is worth, beside controls that keep it honest.

What is notable:

- All systems answer the same queries over the same items, by exact search over vectors; only
  `words` and `hybrid` search the finished index as a user does, the former by words alone. For
  similar items `hybrid` joins the rankings of the tuned encoder and BM25.
- Vectors of a base that was not published as an encoder are whitened before and after training,
  without judgements: as they are, they hardly tell texts apart. Before tuning it is the items'
  texts they are whitened by, in tuning the documents of its pairs.
- A difference is told with its 95% interval and the p-value of a paired test over the queries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idiolect.encoding.encoder import Encoder
from idiolect.pipeline.encoders import open_index
from idiolect.pipeline.language import check_promises, measure_language
from idiolect.pipeline.stage_metrics import (
    EvaluateMetrics,
    FoundItem,
    Ranking,
    Search,
    Significance,
    System,
)
from idiolect.pipeline.stages import Work, is_encoder, load_encoder
from idiolect.pipeline.systems import COMPARISONS, SYSTEMS, MeasuredSystem
from idiolect.ranking.evaluation.baselines import BM25, Dense
from idiolect.ranking.evaluation.judged_collection import JudgedCollection
from idiolect.ranking.evaluation.metrics import Evaluation, Run
from idiolect.ranking.evaluation.metrics import evaluate as measure
from idiolect.ranking.evaluation.significance import compare
from idiolect.search.fusion import Fusion, fuse
from idiolect.search.index import Index, Mode
from idiolect.search.items import Hit
from idiolect.text.files import read_json, write_atomic

__all__ = ["evaluate"]

_MEASURES = ("ndcg@10", "recall@100", "mrr@10", "judged@10")
_DEPTH = 100
_SHOWN = 10
_FIRST = 5


def evaluate(work: Work) -> EvaluateMetrics:
    """Measure search, similar items and language modelling for every system of the run."""
    data = work.data
    systems = [one for one in SYSTEMS if one.step in ("", *work.done)]
    search = _collection(data.texts, data.queries, data.judgements)
    similar = _collection(data.texts, data.texts, data.similar)
    runs = _Runs(work, search, similar)
    for number, system in enumerate(systems):
        work.tell(number, len(systems) + 1, system.label)
        runs.add(system)
    work.tell(len(systems), len(systems) + 1, "bits per byte")
    extended = _metrics(work, "extend")
    return {
        "tokens": extended["texts"],
        "language": measure_language(work, {one.name: one.step for one in systems}),
        "search": _ranking(search),
        "similar": _ranking(similar),
        "systems": [runs.told(system) for system in systems],
        "significance": list(runs.compared()),
        "matryoshka": runs.matryoshka(),
        "promises": check_promises(work, extended["texts"]),
        "notes": _notes(work),
    }


class _Runs:
    """What all systems answer, and what that is worth."""

    def __init__(
        self, work: Work, search: JudgedCollection | None, similar: JudgedCollection | None
    ) -> None:
        self.work, self.texts = work, work.data.texts
        self.tests = {"search": search, "similar": similar}
        self.values: dict[str, dict[str, Evaluation]] = {"search": {}, "similar": {}}
        self._bm25 = BM25(self.texts)
        self._tuned: Dense | None = None
        self._shown: dict[str, Run] = {}

    def add(self, system: MeasuredSystem) -> None:
        """Let a system answer both tests."""
        if not system.ranks:
            return
        if system.name == "bm25":
            self._ask(system, self._bm25.search, lambda asked: self._bm25.search(asked, _DEPTH + 1))
        elif system.name in ("words", "hybrid"):
            with open_index(self.work.folder.parents[1]) as index:
                mode: Mode = "lexical" if system.name == "words" else "hybrid"
                similar = self._joined(index.fusion) if mode == "hybrid" else None
                self._ask(system, partial(_through, index, mode), similar)
        else:
            encoder = self._encoder(system)
            dense = (
                self._indexed(encoder) if system.name == "tuning" else Dense(encoder, self.texts)
            )
            self._ask(system, dense.search, lambda asked: _nearest(dense, asked))
            if system.name in ("base", "tuning"):
                self._show(system.name, dense)
            if system.name == "tuning":
                self._tuned = dense
                np.save(self.work.folder / "vectors.npy", self._tuned.vectors)
                self._write_searches(encoder)

    def told(self, system: MeasuredSystem) -> System:
        """Return a system's figures."""
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
        }

    def compared(self) -> Iterator[Significance]:
        """Yield whether systems differ."""
        for test, found in self.values.items():
            for first, second in COMPARISONS:
                if first in found and second in found:
                    sides = (found[name].per_query["ndcg@10"] for name in (first, second))
                    result = compare(*sides)
                    yield {
                        "test": test,
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

    def matryoshka(self) -> list[dict[str, float]]:
        """Return what the tuned encoder is worth with fewer dimensions."""
        if self._tuned is None:
            return []
        width = self._tuned.encoder.dimensions
        trained = {*self.work.config.tune.dimensions, width}
        halves = {width >> n for n in range(1, 5) if width >> n >= 8}
        curve = []
        for size in sorted(trained | halves):
            point: dict[str, float] = {"dimensions": size, "trained": float(size in trained)}
            for test, collection in self.tests.items():
                if collection is not None:
                    run = _cut(self._tuned, collection, test, size)
                    point[test] = measure(collection.judgements, run, metrics=["ndcg@10"]).means[
                        "ndcg@10"
                    ]
            curve.append(point)
        return curve

    def _joined(self, fusion: tuple[Fusion, tuple[float, float] | None]) -> Callable[..., Run]:
        """Return what joins both rankings of similar items, as the index joins those of a query."""
        tuned = self._tuned
        assert tuned is not None
        method, weights = fusion

        def join(items: Mapping[str, str]) -> Run:
            sides = [
                _without_selves(run)
                for run in (_nearest(tuned, items), self._bm25.search(items, _DEPTH + 1))
            ]
            return {item: _fused([run[item] for run in sides], method, weights) for item in items}

        return join

    def _indexed(self, encoder: Encoder) -> Dense:
        """Search exactly among the vectors the index holds, instead of making them once more."""
        with open_index(self.work.folder.parents[1]) as index:
            vectors = {item.id: item.vector for item in index.store.items(vectors=True)}
        dense = Dense(encoder, {})
        dense.ids = [name for name in self.texts if vectors.get(name) is not None]
        dense.vectors = np.stack([v for name in dense.ids if (v := vectors[name]) is not None])
        return dense

    def _encoder(self, system: MeasuredSystem) -> Encoder:
        model = str(self.work.done[system.step] / "model") if system.step else self.work.base
        if system.step.endswith("tune"):
            return Encoder.load(model)
        encoder = load_encoder(self.work, model)
        if not is_encoder(self.work.base):
            encoder.project(list(self.texts.values()), whiten=True)
        return encoder

    def _ask(
        self,
        system: MeasuredSystem,
        search: Callable[[Mapping[str, str]], Run],
        similar: Callable[[Mapping[str, str]], Run] | None,
    ) -> None:
        for test, ask in (("search", search), ("similar", similar)):
            collection = self.tests[test]
            if collection is None or ask is None:
                continue
            run = ask(collection.queries)
            if test == "similar":
                run = _without_selves(run)
            self.values[test][system.name] = measure(collection.judgements, run, metrics=_MEASURES)

    def _show(self, name: str, dense: Dense) -> None:
        """Keep a system's first answers to a few queries."""
        collection = self.tests["search"] or self.tests["similar"]
        if collection is not None:
            step = max(1, len(collection.queries) // _SHOWN)
            asked = dict(islice(islice(collection.queries.items(), 0, None, step), _SHOWN))
            self._shown[name] = _without_selves(dense.search(asked, _FIRST + 1))

    def _write_searches(self, tuned: Encoder) -> None:
        collection = self.tests["search"] or self.tests["similar"]
        searches: list[Search] = []
        for query in self._shown.get("tuning", ()):
            assert collection is not None
            text = collection.queries[query]
            searches.append(
                {
                    "query": text,
                    "base": self._found(collection, query, "base"),
                    "tuning": self._found(collection, query, "tuning"),
                    "new_terms": _new_terms(tuned, text),
                }
            )
        _write_json(self.work, "searches.json", searches)

    def _found(self, collection: JudgedCollection, query: str, system: str) -> list[FoundItem]:
        grades, items = collection.judgements[query], self.work.data.items
        return [
            {
                "id": name,
                "title": str(items[name].metadata.get("title", name)),
                "text": items[name].text[:200],
                "grade": grades.get(name),
            }
            for name in list(self._shown[system][query])[:_FIRST]
        ]


def _collection(
    texts: Mapping[str, str],
    queries: Mapping[str, str],
    judgements: Mapping[str, Mapping[str, float]],
) -> JudgedCollection | None:
    return JudgedCollection.join(texts, queries, judgements) if judgements else None


def _ranking(collection: JudgedCollection | None) -> Ranking | None:
    if collection is None:
        return None
    asked = [q for q, grades in collection.judgements.items() if max(grades.values()) > 0]
    return {
        "queries": len(asked),
        "items": len(collection.documents),
        "notes": list(collection.notes),
    }


def _through(index: Index, mode: Mode, queries: Mapping[str, str]) -> Run:
    """Ask an index as a user does."""
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
    """Find the items nearest to items, by the vectors that are there."""
    vectors = dense.vectors[:, :dimensions]
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    places = {name: place for place, name in enumerate(dense.ids)}
    return {item: _best(dense.ids, vectors @ vectors[places[item]]) for item in items}


def _best(ids: list[str], scores: NDArray[np.float32]) -> dict[str, float]:
    best = np.argsort(-scores, kind="stable")[: _DEPTH + 1]
    return {ids[place]: float(scores[place]) for place in best}


def _cut(dense: Dense, collection: JudgedCollection, test: str, dimensions: int) -> Run:
    if test == "search":
        return dense.search(collection.queries, dimensions=dimensions)
    return _without_selves(_nearest(dense, collection.queries, dimensions))


def _without_selves(run: Run) -> Run:
    """Take what was asked for out of the answers, where queries are items."""
    return {
        query: {name: score for name, score in scores.items() if name != query}
        for query, scores in run.items()
    }


def _new_terms(tuned: Encoder, text: str) -> list[str]:
    tokenizer = tuned.model.tokenizer
    record = tokenizer.extension
    if record is None:
        return []
    names = {token.id: token.text.strip() for token in record.added}
    ids = tokenizer.encode(text, special_tokens=False)
    return list(dict.fromkeys(names[id_] for id_ in ids if id_ in names))


def _notes(work: Work) -> list[str]:
    notes = [
        "the items' text is part of what the model was adapted to (transductive), queries and "
        "judgements are not"
        if not work.data.settings.corpus
        else "where the items' text is in the corpus, it is part of adaptation (transductive); "
        "queries and judgements are not"
    ]
    tuned, index = _metrics(work, "tune"), _metrics(work, "index")
    if _metrics(work, "adapt")["objective"] == "imitation":
        notes.append(
            "the base has no language-model head, so instead of pre-training, texts with new "
            "tokens learnt to give the vectors that the base gives; without new tokens there is "
            "nothing to learn in that, and this control is the base, tuned alike"
        )
    if tuned["note"]:
        notes.append(tuned["note"])
    if index["meaning"] is not None:
        notes.append(
            f"hybrid gives meaning a weight of {index['meaning']:.1f} and words the rest, as was "
            f"best for {tuned['kept_apart']} queries that were kept out of tuning"
        )
    if index["cut"]:
        notes.append(
            f"{index['cut']:,} of {index['items']:,} items are longer than the encoder reads, and "
            "are found by their beginning; BM25 reads them whole"
        )
    if work.data.skipped:
        reasons = ", ".join(f"{count:,} {why}" for why, count in work.data.skipped.most_common())
        notes.append(f"records of the catalogue that were left out: {reasons}")
    if not work.config.evaluate.controls:
        notes.append("the controls were switched off, so what a gain is due to is not known")
    return notes


def _metrics(work: Work, step: str) -> dict[str, Any]:
    return read_json(work.done[step] / "metrics.json")


def _write_json(work: Work, name: str, value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1)
    write_atomic(work.folder / name, f"{text}\n".encode())
