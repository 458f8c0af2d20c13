"""Charts as SVG that take their colors from the page, for a light and a dark theme.

Matplotlib draws with placeholder colors, one per role, which become CSS variables in the SVG. Text
stays text, in the font of the page, and labels are never parsed as markup. Each chart is drawn
twice: with its panels side by side, and stacked for narrow screens, so that text has the same
size on both and nothing is cut off.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = ["Chart", "Line", "bars", "dots", "lines"]

_WIDE, _NARROW = 9.6, 5.0  # inches
_LABEL = 30  # characters
_DIGITS = re.compile(r"(\.\d\d)\d+")
_ROLES = ("ink", "muted", "grid", "paper", "s1", "s2", "s3", "s4", "s5", "s6")
_PLACEHOLDERS = {role: f"#0a0b{number:02x}" for number, role in enumerate(_ROLES, start=16)}
_SERIES = tuple(_PLACEHOLDERS[role] for role in _ROLES if re.fullmatch(r"s\d", role))
_DASHES = ((0, (4, 2)), (0, (1, 1.4)))  # for controls
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
class Chart:
    """A chart as SVG at two widths."""

    wide: str
    narrow: str


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
) -> Chart:
    """Draw lines in panels.

    Args:
        name: Text alternative of the chart.
        panels: Title and lines of each panel.
        x: Label of the horizontal axes.
        y: Label of the vertical axes.
        marked: Whether to mark each point.
        log: Whether the horizontal axes are logarithmic, with a tick at each point.
        height: Height of a panel, in inches.
    """

    def draw(axes: list[Axes]) -> None:
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
            if _is_first(place):
                place.set_ylabel(y)

    return _chart(name, len(panels), height, draw)


def bars(
    name: str, values: Mapping[str, Sequence[float]], labels: Sequence[str], *, y: str
) -> Chart:
    """Draw a group of vertical bars for each label.

    Args:
        name: As for `lines`; the shares are added.
        values: For each series, its value at each label, as a share of 1.
        labels: Names of the groups.
        y: Label of the vertical axis.
    """

    def draw(axes: list[Axes]) -> None:
        (place,) = axes
        width = 0.8 / len(values)
        for number, (series, heights) in enumerate(values.items()):
            places = np.arange(len(labels)) + (number - (len(values) - 1) / 2) * width
            place.bar(places, heights, width * 0.92, label=series, color=_SERIES[number])
        place.set_xticks(range(len(labels)), labels)
        place.set_ylabel(y)
        place.grid(visible=False, axis="x")
        if len(values) > 1:
            place.legend()

    told = {
        series: ", ".join(
            f"{label} {height:.0%}" for label, height in zip(labels, heights, strict=True)
        )
        for series, heights in values.items()
    }
    return _chart(_told(name, told), 1, 2.6, draw)


def dots(
    name: str,
    panels: Mapping[str, Mapping[str, float]],
    *,
    muted: Sequence[str] = (),
    number: str = ".3f",
) -> Chart:
    """Draw a dot plot: for each label a line from zero to its value, in panels.

    Args:
        name: As for `lines`; the values are added.
        panels: Title of each panel, and its values by label; all panels share the labels.
        muted: Labels to draw muted.
        number: Format of the values.
    """
    labels = list(dict.fromkeys(label for values in panels.values() for label in values))

    def draw(axes: list[Axes]) -> None:
        for place, (title, values) in zip(axes, panels.items(), strict=True):
            place.set_title(title)
            for height, label in enumerate(labels):
                if label in values:
                    color = _PLACEHOLDERS["muted"] if label in muted else _SERIES[0]
                    _dot(place, values[label], height, color, number)
            place.set_xlim(0, (max(values.values(), default=0) or 1) * 1.22)
            place.set_ylim(len(labels) - 0.5, -0.5)
            place.xaxis.set_major_locator(MaxNLocator(5))
            place.grid(visible=False, axis="y")
            shown = [_short(label) if _is_first(place) else "" for label in labels]
            place.set_yticks(range(len(labels)), shown)
            place.tick_params(axis="y", labelcolor=_PLACEHOLDERS["ink"], length=0)

    told = {
        title: ", ".join(f"{label} {value:{number}}" for label, value in values.items())
        for title, values in panels.items()
    }
    return _chart(_told(name, told), len(panels), 0.7 + 0.25 * len(labels), draw)


def _is_first(axes: Axes) -> bool:
    """Return whether a panel is the first in its row."""
    place = axes.get_subplotspec()
    return place is None or place.is_first_col()


def _dot(axes: Axes, value: float, height: int, color: str, number: str) -> None:
    axes.plot([0, value], [height, height], color=color, linewidth=1.2)
    axes.plot(value, height, "o", color=color, markersize=5)
    axes.annotate(
        format(value, number),
        (value, height),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
    )


def _short(label: str) -> str:
    return label if len(label) <= _LABEL else f"{label[: _LABEL - 1]}…"


def _told(name: str, values: Mapping[str, str]) -> str:
    """Return an alternative text with the values of each panel or series."""
    return f"{name}. " + "; ".join(f"{title}: {text}" for title, text in values.items())


def _line(axes: Axes, line: Line, color: str, dash: Any, marked: bool) -> None:
    if line.faint is not None:
        axes.plot(line.x, line.faint, color=color, linewidth=0.6, alpha=0.25)
    axes.plot(
        line.x,
        line.y,
        color=color,
        label=line.label,
        linestyle=dash,
        marker="o" if marked or len(line.x) == 1 else None,  # one point has no line
        markersize=4,
    )


def _chart(name: str, panels: int, height: float, draw: Callable[[list[Axes]], None]) -> Chart:
    """Draw panels side by side, and stacked.

    Args:
        name: Text alternative.
        panels: Number of panels.
        height: Height of a panel, in inches.
        draw: Draws in the axes of the panels.
    """
    drawn = []
    for rows, columns, width in ((1, panels, _WIDE), (panels, 1, _NARROW)):
        with _figure(name, (width, rows * height)) as (figure, done):
            draw(list(figure.subplots(rows, columns, squeeze=False).flat))
        drawn += done
    return Chart(*drawn)


@contextmanager
def _figure(name: str, size: tuple[float, float]) -> Iterator[tuple[Figure, list[str]]]:
    """Yield a figure to draw in, and a list that receives its SVG afterwards."""
    done: list[str] = []
    # Ids within the SVG are hashed with the salt, so both sizes of a chart have their own.
    with mpl.rc_context(_STYLE | {"svg.hashsalt": f"{name} {size}"}):
        figure = Figure(figsize=size, layout="constrained")
        yield figure, done
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        done.append(_themed(buffer.getvalue(), name))


def _themed(svg: str, name: str) -> str:
    """Turn Matplotlib's SVG file into a fragment of a page.

    The prologue and metadata contain web addresses and are removed. So are sizes and the ids of
    groups, which would clash with other charts. Only references within the chart remain.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[^"]*_\d+"', "", svg)
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view is not None
    svg = svg[svg.index(">") + 1 :]
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    svg = re.sub(r'="[^"]*"', lambda value: _DIGITS.sub(r"\1", value[0]), svg)
    for role, color in _PLACEHOLDERS.items():
        svg = svg.replace(color, f"var(--{role})")
    label = name.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return f'<svg {view[0]} role="img" aria-label="{label}">{svg}'
