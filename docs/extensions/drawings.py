"""The drawings themselves. Axes are in units of text lines; all use the same few marks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.pyplot import subplots

BLUE, ORANGE, GREEN, GREY, RED = "#2f6fb0", "#c8651b", "#3b8457", "#777777", "#b03a3a"


def _canvas(width: float, height: float, scale: float = 0.55) -> tuple[Figure, Axes]:
    figure, axes = subplots(figsize=(width * scale, height * scale))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.set_aspect("equal")
    axes.axis("off")
    return figure, axes


def _box(
    axes: Axes, x: float, y: float, text: str, colour: str = BLUE, w: float = 2, h: float = 1
) -> None:
    shape = FancyBboxPatch(
        (x - w / 2, y - h / 2),
        w,
        h,
        boxstyle="round,pad=0.02,rounding_size=0.15",
        facecolor=colour + "22",
        edgecolor=colour,
        linewidth=1.2,
    )
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", fontsize=9, color="#222222")


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    colour: str = GREY,
    bend: float = 0,
    width: float = 1.1,
) -> None:
    style = {
        "arrowstyle": "-|>",
        "color": colour,
        "lw": width,
        "shrinkA": 1,
        "shrinkB": 1,
        "connectionstyle": f"arc3,rad={bend}",
    }
    axes.annotate("", xy=end, xytext=start, arrowprops=style)


def _say(axes: Axes, x: float, y: float, text: str, colour: str = "#222222", size: int = 9) -> None:
    axes.text(x, y, text, ha="center", va="center", fontsize=size, color=colour)


def _matrix(axes: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    axes.set_xticks(range(len(columns)), columns, fontsize=8, rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.tick_params(length=0)


def recurrent() -> Figure:
    """One cell, unrolled over four words."""
    figure, axes = _canvas(13, 4.6)
    for place, word in enumerate(("red", "desk", "lamp", "with")):
        x = 2 + 3 * place
        _box(axes, x, 2.3, f"$h_{place + 1}$")
        _say(axes, x, 0.5, word)
        _arrow(axes, (x, 0.8), (x, 1.8))
        _arrow(axes, (x, 2.8), (x, 3.7))
        _say(axes, x, 4.1, ("desk", "lamp", "with", "?")[place], GREEN)
        if place:
            _arrow(axes, (x - 2, 2.3), (x - 1, 2.3), BLUE, width=1.8)
            _say(axes, x - 1.5, 2.65, "W", BLUE)
    return figure


def lstm() -> Figure:
    """The memory of an LSTM and its gates."""
    figure, axes = _canvas(13, 5)
    _arrow(axes, (0.6, 4.2), (12.4, 4.2), BLUE, width=2.2)
    _say(axes, 0.7, 4.6, "$c_{t-1}$", BLUE)
    _say(axes, 12.3, 4.6, "$c_t$", BLUE)
    for x, name, what, colour in (
        (3, "f", "forget", RED),
        (6, "i · g", "write", GREEN),
        (9.5, "o", "show", ORANGE),
    ):
        _box(axes, x, 2.2, name, colour)
        _say(axes, x, 1.3, what, colour, 8)
        down = name == "o"
        _arrow(axes, (x, 4.1) if down else (x, 2.75), (x, 2.75) if down else (x, 4.1), colour)
    _say(axes, 3.4, 3.6, "×", RED, 12)
    _say(axes, 6.4, 3.6, "+", GREEN, 12)
    _arrow(axes, (10.5, 2.2), (12.4, 2.2), ORANGE, width=1.6)
    _say(axes, 12.3, 2.6, "$h_t$", ORANGE)
    _say(axes, 6.2, 0.5, "$x_t$ and $h_{t-1}$ decide how far each gate opens", GREY)
    return figure


def seq2seq() -> Figure:
    """An encoder, a decoder, and what attention looks at."""
    figure, axes = _canvas(17, 6)
    for place, word in enumerate(("eine", "rote", "Lampe")):
        x = 1.8 + 2.7 * place
        _box(axes, x, 2, f"$s_{place + 1}$")
        _say(axes, x, 0.5, word)
        _arrow(axes, (x, 0.8), (x, 1.5))
        if place:
            _arrow(axes, (x - 1.7, 2), (x - 1, 2), BLUE)
    for place, word in enumerate(("a", "red", "lamp")):
        x = 10 + 2.7 * place
        _box(axes, x, 2, f"$h_{place + 1}$", ORANGE)
        _say(axes, x, 0.5, ("<s>", "a", "red")[place])
        _arrow(axes, (x, 0.8), (x, 1.5))
        _arrow(axes, (x, 2.5), (x, 3.2))
        _say(axes, x, 3.5, word, GREEN)
        _arrow(axes, (x - (2.8 if not place else 1.7), 2), (x - 1, 2), ORANGE)
    for place, share in enumerate((0.1, 0.2, 0.7)):
        _arrow(axes, (1.8 + 2.7 * place, 2.5), (15.0, 3.3), RED, -0.25, 0.5 + 3 * share)
    _say(axes, 8.2, 5.7, "weights of attention for “lamp”: 0.1, 0.2, 0.7", RED)
    return figure


def merges() -> Figure:
    """How BPE reads a term that it does not know, and one that it does."""
    figure, axes = _canvas(15, 6.4)
    pieces = ((" Hb", "A", "1", "c"), (" HbA1c",))
    for row, parts in enumerate(pieces):
        y = 5.4 - 3 * row
        _say(axes, 1.6, y, ("published", "extended")[row], GREY)
        for place, piece in enumerate(parts):
            colour = ORANGE if row else BLUE
            _box(axes, 5 + 2.2 * place, y, piece.replace(" ", "␣"), colour)
            _box(axes, 5 + 2.2 * place, y - 1.3, "row", colour, h=0.6)
    _say(
        axes, 11.5, 1.6, "one id, one row of its own,\nwhich begins as the mean of the four", ORANGE
    )
    return figure


def rows() -> Figure:
    """The embedding matrix before and after: original rows are a block that nothing writes to."""
    figure, axes = _canvas(14, 7)
    _box(axes, 3, 3.9, "original rows\n49,152 × 576", BLUE, 3.4, 4.4)
    _box(axes, 9, 3.9, "original rows\nbit for bit the same", BLUE, 3.4, 4.4)
    _box(axes, 9, 1, "new rows", ORANGE, 3.4, 0.9)
    _arrow(axes, (4.9, 3.9), (7.1, 3.9), GREY)
    _say(axes, 6, 4.3, "grow", GREY)
    _arrow(axes, (12.6, 1), (10.9, 1), ORANGE, width=1.8)
    _say(axes, 12.7, 1.5, "gradients", ORANGE)
    _say(axes, 11.9, 3.9, "✕", RED, 13)
    _say(axes, 12.9, 5, "no gradient, no\nweight decay, no\noptimizer state", RED, 8)
    return figure


def windows() -> Figure:
    """Skip-gram predicts the neighbours of a word; CBOW a word from its neighbours."""
    figure, axes = _canvas(16, 5)
    words = ("a", "red", "desk", "lamp", "with")
    for side, (title, x0) in enumerate((("skip-gram", 0.4), ("CBOW", 8.6))):
        _say(axes, x0 + 3.4, 4.7, title, GREY)
        for place, word in enumerate(words):
            x = x0 + 0.6 + 1.45 * place
            _box(axes, x, 1, word, ORANGE if place == 2 else BLUE, 1.3, 0.8)
            if place != 2:
                ends = (x0 + 3.5, 1.45), (x, 1.45)
                _arrow(
                    axes,
                    *(ends if not side else ends[::-1]),
                    GREY,
                    -0.5 if (place < 2) != bool(side) else 0.5,
                )
    return figure


def attention() -> Figure:
    """Who may look at whom: both ways, causal, and from a decoder to its source."""
    words = ("the", "red", "lamp", "glows")
    figure, parts = subplots(1, 3, figsize=(9, 2.8))
    values = np.array([[6, 1, 1, 1], [1, 5, 3, 1], [1, 4, 5, 2], [1, 1, 5, 4]], float)
    causal = np.where(np.tri(4) > 0, values, 0)
    cross = np.array([[8, 1, 1], [1, 8, 1], [1, 1, 8], [1, 2, 6]], float)
    for axes, title, shares, columns in zip(
        parts,
        ("encoder: every word", "decoder: words before it", "decoder to its source"),
        (values, causal, cross),
        (words, words, ("die", "rote", "Lampe")),
        strict=True,
    ):
        _matrix(axes, shares / shares.sum(1, keepdims=True), words, columns)
        axes.set_title(title, fontsize=9)
    figure.tight_layout()
    return figure


def block() -> Figure:
    """A layer of a Transformer, with the normalisation after each part and before it."""
    figure, axes = _canvas(13, 8.4)
    for x, title, before in ((3, "after (2017)", False), (9.5, "before (GPT-2 on)", True)):
        _say(axes, x, 8.1, f"normalisation {title}", GREY)
        _arrow(axes, (x, 0.2), (x, 7.7), "#bbbbbb")
        for place, name in enumerate(("attention", "feed-forward")):
            y = 1.5 + 3.2 * place
            part, norm = (y + 0.8, y) if before else (y, y + 1.5)
            _box(axes, x, part, name, (BLUE, ORANGE)[place], 2.6, 0.8)
            _box(axes, x, norm, "norm", GREY, 1.6, 0.5)
            _arrow(axes, (x - 0.1, y - 0.7), (x - 0.1, part + 0.75), GREEN, -1.4, 1.2)
            _say(axes, x + 0.25, part + 0.72, "+", GREEN, 11)
    return figure


def positions() -> Figure:
    """Sinusoids by place and dimension; the penalty of ALiBi by distance; buckets of T5."""
    figure, (left, right) = subplots(1, 2, figsize=(9, 2.8))
    places, width = np.arange(60)[:, None], 64
    angles = places / 10_000 ** (np.arange(0, width, 2) / width)
    table = np.stack([np.sin(angles), np.cos(angles)], -1).reshape(60, width)
    left.imshow(table, cmap="RdBu", aspect="auto")
    left.set_xlabel("dimension", fontsize=8)
    left.set_ylabel("place", fontsize=8)
    left.set_title("sinusoids (2017)", fontsize=9)
    distance = np.arange(0, 60)
    for power in (1, 2, 4):
        right.plot(distance, -distance * 2.0**-power, label=f"ALiBi, slope 1/{2**power}")
    right.set_xlabel("distance to the word that is looked at", fontsize=8)
    right.set_title("added to the scores", fontsize=9)
    right.legend(fontsize=7, frameon=False)
    for axes in (left, right):
        axes.tick_params(labelsize=7)
    figure.tight_layout()
    return figure


def objectives() -> Figure:
    """What each kind of network reads, and what it must write."""
    figure, axes = _canvas(17, 7.4)
    lines = (
        ("causal (GPT)", "the red lamp", "red lamp glows"),
        ("masked (BERT)", "the [MASK] lamp glows", "red"),
        ("span corruption (T5)", "the <0> glows <1>", "<0> red lamp <1> at night"),
        ("denoising (BART)", "glows the [MASK]", "the red lamp glows"),
        ("translation pairs (XLM)", "the [MASK] lamp </s> die rote [MASK]", "red · Lampe"),
    )
    _say(axes, 7.6, 7, "reads", GREY)
    _say(axes, 14, 7, "writes", GREY)
    for place, (name, reads, writes) in enumerate(lines):
        y = 6 - 1.3 * place
        _say(axes, 2, y, name)
        _box(axes, 7.6, y, reads, BLUE, 6.2, 0.9)
        _box(axes, 14, y, writes, ORANGE, 5, 0.9)
        _arrow(axes, (10.8, y), (11.4, y))
    return figure


def lora() -> Figure:
    """A frozen matrix, and the product of two thin ones beside it."""
    figure, axes = _canvas(11, 6)
    _box(axes, 3, 3, "W\nfrozen", BLUE, 3, 3)
    _box(axes, 8, 1.9, "A", ORANGE, 3, 0.8)
    _box(axes, 8, 4.1, "B", ORANGE, 0.8, 1.6)
    _say(axes, 9.9, 3.1, "rank r", ORANGE, 8)
    _say(axes, 5.5, 0.4, "x")
    _arrow(axes, (5.3, 0.6), (3.3, 1.4))
    _arrow(axes, (5.7, 0.6), (7.6, 1.4))
    _arrow(axes, (8, 2.4), (8, 3.2), ORANGE)
    _arrow(axes, (3, 4.6), (5.1, 5.4))
    _arrow(axes, (8, 5), (5.9, 5.4), ORANGE)
    _say(axes, 5.5, 5.5, "+")
    return figure


def graph() -> Figure:
    """A search in a graph goes from the entry to the query, always to the nearest unseen point."""
    random = np.random.default_rng(1)
    points = random.uniform(0, 1, (70, 2))
    points[0] = 0.03, 0.93
    figure, axes = subplots(figsize=(5, 3.6))
    distances = ((points[:, None] - points[None]) ** 2).sum(-1)
    edges = {row: set(np.argsort(distances[row])[1:5].tolist()) for row in range(70)}
    for row in range(0, 70, 4):
        edges[row].add(int(random.integers(70)))
    for row, others in list(edges.items()):
        for other in others:
            edges[other] = edges[other] | {row}
            axes.plot(*points[[row, other]].T, color="#dddddd", lw=0.6, zorder=1)
    axes.scatter(*points.T, s=12, color=BLUE, zorder=2)
    query = np.array([0.88, 0.12])
    path = [0]
    while True:
        near = [path[-1], *sorted(edges[path[-1]])]
        best = min(near, key=lambda row: float(((points[row] - query) ** 2).sum()))
        if best == path[-1]:
            break
        path.append(best)
    axes.plot(*points[path].T, color=ORANGE, lw=1.8, zorder=3)
    axes.scatter(*query, marker="*", s=120, color=RED, zorder=4)
    axes.set_axis_off()
    return figure


def matryoshka() -> Figure:
    """One loss for each beginning of a vector."""
    figure, axes = _canvas(14, 5)
    for place, width in enumerate((1, 2, 4, 8)):
        y = 4.3 - 1.1 * place
        _box(axes, 1 + width / 2, y, str(48 * width), (RED, ORANGE, GREEN, BLUE)[place], width, 0.7)
        _arrow(axes, (1.1 + width, y), (10.4, y))
        _say(axes, 11.6, y, f"loss of the first {48 * width}", size=8)
    return figure


def answers() -> Figure:
    """From a question to an answer whose citations were checked."""
    figure, axes = _canvas(18, 3.6)
    steps = (
        "question",
        "words and\nvectors",
        "rerank,\nspread",
        "prompt\nwithin a budget",
        "model",
        "check each\ncitation",
    )
    for place, name in enumerate(steps):
        x = 1.6 + 3 * place
        _box(axes, x, 1.9, name, (GREY, BLUE, BLUE, BLUE, ORANGE, GREEN)[place], 2.5, 1.5)
        if place:
            _arrow(axes, (x - 1.75, 1.9), (x - 1.25, 1.9))
    return figure


def alignment() -> Figure:
    """RLHF trains a judge and then a writer; DPO goes from the pairs to the writer at once."""
    figure, axes = _canvas(17, 6)
    _box(axes, 2, 3, "pairs: better,\nworse", GREY, 3, 1.4)
    _box(axes, 7, 4.7, "reward model", BLUE, 3, 1)
    _box(axes, 12, 4.7, "PPO, RLOO, GRPO", BLUE, 3.4, 1)
    _box(axes, 9.5, 1.2, "DPO, IPO, KTO, ORPO, SimPO", ORANGE, 6, 1)
    _box(axes, 15.6, 3, "policy", GREEN, 2, 1)
    _arrow(axes, (3.3, 3.8), (5.4, 4.6))
    _arrow(axes, (8.6, 4.7), (10.2, 4.7))
    _arrow(axes, (13.8, 4.5), (15.2, 3.6))
    _arrow(axes, (3.3, 2.2), (6.4, 1.3), ORANGE)
    _arrow(axes, (12.6, 1.3), (15.2, 2.4), ORANGE)
    return figure


DRAWINGS: dict[str, Callable[[], Figure]] = {
    drawing.__name__: drawing
    for drawing in (
        recurrent,
        lstm,
        seq2seq,
        merges,
        rows,
        windows,
        attention,
        block,
        positions,
        objectives,
        lora,
        graph,
        matryoshka,
        answers,
        alignment,
    )
}
