"""HTML page of an evaluation of word vectors: scores, plots, and neighbours side by side."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from idiolect.text.files import write_atomic
from idiolect.words.evaluation import WordScore
from idiolect.words.word_comparison import Agreement

__all__ = ["write_word_report"]

_COLORS = ("#1f66d1", "#c4560b", "#127a4b", "#8a3fb8", "#b3246a", "#6b6100")
_STYLE = (
    """:root{color-scheme:light dark;--paper:#fff;--ink:#1a1d23;--muted:#646b78;--grid:#dfe2e8;"""
    + "".join(f"--s{n}:{color};" for n, color in enumerate(_COLORS))
    + """}
@media screen and (prefers-color-scheme:dark){:root{--paper:#14161a;--ink:#e7e9ee;--muted:#9aa2b1;
--grid:#343943;--s0:#74a9ff;--s1:#ffa35c;--s2:#5fd09a;--s3:#cf9cf2;--s4:#ff8fbf;--s5:#d8cb5a}}
*{box-sizing:border-box}body{margin:0 auto;padding:2rem 1.25rem 4rem;max-width:56rem;
background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;margin:0 0 .5rem}h2{font-size:1.2rem;margin:2.5rem 0 .3rem}
p,small,.baseline td{color:var(--muted)}p{margin:.3rem 0 1rem;font-size:.92rem;max-width:44rem}
table{border-collapse:collapse;width:100%;font-size:.92rem}
td,th{padding:.2rem .6rem .2rem 0;text-align:left;vertical-align:top}
.scores th{padding-top:1.1rem;border-bottom:1px solid var(--grid)}.scores small{font-weight:400}
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums;width:1%}
.best{font-weight:700}.scores td:first-child{width:30%;overflow-wrap:anywhere}
.bar span{display:block;height:.75rem;margin-top:.38rem;border-radius:.2rem;background:var(--muted)}
.near{overflow-x:auto}.near td,.near th{border-bottom:1px solid var(--grid);padding:.35rem .8rem
.35rem 0;min-width:7.5rem}.near td:first-child,.near th:first-child{min-width:0}
svg{max-width:100%;height:auto}svg text{fill:var(--ink)}"""
)


def write_word_report(
    path: Path,
    scores: Mapping[str, Sequence[WordScore]],
    agreements: Sequence[Agreement],
    examples: Mapping[str, Mapping[str, Sequence[str]]],
) -> None:
    """Write the page.

    Args:
        path: The file.
        scores: The scores of each model, all on the same test sets.
        agreements: The agreement of each pair of models; empty with one model.
        examples: Neighbours of query words in each model.
    """
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'><title>Word vectors</title>",
        f"<style>{_STYLE}</style><h1>Word vectors</h1>",
        "<p>Each figure is of the questions whose words the model has; beside it is how many were "
        "answered. Relatedness and preference: Spearman's correlation with people's scores. "
        "Analogy: share of right answers. Categorisation: purity. Tagging and classification: "
        "accuracy of a linear probe on frozen vectors, above what needs no vectors. Coherence: how "
        "often the other model finds the intruder; no people were asked.</p>",
        _scores(scores),
    ]
    if agreements:
        parts += [
            "<h2>Do the models agree on neighbours?</h2><p>Share of the nearest words that two "
            "models have in common, by the frequency of the query word.</p>",
            _plot_agreement(agreements),
            _neighbours(examples),
        ]
    write_atomic(path, "\n".join([*parts, "</html>"]).encode())


def _scores(scores: Mapping[str, Sequence[WordScore]]) -> str:
    """Draw a bar for each model on each test set."""
    rows = ["<table class=scores>"]
    for column in zip(*scores.values(), strict=True):
        best = max((one.score for one in column if not math.isnan(one.score)), default=math.nan)
        test, kind = html.escape(column[0].test), column[0].kind
        shown = "" if test == kind else f" <small>{kind}</small>"
        rows.append(f"<tr><th colspan=4>{test}{shown}")
        for number, (name, one) in enumerate(zip(scores, column, strict=True)):
            answered = f"{one.answered:,} of {one.questions:,}"
            color = f"var(--s{number % len(_COLORS)})"
            rows.append("<tr>" + _bar(name, one.score, color, answered, best=one.score == best))
        for name in column[0].baselines:
            # Models with other vocabularies answer other questions.
            for value in dict.fromkeys(one.baselines[name] for one in column):
                rows.append("<tr class=baseline>" + _bar(name, value, "var(--muted)"))
    return "\n".join(rows) + "</table>"


def _bar(name: str, value: float, color: str, note: str = "", *, best: bool = False) -> str:
    width = 0.0 if math.isnan(value) else 100 * min(max(value, 0.0), 1.0)
    number = "–" if math.isnan(value) else f"{value:.3f}"
    return (
        f"<td>{html.escape(name)}<td class=bar><span style='width:{width:.1f}%;background:{color}'>"
        f"</span><td class='n{' best' if best else ''}'>{number}<td class=n><small>{note}</small>"
    )


def _neighbours(examples: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    names = list(next(iter(examples.values()))) if examples else []
    rows = [
        "<h2>Nearest words</h2><div class=near><table><tr><th>word"
        + "".join(f"<th>{html.escape(name)}" for name in names)
    ]
    for word, columns in examples.items():
        cells = "".join(f"<td>{html.escape(', '.join(columns[name]))}" for name in names)
        rows.append(f"<tr><td><b>{html.escape(word)}</b>{cells}")
    return "\n".join(rows) + "</table></div>"


def _plot_agreement(agreements: Sequence[Agreement]) -> str:
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    pairs = list(dict.fromkeys((one.first, one.second) for one in agreements))
    highest = 0.0
    for number, (first, second) in enumerate(pairs):
        own = [one for one in agreements if (one.first, one.second) == (first, second)]
        rank = max(own[0].overlap, default=1)
        shares = [one.overlap.get(rank, 0.0) for one in own]
        highest = max(highest, *shares)
        axes.plot(
            [one.band for one in own],
            shares,
            marker="o",
            color=_COLORS[number % len(_COLORS)],
            label=f"{first} / {second}",
        )
    axes.set_ylim(0, min(1.03, 1.15 * highest + 0.02))
    axes.set_xlabel("place of the query word by frequency")
    axes.set_ylabel(f"shared among {rank} nearest")
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    """Return a drawing with real text, in the colors of the page, light or dark."""
    drawn = io.StringIO()
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None}, transparent=True)
    text = drawn.getvalue()
    for number, color in enumerate(_COLORS):
        text = text.replace(color, f"var(--s{number})")
    return text[text.index("<svg") :].replace("#000000", "currentColor")
