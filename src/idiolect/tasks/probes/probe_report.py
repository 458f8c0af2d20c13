"""HTML page with the results of all probes of a model: tables and plots, in one file."""

from __future__ import annotations

from html import escape

import numpy as np

from idiolect.tasks.html_report import html_page, html_table
from idiolect.tasks.probes.attention_patterns import PATTERNS
from idiolect.tasks.probes.probe_plots import draw_probes
from idiolect.tasks.probes.probe_run import ModelProbes

__all__ = ["probe_page", "summarize_probes"]

_LEGEND = {
    "pos": "part of speech of a word",
    "chunk": "noun, verb or preposition chunk of a word, by rule",
    "length": "number of words of a text, in bins",
    "content": "which of some words is in a text",
}


def probe_page(found: ModelProbes, title: str) -> str:
    """Return an HTML page.

    Args:
        found: Results of the probes.
        title: The model's name.
    """
    images = {
        name: f'<p><img alt="{name}" src="data:image/png;base64,{data}">'
        for name, data in draw_probes(found).items()
    }
    sections = {
        "What each layer knows": f"<p>{found.layers} layers; {found.texts:,} texts. Layer 0 is the "
        f"embedding.{images['layers']}"
        + html_table(
            [
                "probe",
                "what",
                "best layer",
                "accuracy there",
                "at layer 0",
                "at the last layer",
                "most frequent class",
                "most frequent of the word",
                "examples",
            ],
            [
                [
                    one.name,
                    _LEGEND[one.name],
                    str(one.best_layer),
                    *(f"{v:.3f}" for v in (max(one.accuracy), one.accuracy[0], one.accuracy[-1])),
                    f"{one.majority:.3f}",
                    "–" if one.by_word is None else f"{one.by_word:.3f}",
                    f"{one.examples[0]:,} + {one.examples[1]:,}",
                ]
                for one in found.probes
            ],
        ),
        "Do states point the same way?": images["anisotropy"],
    }
    if found.patterns is not None:
        sections["Where heads look"] = images["patterns"] + _patterns(found)
    if found.pruning is not None:
        sections["Which heads matter"] = images["importance"] + _pruning(found)
    return html_page(f"Probes of {title}", sections)


def summarize_probes(found: ModelProbes) -> list[str]:
    """Return the results in a few lines."""
    lines = [
        f"{one.name}: {max(one.accuracy):.3f} at layer {one.best_layer} of {found.layers}, "
        f"{one.accuracy[0]:.3f} at the embedding, {one.accuracy[-1]:.3f} at the last layer; "
        f"without a network {one.majority if one.by_word is None else one.by_word:.3f}"
        for one in found.probes
    ]
    cosines = found.anisotropy.tokens
    lines.append(
        f"cosine of tokens of two texts: {cosines[0]:.3f} at the embedding, "
        f"{max(cosines):.3f} at layer {int(np.argmax(cosines))}, {cosines[-1]:.3f} at the last"
    )
    if found.patterns is not None:
        for name, uniform in zip(PATTERNS, found.patterns.uniform, strict=True):
            if not uniform:  # such as the next token, which a decoder does not see
                continue
            layer, head, share = found.patterns.strongest(name)
            lines.append(f"looks at {name}: layer {layer}, head {head}, {share:.2f} of attention")
    if found.pruning is not None:
        curve = found.pruning
        for share in (0.2, 0.4):
            number = curve.shares.index(share)
            lines.append(
                f"{curve.measure} with {share:.0%} of the heads pruned: by importance "
                f"{curve.by_importance[number]:.3f}, at random "
                f"{float(np.mean(curve.random[number])):.3f}, none pruned "
                f"{curve.by_importance[0]:.3f}"
            )
    return lines


def _patterns(found: ModelProbes) -> str:
    assert found.patterns is not None
    rows = []
    for number, name in enumerate(PATTERNS):
        layer, head, share = found.patterns.strongest(name)
        many = int((found.patterns.shares[number] >= 0.5).sum())
        uniform = float(found.patterns.uniform[number])
        rows.append(
            [name, f"layer {layer}, head {head}", f"{share:.3f}", f"{uniform:.3f}", str(many)]
        )
    return html_table(
        [
            "looks at",
            "strongest head",
            "its share",
            "with uniform attention",
            "heads above one half",
        ],
        rows,
    )


def _pruning(found: ModelProbes) -> str:
    assert found.pruning is not None
    curve = found.pruning
    rows = [
        [f"{share:.0%}", f"{own:.4f}", *(f"{value:.4f}" for value in random)]
        for share, own, random in zip(curve.shares, curve.by_importance, curve.random, strict=True)
    ]
    seeds = [f"random, seed {seed}" for seed in range(len(curve.random[0]))]
    better = "higher" if curve.higher_is_better else "lower"
    return f"<p>{escape(curve.measure)} ({better} is better)" + html_table(
        ["heads pruned", "least important", *seeds], rows
    )
