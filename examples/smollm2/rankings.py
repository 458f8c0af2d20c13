"""Encoders of one model, before and after tuning, and how they rank."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from idiolect import Encoder, LanguageModel, evaluate, tune
from idiolect.encoding.pairs import Pair
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.encoding.tuning_setup import tuning_config
from idiolect.ranking.evaluation.baselines import BM25, Dense
from idiolect.ranking.evaluation.metrics import Run
from idiolect.search.fusion import fuse
from idiolect.search.hybrid_weight import HybridWeight, fit_weight
from idiolect.search.items import Hit
from idiolect.text.files import write_atomic
from smollm2.judged import Judged

__all__ = [
    "RECIPES",
    "Recipe",
    "Words",
    "make_encoder",
    "measure",
    "measure_words",
    "train_encoder",
]

Scores = Mapping[str, float]
"""Items of one query."""
_MEASURES = ("ndcg@10", "recall@100")


@dataclass(frozen=True)
class Recipe:
    """How an encoder is made and tuned."""

    label: str
    layers: int | None
    max_length: int
    """Tokens that it reads of a text."""
    train_length: int
    """The same in training."""
    steps: int
    batch_size: int
    learning_rate: float
    whiten: bool
    """Whether its vectors are whitened: those of a plain language model hardly differ."""


RECIPES = {
    "static": Recipe("SmolLM2, no layers", 0, 512, 128, 60, 512, 1e-2, whiten=True),
    "two": Recipe("SmolLM2, 2 layers", 2, 64, 64, 120, 32, 5e-4, whiten=True),
    "minilm": Recipe("MiniLM", None, 128, 128, 20, 32, 2e-5, whiten=False),
}


def make_encoder(model: LanguageModel | str, recipe: Recipe) -> Encoder:
    """Make an encoder of a model, or load a published one."""
    if isinstance(model, str):
        return Encoder.load(model).with_changes(max_length=recipe.max_length)
    return Encoder(model, layers=recipe.layers, max_length=recipe.max_length)


def train_encoder(
    encoder: Encoder, recipe: Recipe, judged: Judged, folder: Path, seed: int, steps: int | None
) -> Encoder:
    """Tune an encoder on a collection's pairs; resumes in its folder."""
    pairs = [Pair(query, document) for query, document in judged.pairs]
    config = tuning_config(
        encoder,
        batch_size=min(recipe.batch_size, len(pairs) // 2),
        max_length=recipe.train_length,
        learning_rate=recipe.learning_rate,
        save_steps=25,
        seed=seed,
    )
    return tune(
        encoder,
        pairs,
        # Vectors are whitened by all items: the documents of a few hundred pairs are too few.
        corpus=judged.items.values() if recipe.whiten else (),
        output_dir=folder,
        whiten=recipe.whiten,
        steps=steps or recipe.steps,
        config=config,
        counts=EncodingCounts(),
    )


@dataclass(frozen=True)
class Words:
    """What words alone find for the queries of a test, and for those that are held out."""

    found: Run
    held_out: Run

    @classmethod
    def of(cls, judged: Judged) -> Words:
        """Search a collection with BM25."""
        found = BM25(judged.items).search(judged.queries)
        return cls(
            found, BM25(judged.documents).search({query: query for query in judged.held_out})
        )


def measure(encoder: Encoder, judged: Judged, words: Words, *, project: bool, path: Path) -> None:
    """Rank with an encoder alone and joined with words, and save figures and rankings.

    Args:
        encoder: The encoder.
        judged: The collection.
        words: Its rankings by words.
        project: Whiten the vectors by the items' texts first.
        path: The file for the figures; the rankings are written beside it.
    """
    if project:
        encoder.project(list(judged.items.values()), whiten=True)
    dense = Dense(encoder, judged.items, counts=EncodingCounts())
    found = dense.search(judged.queries)
    default = _default(encoder).dense
    weight = _fit(dense, judged, words.held_out) if judged.held_out else default
    hybrid = {q: _join(found.get(q, {}), words.found[q], weight) for q in judged.queries}
    save(path, judged, {"dense": found, "hybrid": hybrid}, weight=weight)


def measure_words(judged: Judged, words: Words, path: Path) -> None:
    """Save what words alone find."""
    save(path, judged, {"words": words.found})


def save(path: Path, judged: Judged, runs: Mapping[str, Run], **more: Any) -> None:
    """Evaluate rankings and write the figures after the rankings."""
    figures: dict[str, Any] = {}
    for name, run in runs.items():
        values = evaluate(judged.qrels, run, metrics=_MEASURES).per_query
        figures[name] = {key: dict(value) for key, value in values.items()}
    packed = gzip.compress(json.dumps(runs).encode(), 5)
    write_atomic(path.with_suffix(".runs.json.gz"), packed)
    unseen = sorted(judged.unseen_queries)
    content = {"queries": figures, "unseen": unseen, **more}
    write_atomic(path, json.dumps(content).encode())


def _fit(dense: Dense, judged: Judged, words: Run) -> float:
    """Choose the weight of vectors on the queries kept out of training."""
    places = {name: place for place, name in enumerate(dense.ids)}
    more = {n: t for n, t in judged.documents.items() if judged.items.get(n) != t}
    whole = Dense(dense.encoder, more, counts=EncodingCounts()) if more else dense
    if more:
        kept = [name for name in dense.ids if name not in more]
        rows = dense.vectors[[places[name] for name in kept]]
        whole.ids, whole.vectors = whole.ids + kept, np.concatenate([whole.vectors, rows])
    vectors = whole.search({query: query for query in judged.held_out})
    return fit_weight(
        (
            (_hits(vectors.get(query, {})), _hits(words[query]), answers)
            for query, answers in judged.held_out.items()
        ),
        _default(dense.encoder),
    ).dense


def _default(encoder: Encoder) -> HybridWeight:
    return HybridWeight.default({"published": int(encoder.published)})


def _join(
    dense: Mapping[str, float], words: Mapping[str, float], weight: float
) -> dict[str, float]:
    sides = [_hits(dense), _hits(words)]
    joined = fuse(sides, method="weighted", weights=(weight, 1 - weight))
    return {hit.id: hit.score for hit in joined[:100]}


def _hits(run: Scores) -> list[Hit]:
    return [Hit(name, score, "", {}) for name, score in run.items()]
