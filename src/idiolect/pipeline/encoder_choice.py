"""Choose the encoder of the index: the system that is best on held-out queries.

An adapted model should not make results worse. Therefore the index does not simply use the last
trained model. The candidates are the encoder with new tokens, the one without them (if controls
were trained) and the base. They answer the queries held out from tuning, and the best by nDCG@10 is
used. In a tie, the one with new tokens is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.pipeline.stage import Work
from idiolect.pipeline.stage_models import load_untuned
from idiolect.ranking.evaluation.baselines import Dense
from idiolect.ranking.evaluation.metrics import evaluate

__all__ = ["CandidateFigure", "IndexCandidate", "best_of", "candidates", "stored_vectors"]

_VECTORS = "vectors"


class CandidateFigure(TypedDict):
    """Result of an encoder on the held-out queries."""

    name: str
    """The system: tuning (with new tokens), plain.tuning (without) or base."""
    label: str
    ndcg: float
    """nDCG@10 of vector search."""


@dataclass(frozen=True)
class IndexCandidate:
    """An encoder that the index may use."""

    name: str
    """The system."""
    label: str
    load: Callable[[], Encoder]


def candidates(work: Work[Any]) -> list[IndexCandidate]:
    """Return the candidate encoders for the index, the one with new tokens first."""
    saved = [
        IndexCandidate(name, label, _loader(work.done[stage] / "model"))
        for name, label, stage in (
            ("tuning", "with new tokens", "tune"),
            ("plain.tuning", "without new tokens", "plain.tune"),
        )
        if stage in work.done
    ]
    return [*saved, IndexCandidate("base", "the base", lambda: load_untuned(work, work.base))]


def best_of(
    work: Work[Any],
    found: Sequence[IndexCandidate],
    answers: Mapping[str, Sequence[str]],
    known: Mapping[str, NDArray[np.float32]],
) -> tuple[IndexCandidate, list[CandidateFigure]]:
    """Return the best candidate, and the result of each on the queries.

    The vectors of the items are saved, so the evaluation need not encode them again.

    Args:
        work: The input of the stage.
        found: The candidates.
        answers: The queries, each with the ids of its relevant items.
        known: Item vectors that are already computed, in the items' order, by candidate.
    """
    texts = work.data.texts
    queries = {str(number): text for number, text in enumerate(answers)}
    qrels = {number: dict.fromkeys(answers[text], 1.0) for number, text in queries.items()}
    figures: list[CandidateFigure] = []
    for candidate in found:
        dense = Dense(
            candidate.load(), texts, vectors=known.get(candidate.name), counts=EncodingCounts()
        )
        path = work.folder / _VECTORS / f"{candidate.name}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, dense.vectors)
        means = evaluate(qrels, dense.search(queries, 10), metrics=["ndcg@10"]).means
        figures.append({"name": candidate.name, "label": candidate.label, "ndcg": means["ndcg@10"]})
    best = max(range(len(figures)), key=lambda place: (figures[place]["ndcg"], -place))
    return found[best], figures


def stored_vectors(index_stage: Path, system: str) -> NDArray[np.float32] | None:
    """Return the item vectors that a system had in the choice of the encoder, if it took part."""
    path = index_stage / _VECTORS / f"{system}.npy"
    return np.load(path, allow_pickle=False) if path.exists() else None


def _loader(path: Path) -> Callable[[], Encoder]:
    return lambda: Encoder.load(path)
