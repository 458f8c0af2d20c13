"""Charts as SVG that take their colors from the page, for a light and a dark theme.

Matplotlib draws with placeholder colors, one per role, which become CSS variables in the SVG. Text
stays text, in the font of the page, and labels are never parsed as markup.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

__all__ = ["Line", "bars", "dots", "lines", "scatter"]

_WIDTH = 9.6  # inches
_DIGITS = re.compile(r"(\.\d\d)\d+")
_ROLES = ("ink", "muted", "grid", "paper", "s1", "s2", "s3", "s4", "s5", "s6")
_PLACEHOLDERS = {role: f"#0a0b{number:02x}" for number, role in enumerate(_ROLES, start=16)}
_SERIES = tuple(_PLACEHOLDERS[role] for role in _ROLES if re.fullmatch(r"s\d", role))
_DASHES = ((0, (4, 2)), (0, (1, 1.4)))  # of the controls
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": _PLACEHOLDERS["ink"],
    "axes.labelcolor": _PLACEHOLDERS["muted"],
    "axes.edgecolor": _PLACEHOLDERS["grid"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "axes.titlesize": 9,
    "axes.titlecolor": _PLACEHOLDERS["ink"],
    "axes.titlelocation": "left",
    "grid.color": _PLACEHOLDERS["grid"],
    "grid.linewidth": 0.6,
    "xtick.color": _PLACEHOLDERS["grid"],
    "xtick.labelcolor": _PLACEHOLDERS["muted"],
    "ytick.color": _PLACEHOLDERS["grid"],
    "ytick.labelcolor": _PLACEHOLDERS["muted"],
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.labelcolor": _PLACEHOLDERS["ink"],
}


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    control: bool = False
    """Drawn dashed and muted, for comparison."""
    faint: Sequence[float] | None = None
    """Drawn thin behind `y`: the values before smoothing."""


def lines(
    name: str,
    panels: Mapping[str, Sequence[Line]],
    *,
    x: str,
    y: str,
    marked: bool = False,
    log: bool = False,
    height: float = 2.9,
) -> str:
    """Draw lines in panels side by side.

    Args:
        name: Text alternative of the chart.
        panels: Title and lines of each panel.
        x: Label of the horizontal axes.
        y: Label of the first vertical axis.
        marked: Whether to mark each point.
        log: Whether the horizontal axes are logarithmic, with a tick at each point.
        height: In inches; the width is 9.6.
    """
    with _figure(name, height) as (figure, done):
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for place, (title, drawn) in zip(axes, panels.items(), strict=True):
            if title:
                place.set_title(title)
            colors, dashes = iter(_SERIES), iter(_DASHES)
            for line in drawn:
                if line.control:
                    _line(place, line, _PLACEHOLDERS["muted"], next(dashes), marked)
                else:
                    _line(place, line, next(colors), "-", marked)
            place.set_xlabel(x)
            if log:
                ticks = sorted({value for line in drawn for value in line.x})
                place.set_xscale("log")
                place.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
                place.xaxis.set_minor_locator(mpl.ticker.NullLocator())
            else:
                place.xaxis.set_major_locator(MaxNLocator(5, integer=not marked))
            if len(drawn) > 1:
                place.legend(handlelength=1.4, borderaxespad=0.2)
        axes[0].set_ylabel(y)
    return done[0]


def bars(name: str, values: Mapping[str, Sequence[float]], labels: Sequence[str], *, y: str) -> str:
    """Draw a group of vertical bars for each label.

    Args:
        name: As for `lines`.
        values: For each series, its value at each label.
        labels: Names of the groups.
        y: Label of the vertical axis.
    """
    with _figure(name, 2.6) as (figure, done):
        axes = figure.subplots()
        width = 0.8 / len(values)
        for number, (series, heights) in enumerate(values.items()):
            places = np.arange(len(labels)) + (number - (len(values) - 1) / 2) * width
            axes.bar(places, heights, width * 0.92, label=series, color=_SERIES[number])
        axes.set_xticks(range(len(labels)), labels)
        axes.set_ylabel(y)
        axes.grid(visible=False, axis="x")
        if len(values) > 1:
            axes.legend()
    return done[0]


def dots(
    name: str,
    panels: Mapping[str, Mapping[str, float]],
    *,
    muted: Sequence[str] = (),
    number: str = ".3f",
) -> str:
    """Draw a dot plot: for each label a line from zero to its value, in panels side by side.

    Args:
        name: As for `lines`.
        panels: Title of each panel, and its values by label; all panels share the labels.
        muted: Labels to draw muted.
        number: Format of the values.
    """
    labels = list(dict.fromkeys(label for values in panels.values() for label in values))
    with _figure(name, 0.7 + 0.25 * len(labels)) as (figure, done):
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for place, (title, values) in zip(axes, panels.items(), strict=True):
            place.set_title(title)
            maximum = max(values.values(), default=0) or 1
            for height, label in enumerate(labels):
                if label not in values:
                    continue
                color = _PLACEHOLDERS["muted"] if label in muted else _SERIES[0]
                value = values[label]
                place.plot([0, value], [height, height], color=color, linewidth=1.2)
                place.plot(value, height, "o", color=color, markersize=5)
                place.annotate(
                    format(value, number),
                    (value, height),
                    xytext=(6, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8.5,
                )
            place.set_xlim(0, maximum * 1.18)
            place.set_ylim(len(labels) - 0.5, -0.5)
            place.xaxis.set_major_locator(MaxNLocator(5))
            place.grid(visible=False, axis="y")
        axes[0].set_yticks(range(len(labels)), labels)
        axes[0].tick_params(axis="y", labelcolor=_PLACEHOLDERS["ink"], length=0)
    return done[0]


def scatter(
    name: str, points: NDArray[np.float64], named: Mapping[str, tuple[float, float]]
) -> str:
    """Draw points, and labeled points over them as far as labels do not overlap.

    Args:
        name: As for `lines`.
        points: Shape (n, 2).
        named: Positions by label, the most important first.
    """
    with _figure(name, 6.2) as (figure, done):
        axes = figure.subplots()
        size = 4.5 if len(points) > 500 else 8.0
        axes.plot(
            *points.T,
            ".",
            color=_PLACEHOLDERS["muted"],
            markersize=size,
            alpha=0.45,
            markeredgewidth=0,
        )
        figure.draw_without_rendering()
        taken: list[Any] = []
        for label, (x, y) in named.items():
            text = axes.annotate(
                label, (x, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5
            )
            box = text.get_window_extent().expanded(1.04, 1.1)
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
            if not inside or any(box.overlaps(other) for other in taken):
                text.remove()
                continue
            taken.append(box)
            axes.plot(x, y, "o", color=_SERIES[1], markersize=4.5, markeredgewidth=0)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return done[0]


def _line(axes: Axes, line: Line, color: str, dash: Any, marked: bool) -> None:
    if line.faint is not None:
        axes.plot(line.x, line.faint, color=color, linewidth=0.6, alpha=0.25)
    axes.plot(
        line.x,
        line.y,
        color=color,
        label=line.label,
        linestyle=dash,
        marker="o" if marked else None,
        markersize=4,
    )


@contextmanager
def _figure(name: str, height: float) -> Iterator[tuple[Figure, list[str]]]:
    """Yield a figure to draw in, and a list that receives its SVG afterwards."""
    done: list[str] = []
    with mpl.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        yield figure, done
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        done.append(_themed(buffer.getvalue(), name))


def _themed(svg: str, name: str) -> str:
    """Turn Matplotlib's file into a part of a page.

    The prologue and metadata contain web addresses and are removed, and so are sizes and the ids of
    groups, which repeat in other charts. Only references within the chart remain.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[^"]*_\d+"', "", svg)
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view is not None
    label = name.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    head = f'<svg {view[0]} role="img" aria-label="{label}">'
    svg = head + svg[svg.index(">") + 1 :]
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    svg = re.sub(r'="[^"]*"', lambda value: _DIGITS.sub(r"\1", value[0]), svg)
    for role, color in _PLACEHOLDERS.items():
        svg = svg.replace(color, f"var(--{role})")
    return svg
