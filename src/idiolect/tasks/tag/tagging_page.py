"""HTML page with a tagger's metrics, its confusion matrix of words and its worst errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from idiolect.tasks.html_report import confusion_table, html_page, html_table
from idiolect.tasks.tag.tagged_texts import TaggedText, TextSpan
from idiolect.tasks.tag.tagging_metrics import TaggingScores, confuse_words
from idiolect.tasks.tag.text_tagger import TagPrediction

__all__ = ["tagging_page"]


def tagging_page(
    scores: Mapping[str, TaggingScores],
    labels: Sequence[str],
    texts: Sequence[TaggedText],
    found: Sequence[TagPrediction],
    *,
    shown: int = 50,
) -> str:
    """Return an HTML page.

    Args:
        scores: Metrics by system name; those of single labels are the first system's.
        labels: The labels, in the order of the confusion matrix.
        texts: The texts with their true spans.
        found: The first system's predictions.
        shown: How many texts with errors to show, those with the largest margin first.
    """
    head = ["system", "precision", "recall", "F1", "macro-F1"]
    measures = html_table(
        head,
        [
            [n, *(f"{v:.4f}" for v in (s.micro.precision, s.micro.recall, s.micro.f1, s.macro_f1))]
            for n, s in scores.items()
        ],
    )
    first = next(iter(scores.values()))
    by_label = html_table(
        ["label", "precision", "recall", "F1", "spans"],
        [
            [n, *(f"{v:.4f}" for v in (s.precision, s.recall, s.f1)), f"{s.support:,}"]
            for n, s in first.labels.items()
        ],
    )
    counts = confuse_words(texts, [one.spans for one in found], labels)
    wrong = [
        (one.margin or 0.0, text, one)
        for text, one in zip(texts, found, strict=True)
        if text.spans is not None and set(text.spans) != set(one.spans)
    ]
    wrong.sort(key=lambda error: -error[0])
    errors = html_table(
        ["margin (nats)", "missed", "wrongly found", "text"],
        [
            [
                f"{margin:.2f}",
                _listed(text, set(text.spans or ()) - set(one.spans)),
                _listed(text, set(one.spans) - set(text.spans or ())),
                text.text,
            ]
            for margin, text, one in wrong[:shown]
        ],
    )
    return html_page(
        f"Spans in {len(texts):,} texts",
        {
            "Measures": measures,
            "By label": by_label,
            "Confusion of words": confusion_table([*labels, "(none)"], counts),
            f"Worst errors ({min(shown, len(wrong)):,} of {len(wrong):,} texts)": errors,
        },
    )


def _listed(text: TaggedText, spans: set[TextSpan]) -> str:
    return "; ".join(f"{text.text[s.start : s.end]} ({s.label})" for s in sorted(spans))
