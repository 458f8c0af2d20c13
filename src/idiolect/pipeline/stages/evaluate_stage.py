"""The stage `evaluate`: measure what each stage contributes, and compare it with controls.

Differences come with a 95% interval and the p-value of a paired test over the queries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from pydantic import Field

from idiolect.pipeline.settings import SettingsTable
from idiolect.pipeline.stage import ALL, Stage, Work
from idiolect.pipeline.stages.extend_stage import TokenCount
from idiolect.pipeline.stages.tune_stage import TuneSettings, items_trained_on
from idiolect.pipeline.systems import MeasuredSystem
from idiolect.text.files import read_json

if TYPE_CHECKING:
    from idiolect.pipeline.judged_tests import Ranking
    from idiolect.pipeline.language import Language, Promises
    from idiolect.pipeline.system_runs import Significance, System

__all__ = ["STAGE", "EvaluateMetrics", "EvaluateSettings", "evaluate"]


class EvaluateSettings(SettingsTable):
    """Settings of the evaluation."""

    controls: bool = True
    """Whether to train the controls: without new tokens, and with random ones."""
    windows: int = Field(default=100, ge=1)
    """Windows of 1,000 characters to measure bits per byte on, of held-out domain and general text.
    """


class EvaluateMetrics(TypedDict):
    """Metrics of the stage."""

    tokens: dict[str, TokenCount]
    """Token counts, as `texts` of extend."""
    language: Language
    search: Ranking | None
    similar: Ranking | None
    systems: list[System]
    """In pipeline order, followed by the controls."""
    significance: list[Significance]
    matryoshka: list[dict[str, float]]
    """For the tuned encoder: `dimensions`, `trained` (1 if it was tuned at that size, 0 otherwise),
    and the nDCG@10 of `search` and `similar`."""
    promises: Promises
    notes: list[str]
    """Notes for readers, from this stage and all before it."""


def evaluate(work: Work[EvaluateSettings]) -> EvaluateMetrics:
    """Measure search, similar items and language modeling for every system of the run."""
    from idiolect.pipeline.judged_tests import describe, judged_collection
    from idiolect.pipeline.language import check_promises, measure_language
    from idiolect.pipeline.system_runs import SystemRuns
    from idiolect.training.progress import show_progress

    data, systems = work.data, work.systems
    search = judged_collection(data.texts, data.queries, data.qrels)
    similar = judged_collection(data.texts, data.texts, data.similar)
    seen = items_trained_on(work.done["tune"])
    runs = SystemRuns(work, search, similar, seen)
    with show_progress("evaluation", len(systems) + 1) as activity:
        for number, system in enumerate(systems):
            activity.update(number, system.label)
            runs.add(system)
        activity.update(len(systems), "bits per byte")
        language = measure_language(work, work.settings.windows)
    extended = _metrics(work, "extend")
    return {
        "tokens": extended["texts"],
        "language": language,
        "search": describe(search, seen),
        "similar": describe(similar, seen),
        "systems": [runs.figures(system) for system in systems],
        "significance": list(runs.differences()),
        "matryoshka": runs.matryoshka(work.config.table(TuneSettings).dimensions),
        "promises": check_promises(work, extended["texts"]),
        "notes": _notes(work),
    }


def _notes(work: Work[EvaluateSettings]) -> list[str]:
    """Return the notes of this stage and of the earlier stages, without the controls."""
    notes = [
        "the model was pre-trained on the items' text (transductive), but saw neither queries nor "
        "judgements"
        if not work.data.settings.corpus
        else "if the items' text is in the corpus, the model was pre-trained on it (transductive); "
        "it saw neither queries nor judgements",
        "p-values and intervals are those of each comparison alone, not corrected for how many "
        "comparisons there are",
    ]
    for stage in work.done:
        if "." not in stage:
            notes += _metrics(work, stage).get("notes", [])
    if not work.settings.controls:
        notes.append("the controls were switched off, so the cause of a gain is unknown")
    return notes


def _metrics(work: Work[Any], stage: str) -> dict[str, Any]:
    return read_json(work.done[stage] / "metrics.json")


STAGE = Stage(
    name="evaluate",
    run=evaluate,
    settings=EvaluateSettings,
    metrics=EvaluateMetrics,
    inputs=("items", "corpus", "general", "queries", "qrels", "similar"),
    shared=("encoder",),
    after=(ALL,),
    systems=(
        MeasuredSystem(name="bm25", label="BM25", by="bm25", of_base=True),
        MeasuredSystem(name="base", label="base", of_base=True, predicts=True),
    ),
    wants_controls=lambda settings: settings.controls,
)
