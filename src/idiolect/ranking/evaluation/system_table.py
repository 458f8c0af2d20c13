"""Several systems on the same queries: one table, each difference with what it is worth."""

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

__all__ = ["draw_curve", "figures_of", "picture_kind", "write_per_query"]

_INK, _GRID = "#333333", "#dddddd"
_SERIES = ("#1f5fa8", "#c25a1a", "#3c8a4a", "#7a4fa3")


def figures_of(
    systems: Mapping[str, Evaluation], *, measure: str = "ndcg@10", against: str | None = None
) -> dict[str, Any]:
    """Gather the means of all systems, and how each differs from one of them.

    Args:
        systems: What each is worth, on the same queries.
        measure: What they are compared by.
        against: The system the others are compared with; by default the first.

    Returns:
        Numbers and strings only, for JSON: by system the `means`, and but for one, `comparison`.

    Raises:
        InputError: There are no systems, or they were evaluated on different queries.
    """
    if not systems:
        raise InputError("no systems to compare")
    against = against or next(iter(systems))
    first = systems[against]
    rows = {}
    for name, result in systems.items():
        rows[name] = {"means": result.means, "unanswered": len(result.unanswered)}
        if name != against:
            difference = compare(first.per_query[measure], result.per_query[measure])
            rows[name]["comparison"] = asdict(difference)
    return {
        "queries": first.queries,
        "left_out": len(first.left_out),
        "measure": measure,
        "against": against,
        "systems": rows,
    }


def write_per_query(path: str | Path, systems: Mapping[str, Evaluation]) -> None:
    """Write a CSV table with a row for each system and query, and a column for each measure."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    names = list(next(iter(systems.values())).per_query)
    table.writerow(["system", "query", *names])
    for system, result in systems.items():
        for query in result.per_query[names[0]]:
            values = (f"{result.per_query[name][query]:.6g}" for name in names)
            table.writerow([system, query, *values])
    write_atomic(Path(path), text.getvalue().encode())


def picture_kind(path: str | Path) -> str:
    """Return the format a picture is to have, by the end of its name: `svg`, `png` or `pdf`.

    Raises:
        InputError: It has none that can be drawn.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in ("svg", "png", "pdf"):
        raise InputError(f"{path} is no picture", hint="give a name that ends in .svg or .png")
    return kind


def draw_curve(
    path: str | Path,
    curves: Mapping[str, Mapping[int, float]],
    *,
    level: tuple[str, float] | None = None,
    measure: str = "nDCG@10",
) -> None:
    """Draw what fewer dimensions cost (Matryoshka, Kusupati et al. 2022, 2205.13147).

    Args:
        path: Of the picture; `.svg`, `.png` or `.pdf`.
        curves: By system, the measure at each number of dimensions.
        level: A system that has no dimensions, drawn as a line across.
        measure: What is drawn, for the axis.

    Raises:
        InputError: The file's name says no format that can be drawn.
    """
    kind = picture_kind(path)
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    sizes = sorted({size for curve in curves.values() for size in curve})
    for colour, (name, curve) in zip(_SERIES * len(curves), curves.items(), strict=False):
        own = sorted(curve)
        values = [curve[size] for size in own]
        axes.plot(own, values, "o-", color=colour, label=name, linewidth=1.8, markersize=4.5)
        whole = values[-1]
        for size, value in zip(own[:-1], values[:-1], strict=True):
            if whole > 0:
                axes.annotate(
                    f"{value / whole:.0%}",
                    (size, value),
                    xytext=(0, 7),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                    color=colour,
                )
    if level is not None:
        axes.axhline(level[1], color=_INK, linewidth=1.2, linestyle=(0, (4, 3)), label=level[0])
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("dimensions kept", color=_INK)
    axes.set_ylabel(measure, color=_INK)
    axes.margins(y=0.15)
    axes.grid(axis="y", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=9)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
    write_atomic(Path(path), buffer.getvalue())
