"""Plots of probe results: curves over layers, maps of heads, and pruning."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from idiolect.tasks.probes.attention_patterns import PATTERNS
from idiolect.tasks.probes.probe_run import ModelProbes

__all__ = ["draw_probes"]

_COLORS = ("#2a6fbb", "#d1602a", "#3a8f5c", "#8a5ab5")


def draw_probes(found: ModelProbes) -> dict[str, str]:
    """Return the plots as PNG images in base64, by name: `layers`, `anisotropy`, and of heads."""
    plots: dict[str, Callable[[Any, ModelProbes], None]] = {
        "layers": _layers,
        "anisotropy": _anisotropy,
    }
    images = {name: _image(draw, found, (7.5, 3.8)) for name, draw in plots.items()}
    if found.patterns is not None:
        images["patterns"] = _image(_patterns, found, (11, 6.2))
    if found.importance is not None:
        images["importance"] = _image(_importance, found, (11, 4))
    return images


def _image(draw: Callable[[Any, ModelProbes], None], found: ModelProbes, size: Any) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(figure, found)
    data = io.BytesIO()
    figure.savefig(data, dpi=110)
    return base64.b64encode(data.getvalue()).decode()


def _layers(figure: Any, found: ModelProbes) -> None:
    axes = figure.subplots()
    for color, one in zip(_COLORS, found.probes, strict=False):
        axes.plot(one.accuracy, marker="o", ms=3, color=color, label=one.name)
        best = one.best_layer
        axes.plot(best, one.accuracy[best], marker="o", ms=8, mfc="none", color=color)
        base = one.majority if one.by_word is None else one.by_word
        axes.axhline(base, color=color, lw=0.8, ls=":")
    axes.set(xlabel="layer (0: embedding)", ylabel="accuracy of a linear probe")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title("dotted: best answer without a network; ring: best layer", fontsize=9)
    axes.set_ylim(0, 1)
    axes.legend(loc="lower right", fontsize=8)
    axes.grid(alpha=0.3)


def _anisotropy(figure: Any, found: ModelProbes) -> None:
    axes, one = figure.subplots(), found.anisotropy
    for color, (name, values) in zip(
        _COLORS,
        {
            "tokens of two texts": one.tokens,
            "means of two texts": one.texts,
            "tokens, mean subtracted": one.centered,
            "share of variance in one direction": one.largest,
        }.items(),
        strict=True,
    ):
        axes.plot(values, marker="o", ms=3, color=color, label=name)
    axes.set(xlabel="layer (0: embedding)", ylabel="mean cosine, or share")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(-0.1, 1.02)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def _patterns(figure: Any, found: ModelProbes) -> None:
    assert found.patterns is not None
    grid = figure.subplots(2, 3)
    for axes, name, shares in zip(grid.flat, PATTERNS, found.patterns.shares, strict=True):
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        _label(axes, shares)
        axes.set_title(f"looks at: {name}", fontsize=10)
    figure.colorbar(image, ax=grid, label="share of attention", shrink=0.7)


def _importance(figure: Any, found: ModelProbes) -> None:
    assert found.importance is not None
    assert found.pruning is not None
    left, right = figure.subplots(1, 2)
    image = left.imshow(found.importance, cmap="Oranges", vmin=0, aspect="auto")
    _label(left, found.importance)
    left.set_title("importance of each head", fontsize=10)
    figure.colorbar(image, ax=left, shrink=0.8)
    curve = found.pruning
    shares = [100 * share for share in curve.shares]
    right.plot(shares, curve.by_importance, marker="o", color=_COLORS[0], label="by importance")
    random = np.array(curve.random)
    right.plot(shares, random.mean(1), marker="s", color=_COLORS[1], label="random")
    right.fill_between(shares, random.min(1), random.max(1), color=_COLORS[1], alpha=0.2)
    better = "higher" if curve.higher_is_better else "lower"
    right.set(xlabel="heads pruned (%)", ylabel=curve.measure)
    right.set_title(f"pruning ({better} is better)", fontsize=10)
    right.legend(fontsize=8)
    right.grid(alpha=0.3)


def _label(axes: Any, values: Any) -> None:
    layers, heads = values.shape
    axes.set_yticks(
        range(0, layers, max(1, layers // 10)), range(1, layers + 1, max(1, layers // 10))
    )
    axes.set_xticks(range(heads), range(1, heads + 1))
    axes.tick_params(labelsize=7)
    axes.set(xlabel="head", ylabel="layer")
