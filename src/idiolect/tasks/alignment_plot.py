"""Plot an alignment: target tokens by source tokens, darker for a larger weight."""

from __future__ import annotations

from pathlib import Path

from idiolect.tasks.translator import TokenAlignment

__all__ = ["plot_alignment"]


def plot_alignment(alignment: TokenAlignment, path: str | Path, *, title: str = "") -> None:
    """Plot an alignment to a file, whose extension sets the format.

    Args:
        alignment: The weights.
        path: The file, such as `alignment.png`.
        title: Title above the plot.
    """
    from matplotlib.figure import Figure

    rows, columns = alignment.weights.shape
    figure = Figure(figsize=(1.6 + 0.36 * columns, 1.6 + 0.3 * rows), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(alignment.weights.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    # Dollar signs would start a formula.
    source, target = (
        [piece.replace("$", r"\$") for piece in side]
        for side in (alignment.source, alignment.target)
    )
    axes.set_xticks(range(columns), source, rotation=60, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    axes.set_yticks(range(rows), target)
    axes.set_xlabel("source (read)")
    axes.xaxis.set_label_position("bottom")
    axes.set_ylabel("target (written)")
    if title:
        axes.set_title(title)
    figure.colorbar(image, ax=axes, label="attention weight", shrink=0.8)
    figure.savefig(path, dpi=130)
