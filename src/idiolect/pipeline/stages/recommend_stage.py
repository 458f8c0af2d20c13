"""The stage `recommend`: learn from user histories to predict the next items.

The encoder of the items' texts is chosen as for the index: among the trained ones and the base, the
one whose vectors alone predict the validation events best.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, TypedDict

from pydantic import Field

from idiolect.pipeline.settings import SettingsTable
from idiolect.pipeline.stage import Stage, Work
from idiolect.recommend.model_kinds import ItemText, ModelName, SplitKind, Target

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from idiolect.pipeline.encoder_choice import CandidateFigure, IndexCandidate
    from idiolect.recommend.histories import Histories
    from idiolect.recommend.splits import Split
    from idiolect.search.items import Item

__all__ = ["STAGE", "RecommendMetrics", "RecommendSettings", "recommend", "vectors_of"]


class RecommendSettings(SettingsTable):
    """Settings of the recommender."""

    model: ModelName = "blend"
    """The model to train."""
    split: SplitKind | None = None
    """How events are split; by default by time, if times are known."""
    target: Target = "next-item"
    """Prediction target: the next item, or all items of the next moment, such as an order's."""
    item_text: ItemText | None = None
    """How a network uses the vectors of the items' texts; by default it does not."""
    epochs: int | None = Field(default=None, ge=1)
    """Maximum number of passes over the histories, for networks: training stops early when nDCG@10
    on validation data stops improving."""
    k_core: int = Field(default=1, ge=1)
    """Leave out users and items with fewer events."""


class RecommendMetrics(TypedDict):
    """Metrics of the stage."""

    users: int
    items: int
    """Items in the histories and in the catalogue."""
    events: int
    split: str
    """How the events were split, in one line."""
    model: str
    weights: dict[str, float]
    """Weights of the parts of a blend."""
    encoder: str
    """The system whose vectors of the items' texts are used."""
    candidates: list[CandidateFigure]
    """The encoders compared on validation events."""
    notes: list[str]
    """Notes for readers."""


def recommend(work: Work[RecommendSettings]) -> RecommendMetrics:
    """Train the recommender with the best encoder of the items' texts."""
    from idiolect.pipeline.encoder_choice import candidates
    from idiolect.recommend.histories import k_core
    from idiolect.recommend.item_catalogue import join_catalogue
    from idiolect.recommend.splits import split
    from idiolect.recommend.train_recommender import fit_recommender
    from idiolect.text.skipped import summary

    settings, histories = work.settings, work.data.histories
    assert histories is not None, "the stage needs histories"
    left_out = summary(work.data.skipped_events) if work.data.skipped_events else ""
    if settings.k_core > 1:
        histories = k_core(histories, settings.k_core)
    histories, texts, fit = join_catalogue(histories, work.data.texts)
    parts = split(histories, settings.split, settings.target)
    name, vectors, figures = _best(work, histories, parts, candidates(work))
    recommender = fit_recommender(
        histories,
        model=settings.model,
        output_dir=work.folder / "recommender",
        texts=texts,
        vectors=vectors,
        metadata=[_fields(work.data.items.get(id)) for id in histories.items],
        split_by=settings.split,
        target=settings.target,
        item_text=settings.item_text,
        epochs=settings.epochs,
        seed=work.config.seed,
        record={"encoder": name},
    )
    for path in list(work.folder.rglob("checkpoint-*")):  # only needed for resuming
        shutil.rmtree(path, ignore_errors=True)
    return {
        "users": len(histories),
        "items": len(histories.items),
        "events": len(histories.events),
        "split": parts.report(),
        "model": settings.model,
        "weights": dict(recommender.record.get("weights", {})),
        "encoder": name,
        "candidates": figures,
        "notes": [fit, *([f"left out of the histories: {left_out}"] if left_out else [])],
    }


def _fields(item: Item | None) -> dict[str, Any]:
    """Return an item's metadata."""
    return {} if item is None else dict(item.metadata)


def vectors_of(work: Work[Any], system: str, items: tuple[str, ...]) -> NDArray[np.float32] | None:
    """Return the centred item vectors stored by the index stage for a system, if it stored any."""
    import numpy as np

    from idiolect.pipeline.encoder_choice import stored_vectors
    from idiolect.recommend.scorers.dense_text import centred

    known = stored_vectors(work.done["index"], system)
    if known is None:
        return None
    place = {id: row for row, id in enumerate(work.data.texts)}
    rows = [place.get(id, -1) for id in items]
    # The row after the last one is for items that are missing in the catalogue.
    return centred(np.concatenate([known, np.zeros_like(known[:1])])[rows])


def _best(
    work: Work[Any], histories: Histories, parts: Split, found: list[IndexCandidate]
) -> tuple[str, NDArray[np.float32], list[CandidateFigure]]:
    """Return the encoder with the best validation result; without events, the first one."""
    from idiolect.recommend.next_item_metrics import evaluate_scorer
    from idiolect.recommend.scorers.dense_text import DenseText, encode_items

    texts = [work.data.texts.get(id, "") for id in histories.items]
    exclude = histories.repeats_are_rare
    figures: list[CandidateFigure] = []
    best: tuple[float, str, NDArray[np.float32]] | None = None
    for candidate in found:
        vectors = vectors_of(work, candidate.name, histories.items)
        if vectors is None:
            vectors = encode_items(texts, candidate.load())
        ndcg = 0.0
        if len(parts.valid):
            counts = parts.train.counts
            scored = evaluate_scorer(DenseText(vectors), parts.valid, counts, exclude_seen=exclude)
            ndcg = scored.means()["ndcg@10"]
        figures.append({"name": candidate.name, "label": candidate.label, "ndcg": ndcg})
        if best is None or ndcg > best[0]:
            best = ndcg, candidate.name, vectors
    assert best is not None
    return best[1], best[2], figures


STAGE = Stage(
    name="recommend",
    run=recommend,
    settings=RecommendSettings,
    metrics=RecommendMetrics,
    inputs=("items", "histories"),
    needs="histories",
    shared=("encoder",),
    model_from="tune",
    # After `evaluate`, so that `evaluate` does not depend on this stage and is not repeated with
    # it.
    after=("index", "evaluate"),
    after_if_run=("plain.tune",),
)
