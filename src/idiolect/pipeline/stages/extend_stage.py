"""The stage `extend`: add the chosen terms to the base, and verify that nothing else changes."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Literal, TypedDict

from idiolect.errors import InputError
from idiolect.pipeline.settings import SettingsTable
from idiolect.pipeline.stage import Control, Stage, Work
from idiolect.pipeline.stage_models import load_model
from idiolect.pipeline.stages.audit_stage import CHOSEN_TERMS, RANDOM_TERMS
from idiolect.pipeline.systems import MeasuredSystem

if TYPE_CHECKING:
    from idiolect.text.tokenizers.extension import Check

__all__ = ["STAGE", "ExtendMetrics", "ExtendSettings", "TokenCount", "extend"]


class ExtendSettings(SettingsTable):
    """How terms are added to the vocabulary."""

    method: str | None = None
    """exact, merges, scores, words or append; by default the method that the audit chose the terms
    for."""
    init: Literal["subword", "weighted", "mean", "normal", "multivariate"] = "subword"
    """How new rows are initialized."""


class TokenCount(TypedDict):
    """Token counts of a text before and after. Domain text is the held-out part."""

    documents: int
    before: int
    after: int
    saved: float
    """Share of tokens saved, 0 to 1."""
    changed: int
    """Documents whose tokens change in any other way; must be 0."""
    uses: int
    """Occurrences of new tokens."""


class ExtendMetrics(TypedDict):
    """Metrics of the stage."""

    method: str
    added: int
    refused: list[dict[str, str]]
    """Spellings that were not added: `text` and `reason`; the first 50."""
    first_id: int
    """The first new id."""
    texts: dict[str, TokenCount]
    """Token counts for `domain` and, if there is general text, `general`."""
    unverified: list[str]
    notes: list[str]


def extend(work: Work[ExtendSettings], *, terms: str = CHOSEN_TERMS) -> ExtendMetrics:
    """Extend the base.

    Args:
        work: The stage's input.
        terms: File name of the terms in the audit's folder.
    """
    from idiolect.vocabulary.extend.extend import extend as extend_model
    from idiolect.vocabulary.terms import Terms

    settings, data = work.settings, work.data
    _, held_out = data.corpus
    grown = extend_model(
        load_model(work.model),
        Terms.load(work.done["audit"] / terms),
        settings.method,
        domain=held_out,
        general=data.all_general,
        init=settings.init,
        seed=work.config.seed,
    )
    record = grown.extension
    assert record is not None
    if not record.added:
        first = record.refused[0]
        raise InputError(
            f"none of the {len(record.refused):,} spellings could be added; {first.text!r}: "
            f"{first.reason}",
            hint="list other terms in data.glossary, or try another audit.method",
        )
    grown.save(work.folder / "model")
    return {
        "method": record.method,
        "added": len(record.added),
        "refused": [asdict(one) for one in record.refused[:50]],
        "first_id": record.size,
        "texts": {name: _count(check) for name, check in record.checks.items()},
        "unverified": list(record.unverified),
        "notes": list(record.notes),
    }


def _extend_at_random(work: Work[ExtendSettings]) -> ExtendMetrics:
    return extend(work, terms=RANDOM_TERMS)


def _count(check: Check) -> TokenCount:
    return {
        "documents": check.documents,
        "before": check.tokens_before,
        "after": check.tokens_after,
        "saved": check.saving,
        "changed": check.changed,
        "uses": check.uses,
    }


STAGE = Stage(
    name="extend",
    run=extend,
    settings=ExtendSettings,
    metrics=ExtendMetrics,
    inputs=("items", "corpus", "general"),
    after=("audit",),
    systems=(
        MeasuredSystem(name="untrained", label="untrained tokens", control=True, predicts=True),
    ),
    controls=(Control(name="random", after=("audit",), run=_extend_at_random),),
)
