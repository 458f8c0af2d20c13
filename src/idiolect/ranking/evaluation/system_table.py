"""Compare several systems on the same queries: metrics, paired tests, and a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from idiolect.errors import InputError
from idiolect.ranking.evaluation.metrics import Evaluation
from idiolect.ranking.evaluation.significance import compare
from idiolect.text.files import write_atomic

__all__ = ["draw_curve", "figures_of", "image_format", "write_per_query"]

_INK, _GRID = "#333333", "#dddddd"
_SERIES = ("#1f5fa8", "#c25a1a", "#3c8a4a", "#7a4fa3")


def figures_of(
    systems: Mapping[str, Evaluation], *, metric: str = "ndcg@10", baseline: str | None = None
) -> dict[str, Any]:
    """Collect the mean metrics of all systems and their differences from a baseline.

    Args:
        systems: The evaluation of each system, on the same queries.
        metric: The metric they are compared by.
        baseline: The system the others are compared with. Default: the first.

    Returns:
        A JSON-serializable dict: for each system `means`, and `comparison` unless it is the
        baseline. `unanswered` and `unjudged` count queries without results or without judgements.

    Raises:
        InputError: There are no systems, none has the name of the baseline, or they were evaluated
            on different queries.
    """
    if not systems:
        raise InputError("no systems to compare", hint="pass at least one")
    baseline = baseline or next(iter(systems))
    if baseline not in systems:
        raise InputError(f"no system {baseline!r}", hint=f"there are {', '.join(systems)}")
    first = systems[baseline]
    rows = {}
    for name, result in systems.items():
        rows[name] = {
            "means": result.means,
            "unanswered": len(result.unanswered),
            "unjudged": len(result.unjudged),
        }
        if name != baseline:
            difference = compare(first.per_query[metric], result.per_query[metric])
            rows[name]["comparison"] = asdict(difference)
    return {
        "queries": first.queries,
        "left_out": len(first.left_out),
        "metric": metric,
        "baseline": baseline,
        "systems": rows,
    }


def write_per_query(path: str | Path, systems: Mapping[str, Evaluation]) -> None:
    """Write a CSV file with a row per system and query and a column per metric."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    names = list(next(iter(systems.values())).per_query)
    table.writerow(["system", "query", *names])
    for system, result in systems.items():
        for query in result.per_query[names[0]]:
            values = (f"{result.per_query[name][query]:.6g}" for name in names)
            table.writerow([system, query, *values])
    # An id may contain characters that UTF-8 cannot encode.
    write_atomic(Path(path), text.getvalue().encode(errors="backslashreplace"))


def image_format(path: str | Path) -> str:
    """Return the image format of a file name: `svg`, `png` or `pdf`.

    Raises:
        InputError: The format is not supported.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in ("svg", "png", "pdf"):
        raise InputError(
            f"{path} is not an image file", hint="give a name that ends in .svg or .png"
        )
    return kind


def draw_curve(
    path: str | Path,
    curves: Mapping[str, Mapping[int, float]],
    *,
    level: tuple[str, float] | None = None,
    metric: str = "nDCG@10",
) -> None:
    """Plot a metric against the embedding size (Matryoshka, Kusupati et al. 2022, 2205.13147).

    Args:
        path: The image file: `.svg`, `.png` or `.pdf`.
        curves: The metric at each number of dimensions, by system.
        level: Name and metric of a system without embeddings, drawn as a horizontal line.
        metric: Label of the axis.

    Raises:
        InputError: The image format is not supported.
    """
    kind = image_format(path)
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    sizes = sorted({size for curve in curves.values() for size in curve})
    for color, (name, curve) in zip(_SERIES * len(curves), curves.items(), strict=False):
        own = sorted(curve)
        values = [curve[size] for size in own]
        axes.plot(own, values, "o-", color=color, label=name, linewidth=1.8, markersize=4.5)
        full = values[-1]
        for size, value in zip(own[:-1], values[:-1], strict=True):
            if full > 0:
                axes.annotate(
                    f"{value / full:.0%}",
                    (size, value),
                    xytext=(0, 7),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                    color=color,
                )
    if level is not None:
        axes.axhline(level[1], color=_INK, linewidth=1.2, linestyle=(0, (4, 3)), label=level[0])
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("dimensions kept", color=_INK)
    axes.set_ylabel(metric, color=_INK)
    axes.margins(y=0.15)
    axes.grid(axis="y", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=9)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
    write_atomic(Path(path), buffer.getvalue())
