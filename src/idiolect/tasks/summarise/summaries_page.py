"""HTML page with a summariser's metrics and its worst summaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from idiolect.tasks.html_report import html_page, html_table
from idiolect.tasks.summarise.rouge import Rouge
from idiolect.tasks.summarise.summarised_texts import SummarisedText

__all__ = ["summaries_page"]


def summaries_page(
    scores: Mapping[str, Rouge],
    texts: Sequence[SummarisedText],
    found: Sequence[str],
    *,
    shown: int = 50,
) -> str:
    """Return an HTML page.

    Args:
        scores: Metrics by system name.
        texts: The texts with their references.
        found: The first system's summaries.
        shown: How many summaries to show, those with the lowest ROUGE-1 first.
    """
    first = next(iter(scores.values()))
    measures = html_table(
        ["system", "ROUGE-1", "ROUGE-2", "ROUGE-L", "ROUGE-Lsum"],
        [
            [name, *(f"{v:.2f}" for v in (s.rouge1, s.rouge2, s.rouge_l, s.rouge_lsum))]
            for name, s in scores.items()
        ],
    )
    order = sorted(range(len(texts)), key=lambda i: first.each[i])[:shown]
    worst = html_table(
        ["ROUGE-1", "summary", "references", "text"],
        [
            [
                f"{100 * first.each[i]:.1f}",
                found[i],
                " ‖ ".join(texts[i].summaries),
                texts[i].text,
            ]
            for i in order
        ],
    )
    return html_page(
        f"Summaries of {len(texts):,} texts",
        {f"Measures ({first.settings})": measures, f"Worst summaries ({len(order):,})": worst},
    )
