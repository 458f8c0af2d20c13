"""The charts of a report, drawn from a run's metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from idiolect.pipeline.language import Language
from idiolect.pipeline.report import charts
from idiolect.pipeline.report.charts import Chart, Line
from idiolect.pipeline.stage import CONTROLS
from idiolect.pipeline.stages.audit_stage import AuditMetrics, TextMetrics
from idiolect.pipeline.stages.evaluate_stage import EvaluateMetrics
from idiolect.pipeline.stages.index_stage import IndexMetrics
from idiolect.pipeline.system_runs import System
from idiolect.text.files import read_text

__all__ = ["draw"]

_PIECES = 6  # words with this many pieces or more share a bar
_SMOOTHED = 40  # curves are averaged over this fraction of the steps
_TESTS = {"search": "search", "similar": "similar items"}


def draw(
    run: Path, metrics: Mapping[str, Any], seconds: Mapping[str, float]
) -> dict[str, Chart | None]:
    """Draw a run's charts, by name; None for charts without data.

    Args:
        run: Its folder, for the training curves.
        metrics: The metrics of all stages.
        seconds: The duration of each stage.
    """
    evaluate: EvaluateMetrics = metrics["evaluate"]
    return {
        "ranking": _ranking(evaluate),
        "language": _language(evaluate["language"], evaluate["systems"]),
        "pieces": _pieces(metrics["audit"]),
        "training": _training(run, metrics),
        "index": _index(metrics["index"]),
        "matryoshka": _matryoshka(evaluate["matryoshka"]),
        "time": charts.dots("Seconds of each stage", {"seconds": dict(seconds)}, number=".1f"),
    }


def _ranking(evaluate: EvaluateMetrics) -> Chart | None:
    panels: dict[str, dict[str, float]] = {}
    for system in evaluate["systems"]:
        for title, scores in (("search", system["search"]), ("similar items", system["similar"])):
            if scores is not None:
                panels.setdefault(title, {})[system["label"]] = scores["ndcg@10"]
    controls = [system["label"] for system in evaluate["systems"] if system["control"]]
    return charts.dots("nDCG@10 of each system", panels, muted=controls) if panels else None


def _language(language: Language, systems: list[System]) -> Chart | None:
    bits = language["systems"]
    if not bits:
        return None
    labels = {system["name"]: system["label"] for system in systems}
    called = {name: labels.get(name, name.replace(".", ", ")) for name in bits}
    return charts.dots(
        "Bits per byte of each model",
        {
            text: {called[name]: of[text] for name, of in bits.items() if text in of}
            for text in ("domain", "general")
            if any(text in of for of in bits.values())
        },
        muted=[called[name] for name in bits if "." in name or name == "untrained"],
    )


def _pieces(audit: AuditMetrics) -> Chart:
    """Draw the share of words that are split into one piece, two, three …"""
    shares = {"domain": _shares(audit["domain"])}
    if audit["general"] is not None:
        shares["general"] = _shares(audit["general"])
    labels = [*map(str, range(1, _PIECES)), f"{_PIECES} or more"]
    return charts.bars("Words by pieces", shares, labels, y="share of words")


def _shares(text: TextMetrics) -> list[float]:
    counts = [0] * _PIECES
    for pieces, words in text["pieces"].items():
        counts[min(int(pieces), _PIECES) - 1] += words
    return [count / max(sum(counts), 1) for count in counts]


def _training(run: Path, metrics: Mapping[str, Any]) -> Chart | None:
    """Draw the loss of each stage that trains.

    Only tuning on pairs has a loss that is comparable between vocabularies, so only there are the
    controls drawn on the same axes.
    """
    panels: dict[str, list[Line]] = {}
    for stage in (name for name in metrics if "." not in name):
        comparable = stage == "tune" and metrics["tune"]["pairs"] > 0
        for control, label in (("", "new tokens"), *(CONTROLS.items() if comparable else ())):
            name = f"{control}.{stage}" if control else stage
            path = run / "stages" / name / "metrics.jsonl"
            if not path.exists():
                continue
            rows = [json.loads(row) for row in read_text(path).splitlines()]
            loss = [row["loss"] for row in rows]
            steps = [row["step"] for row in rows]
            line = Line(label, steps, _smoothed(loss), bool(control), None if control else loss)
            panels.setdefault(stage, []).append(line)
    if not panels:
        return None
    return charts.lines("Training loss", panels, x="step", y="loss", height=3.0)


def _smoothed(values: list[float]) -> list[float]:
    """Return the moving average over each step and the steps just before it."""
    width = max(1, len(values) // _SMOOTHED)
    sums = np.cumsum([0.0, *values])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    smoothed: list[float] = ((sums[ends] - sums[starts]) / (ends - starts)).tolist()
    return smoothed


def _index(index: IndexMetrics) -> Chart:
    speeds = [point["queries_per_second"] for point in index["curve"]]
    recalls = [point["recall"] for point in index["curve"]]
    drawn = [
        Line("graph", speeds, recalls),
        Line("exact product", [index["exact_queries_per_second"]], [1.0], control=True),
    ]
    return charts.lines(
        "Recall and speed of the graph",
        {"": drawn},
        x="queries per second",
        y="recall@10",
        marked=True,
    )


def _matryoshka(widths: list[dict[str, float]]) -> Chart | None:
    if len(widths) < 2:
        return None
    drawn = [
        Line(title, [width["dimensions"] for width in measured], [w[test] for w in measured])
        for test, title in _TESTS.items()
        if (measured := [width for width in widths if test in width])
    ]
    return charts.lines(
        "nDCG@10 by dimensions kept",
        {"": drawn},
        x="dimensions",
        y="nDCG@10",
        marked=True,
        log=True,
    )
