"""The stage `evaluate_recommend`: do the new terms improve recommendations?

Each system that ranks by vectors is used in two ways: alone, by the similarity of an item's text to
the texts in a history, and blended with a recommender on user histories, with weights chosen on
validation data for each system. Items without a training event are evaluated separately.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from idiolect.pipeline.settings import SettingsTable
from idiolect.pipeline.stage import Stage, Work
from idiolect.pipeline.stages.recommend_stage import vectors_of
from idiolect.pipeline.systems import PairedDifference

if TYPE_CHECKING:
    from idiolect.recommend.next_item_metrics import NextItemEvaluation
    from idiolect.recommend.scorer import ItemScorer

__all__ = [
    "STAGE",
    "ItemTextSystem",
    "RecommendationMetrics",
    "TextDifference",
    "evaluate_recommend",
]

_USES = ("text", "blend")
_PARTS = ("all", "warm", "cold")


class ItemTextSystem(TypedDict):
    """Results of recommending by a system's vectors of the items' texts."""

    name: str
    """As in the stage `evaluate`, but only systems that rank by vectors."""
    label: str
    control: bool
    text: dict[str, dict[str, float]]
    """Metrics of the texts alone, of all targets, and of those with (warm) and without (cold) a
    training event; empty where there are no such targets."""
    blend: dict[str, dict[str, float]]
    """The same metrics, blended with user histories."""
    weight: float
    """Weight of texts in the blend; the larger of the two weights is 1."""


class TextDifference(PairedDifference):
    """The difference of nDCG@10 between two systems over the same cases."""

    use: str
    """text or blend."""
    targets: str
    """all, warm or cold."""
    queries: int
    """Number of cases."""


class RecommendationMetrics(TypedDict):
    """Metrics of the stage."""

    cases: int
    cold_cases: int
    """Number of cases whose target has no training event."""
    split: str
    exclude_seen: bool
    leaked: float | None
    """As in `Split`."""
    recommender: str
    """The name of the run's recommender among the baselines."""
    baselines: dict[str, Any]
    """The metrics of the run's recommender and of every baseline, by name."""
    left_out: dict[str, str]
    """Reasons why baselines are missing."""
    systems: list[ItemTextSystem]
    significance: list[TextDifference]


def evaluate_recommend(work: Work[SettingsTable]) -> RecommendationMetrics:
    """Evaluate the run's recommender, and each system's vectors as item texts."""
    from idiolect.pipeline.stage_models import load_system
    from idiolect.recommend.evaluate_recommender import evaluate_recommender, fit_baselines
    from idiolect.recommend.next_item_metrics import evaluate_scorer
    from idiolect.recommend.recommender import Recommender
    from idiolect.recommend.scorers.blend import Blend
    from idiolect.recommend.scorers.dense_text import DenseText, encode_items
    from idiolect.training.progress import track

    recommender = Recommender.load(work.done["recommend"] / "recommender")
    parts, exclude = recommender.split(), recommender.exclude_seen
    figures = evaluate_recommender(recommender)
    counted, _ = fit_baselines(parts, ("popularity",))
    others = Blend.chosen_on(counted, parts.valid, exclude_seen=exclude)
    systems: list[ItemTextSystem] = []
    found: dict[str, dict[str, NextItemEvaluation]] = {use: {} for use in _USES}
    by_vectors = [one for one in work.systems if one.ranks and one.by == "vectors"]
    for system in track(by_vectors, "texts of items", len(by_vectors)):
        vectors = vectors_of(work, system.name, recommender.histories.items)
        if vectors is None:
            vectors = encode_items(recommender.texts, load_system(work, system))
        text = DenseText(vectors)
        blend = Blend.chosen_on(
            {"others": others, text.name: text}, parts.valid, exclude_seen=exclude
        )
        uses: dict[str, ItemScorer] = {"text": text, "blend": blend}
        for use, scorer in uses.items():
            found[use][system.name] = evaluate_scorer(
                scorer, parts.test, parts.train.counts, exclude_seen=exclude
            )
        systems.append(
            {
                "name": system.name,
                "label": system.label,
                "control": system.control,
                "text": _means(found["text"][system.name]),
                "blend": _means(found["blend"][system.name]),
                "weight": blend.weights[text.name],
            }
        )
    return {
        "cases": figures["cases"],
        "cold_cases": figures["cold_cases"],
        "split": figures["split"],
        "exclude_seen": exclude,
        "leaked": figures["leaked"],
        "recommender": figures["model"],
        "baselines": figures["systems"],
        "left_out": figures["left_out"],
        "systems": systems,
        "significance": _differences(work, found),
    }


def _means(result: NextItemEvaluation) -> dict[str, dict[str, float]]:
    return {
        "all": result.means(),
        "warm": result.means(~result.cold),
        "cold": result.means(result.cold),
    }


def _differences(
    work: Work[SettingsTable], found: dict[str, dict[str, NextItemEvaluation]]
) -> list[TextDifference]:
    """Test every pair of systems that the search evaluation compares."""
    from idiolect.pipeline.systems import pairs_to_compare
    from idiolect.recommend.evaluate_recommender import compare_evaluations

    tested: list[TextDifference] = []
    for use, results in found.items():
        for first, second in pairs_to_compare(work.systems):
            if first not in results or second not in results:
                continue
            cold = results[first].cold
            for targets, where in zip(_PARTS, (None, ~cold, cold), strict=True):
                if where is None or where.any():
                    row = compare_evaluations(results[first], results[second], where)
                    names = {"use": use, "targets": targets, "first": first, "second": second}
                    tested.append({**names, **row})  # type: ignore[typeddict-item]
    return tested


STAGE = Stage(
    name="evaluate_recommend",
    run=evaluate_recommend,
    settings=SettingsTable,
    metrics=RecommendationMetrics,
    inputs=("items",),
    needs="histories",
    shared=("encoder",),
    after=("recommend", "index", "evaluate", "extend", "distill", "pretrain", "tune"),
    after_if_run=("plain.tune", "random.tune"),
)
