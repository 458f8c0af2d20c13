"""The stage `evaluate_task`: do the new terms, and pre-training, help a task of the user's?

A classifier or a tagger is trained on every language model of the run, with several seeds, and
tested on the same texts. Tuned encoders are left out: they may have no layers.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Literal, TypedDict

import numpy as np
from pydantic import Field

from idiolect.pipeline.settings import SettingsTable
from idiolect.pipeline.stage import Stage, Work
from idiolect.pipeline.systems import MeasuredSystem, PairedDifference
from idiolect.pipeline.training_summary import SAVE_STEPS
from idiolect.text.files import read_json, write_atomic

if TYPE_CHECKING:
    from idiolect.pipeline.downstream_task import DownstreamTask, TextCounts

__all__ = [
    "STAGE",
    "EvaluateTaskSettings",
    "TaskMetrics",
    "TaskSystem",
    "evaluate_task",
]

_COMPARED = (
    ("base", "vocabulary"),
    ("base", "pretraining"),
    ("plain.pretraining", "pretraining"),
    ("random.pretraining", "pretraining"),
)
"""Names of systems; the second is compared with the first."""


class EvaluateTaskSettings(SettingsTable):
    """Training of the task's heads."""

    adaptation: Literal["full", "lora", "frozen"] = "full"
    """What trains besides the head; see `idiolect tasks classify train --help`."""
    seeds: int = Field(default=3, ge=1, le=100)
    """Heads trained for each model, with seeds from 0."""
    epochs: int = Field(default=3, ge=1)
    """Number of epochs over the training texts."""
    max_train_texts: int | None = Field(default=None, ge=2)
    """Train on so many texts at most, drawn at random; by default on all."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """By default that of `idiolect tasks`."""
    bidirectional: bool = False
    """Whether the words of a causal model attend to later words too."""


class TaskSystem(TypedDict):
    """A model's results on the task."""

    name: str
    """As in the stage `evaluate`, or the name of a baseline that reads no language model."""
    label: str
    control: bool
    mean: float
    """Mean of the measure over the seeds."""
    deviation: float | None
    """Standard deviation over the seeds; None with one seed."""
    values: list[float]
    """The measure with each seed."""


class TaskMetrics(TypedDict):
    """Metrics of the stage."""

    task: str
    """classify or tag."""
    measure: str
    """accuracy, or F1 of spans: a span is right if both its ends and its label are."""
    train_texts: int
    test_texts: int
    repeated: int
    """Texts of the test that are also in the training file."""
    labels: list[str]
    systems: list[TaskSystem]
    baselines: list[TaskSystem]
    significance: list[PairedDifference]
    """Over the texts of the test, with the counts of all seeds together."""
    notes: list[str]
    """Notes for readers."""


def evaluate_task(work: Work[EvaluateTaskSettings]) -> TaskMetrics:
    """Train and test the task's heads on every language model of the run."""
    from idiolect.ranking.evaluation.significance import compare_ratios
    from idiolect.text.skipped import summary
    from idiolect.training.progress import track

    assert work.data.task is not None, "the stage needs a task"
    settings, whole = work.settings, work.data.task
    task = whole.drawn(settings.max_train_texts, work.config.seed)
    left_out = work.data.skipped_texts
    models = [system for system in work.systems if system.predicts]
    counts: dict[str, list[TextCounts]] = {system.name: [] for system in models}
    jobs = [(system, seed) for system in models for seed in range(settings.seeds)]
    for system, seed in track(jobs, "heads", len(jobs)):
        counts[system.name].append(_tested(work, task, system, seed))
    sums = {name: np.sum(own, axis=0) for name, own in counts.items()}
    return {
        "task": task.name,
        "measure": task.measure,
        "train_texts": len(task.train),
        "test_texts": len(task.test),
        "repeated": whole.repeated,
        "labels": list(task.labels),
        "systems": [
            _figures(system.name, system.label, system.control, counts[system.name])
            for system in models
        ],
        "baselines": [_figures(name, name, True, [own]) for name, own in task.baselines().items()],
        "significance": [
            {
                "first": first,
                "second": second,
                **{
                    name: value
                    for name, value in asdict(compare_ratios(sums[first], sums[second])).items()
                    if name != "queries"
                },  # type: ignore[typeddict-item]
            }
            for first, second in _COMPARED
            if first in sums and second in sums
        ],
        "notes": [f"left out of the task's texts: {summary(left_out)}"] if left_out else [],
    }


def _tested(
    work: Work[EvaluateTaskSettings], task: DownstreamTask, system: MeasuredSystem, seed: int
) -> TextCounts:
    """Return the counts of one head; those of an earlier process are kept."""
    from idiolect.pipeline.stage_models import load_encoder
    from idiolect.tasks.task_model import task_config

    result = work.folder / "heads" / f"{system.name}.{seed}.json"
    training = work.folder / "heads" / f"{system.name}.{seed}"
    if result.exists():
        shutil.rmtree(training, ignore_errors=True)  # if the process was killed before it did
        return np.array(read_json(result)["counts"], np.int64)
    settings = work.settings
    path = str(work.done[system.stage] / "model") if system.stage else work.base
    encoder = load_encoder(work, path, whole=True)
    if settings.bidirectional and encoder.model.network.kind == "causal":
        encoder = encoder.with_changes(bidirectional=True)
    rate = {} if settings.learning_rate is None else {"learning_rate": settings.learning_rate}
    counts = task.fit(
        encoder,
        output_dir=training,
        adaptation=settings.adaptation,
        epochs=settings.epochs,
        config=task_config(settings.adaptation, seed=seed, save_steps=SAVE_STEPS, **rate),
    )
    write_atomic(result, json.dumps({"counts": counts.tolist()}).encode())
    shutil.rmtree(training)
    return counts


def _figures(name: str, label: str, control: bool, counts: list[TextCounts]) -> TaskSystem:
    values = [float(right / max(judged, 1)) for right, judged in (own.sum(0) for own in counts)]
    return {
        "name": name,
        "label": label,
        "control": control,
        "mean": fmean(values),
        "deviation": stdev(values) if len(values) > 1 else None,
        "values": values,
    }


STAGE = Stage(
    name="evaluate_task",
    run=evaluate_task,
    settings=EvaluateTaskSettings,
    metrics=TaskMetrics,
    inputs=("task_train", "task_test"),
    needs="task_train",
    shared=("encoder",),
    after=("evaluate", "extend", "distill", "pretrain"),
    after_if_run=("plain.pretrain", "random.pretrain"),
)
