"""The stage `distill`: train new rows to have the meaning of their old pieces in the base."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from idiolect.pipeline.settings import SettingsTable
from idiolect.pipeline.stage import Control, Stage, Work
from idiolect.pipeline.stage_models import load_model
from idiolect.pipeline.systems import MeasuredSystem
from idiolect.pipeline.training_summary import TrainingSummary, summarize_training

__all__ = ["STAGE", "DistillMetrics", "DistillSettings", "distill"]


class DistillSettings(SettingsTable):
    """Settings for training new rows."""

    contexts: int = Field(default=20, ge=1)
    """Text snippets per new token."""
    epochs: int = Field(default=1, ge=1)
    """Number of passes over the snippets."""
    max_length: int = Field(default=50, ge=8)
    """Maximum tokens of a snippet."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Numeric format of matrix products; `auto` measures which is faster."""


class DistillMetrics(TrainingSummary):
    """Metrics of the stage."""

    error_before: float
    """Distance to the teacher's hidden states on held-out snippets, as a share of their variance.
    """
    error_after: float
    without_context: int
    """New tokens without a snippet, which keep their initial rows."""


def distill(work: Work[DistillSettings]) -> DistillMetrics:
    """Train the new rows, with the base as teacher."""
    from idiolect.vocabulary.rows.distill import distill as teach_rows
    from idiolect.vocabulary.rows.distill import distillation_config

    student = load_model(work.model)
    result = teach_rows(
        student,
        load_model(work.base),
        work.data.corpus[0],
        contexts=work.settings.contexts,
        epochs=work.settings.epochs,
        config=replace(
            distillation_config(student, seed=work.config.seed),
            max_length=work.settings.max_length,
            precision=work.settings.precision,
        ),
        output_dir=work.folder,
    )
    return {
        **summarize_training(work.folder),
        "error_before": result.error_before,
        "error_after": result.error_after,
        "without_context": len(result.without),
    }


STAGE = Stage(
    name="distill",
    run=distill,
    settings=DistillSettings,
    metrics=DistillMetrics,
    inputs=("items", "corpus", "general"),
    model_from="extend",
    systems=(
        MeasuredSystem(
            name="vocabulary", label="+ vocabulary", predicts=True, against=("base", "untrained")
        ),
    ),
    controls=(Control(name="random", model_from="random.extend"),),
)
