"""The page of an evaluation of word vectors: figures, plots and neighbours side by side."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from idiolect.text.files import write_atomic
from idiolect.words.evaluation import WordScore
from idiolect.words.word_comparison import Agreement

__all__ = ["write_word_report"]

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .7rem;border-bottom:1px solid #ccc;
text-align:left;vertical-align:top}td.n{text-align:right;font-variant-numeric:tabular-nums}
td.best{font-weight:600}svg{max-width:100%;height:auto}small{color:#666}"""


def write_word_report(
    path: Path,
    scores: Mapping[str, Sequence[WordScore]],
    agreements: Sequence[Agreement],
    examples: Mapping[str, Mapping[str, Sequence[str]]],
) -> None:
    """Write the page.

    Args:
        path: The file.
        scores: The figures of each model, all on the same test sets.
        agreements: How far each two models agree; empty with one model.
        examples: Neighbours of query words in each model.
    """
    parts = [
        "<!doctype html><meta charset=utf-8><title>Word vectors</title>",
        f"<style>{_STYLE}</style><h1>Word vectors</h1>",
        "<p>Each figure is of the questions whose words the model has; below it, the share of "
        "questions answered. Relatedness and preference: Spearman's correlation with people's "
        "scores. Analogy: share of right answers. Categorisation: purity. Coherence: how often "
        "the other model finds the intruder; no people were asked.</p>",
        _plot_scores(scores),
        _table(scores),
    ]
    if agreements:
        parts += [
            "<h2>Do the models agree on neighbours?</h2><p>Share of the nearest words that two "
            "models have in common, by the frequency of the query word.</p>",
            _plot_agreement(agreements),
            _neighbours(examples),
        ]
    write_atomic(path, "\n".join(parts).encode())


def _table(scores: Mapping[str, Sequence[WordScore]]) -> str:
    rows = ["<table><tr><th>test<th>kind" + "".join(f"<th>{html.escape(n)}" for n in scores)]
    for column in zip(*scores.values(), strict=True):
        best = max((one.score for one in column if not math.isnan(one.score)), default=math.nan)
        cells = "".join(
            f"<td class='n{' best' if one.score == best else ''}'>{one.score:.3f}<br>"
            f"<small>{one.answered:,} of {one.questions:,}</small>"
            for one in column
        )
        rows.append(f"<tr><td>{html.escape(column[0].test)}<td>{column[0].kind}{cells}")
    return "\n".join(rows) + "</table>"


def _neighbours(examples: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    names = list(next(iter(examples.values()))) if examples else []
    rows = [
        "<h2>Nearest words</h2><table><tr><th>word"
        + "".join(f"<th>{html.escape(name)}" for name in names)
    ]
    for word, columns in examples.items():
        cells = "".join(f"<td>{html.escape(', '.join(columns[name]))}" for name in names)
        rows.append(f"<tr><td><b>{html.escape(word)}</b>{cells}")
    return "\n".join(rows) + "</table>"


def _plot_scores(scores: Mapping[str, Sequence[WordScore]]) -> str:
    figure, axes = _figure(9, 1.2 + 0.22 * len(scores) * max(map(len, scores.values())))
    tests = [one.test for one in next(iter(scores.values()))]
    height = 0.8 / len(scores)
    for number, (name, column) in enumerate(scores.items()):
        values = [0.0 if math.isnan(one.score) else one.score for one in column]
        places = [row + number * height for row in range(len(tests))]
        axes.barh(places, values, height, label=name)
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(tests))], tests)
    axes.invert_yaxis()
    axes.set_xlabel("score")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return _svg(figure)


def _plot_agreement(agreements: Sequence[Agreement]) -> str:
    figure, axes = _figure(9, 3.6)
    pairs = list(dict.fromkeys((one.first, one.second) for one in agreements))
    for first, second in pairs:
        own = [one for one in agreements if (one.first, one.second) == (first, second)]
        rank = max(own[0].overlap, default=1)
        shares = [one.overlap.get(rank, 0.0) for one in own]
        axes.plot([one.band for one in own], shares, marker="o", label=f"{first} / {second}")
    axes.set_ylim(0, 1)
    axes.set_xlabel("place of the query word by frequency")
    axes.set_ylabel(f"shared among {rank} nearest")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :]
