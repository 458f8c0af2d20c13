"""HTML page with an answer finder's metrics, a confusion matrix and the worst errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from idiolect.tasks.answer_span.answer_finder import FoundAnswer
from idiolect.tasks.answer_span.squad_files import PassageQuestion
from idiolect.tasks.answer_span.squad_metrics import AnswerScores
from idiolect.tasks.html_report import html_page, html_table
from idiolect.text.answer_match import answer_f1, exact_match

__all__ = ["answers_page", "confuse_answers"]

_AROUND = 120
"""Characters shown on either side of the right answer."""


def confuse_answers(questions: Sequence[PassageQuestion], found: Sequence[str]) -> list[list[int]]:
    """Count answerable and unanswerable questions (rows) by right, wrong, none (columns)."""
    counts = [[0, 0, 0], [0, 0, 0]]
    for question, answer in zip(questions, found, strict=True):
        right = [one.text for one in question.answers or ()]
        is_right = bool(right) and bool(answer) and exact_match(answer, right) > 0
        counts[not right][2 if not answer else not is_right] += 1
    return counts


def answers_page(
    scores: Mapping[str, AnswerScores],
    questions: Sequence[PassageQuestion],
    found: Sequence[FoundAnswer],
    *,
    shown: int = 50,
) -> str:
    """Return an HTML page.

    Args:
        scores: Metrics by system name.
        questions: The questions with their right answers.
        found: The first system's answers.
        shown: How many errors to show, those with the lowest F1 and the highest score first.
    """
    measures = html_table(
        ["system", "exact match", "F1", "F1 (answerable)", "right (unanswerable)"],
        [
            [
                name,
                *(
                    "–" if v is None else f"{v:.2f}"
                    for v in (s.exact_match, s.f1, s.answerable_f1, s.unanswerable_accuracy)
                ),
            ]
            for name, s in scores.items()
        ],
    )
    counts = confuse_answers(questions, [one.text for one in found])
    head = ["with an answer", "without one"]
    confusion = html_table(
        ["questions", "right", "wrong", "none found"],
        [[name, *map(str, row)] for name, row in zip(head, counts, strict=True)],
    )
    errors = []
    for question, one in zip(questions, found, strict=True):
        right = [answer.text for answer in question.answers or ()]
        if not exact_match(one.text, right):
            errors.append((answer_f1(one.text, right), -one.score, question, one))
    errors.sort(key=lambda error: error[:2])
    worst = html_table(
        ["F1", "score", "question", "right", "found", "passage"],
        [
            [
                f"{100 * f1:.0f}",
                f"{one.score:.2f}",
                question.question,
                " / ".join(dict.fromkeys(a.text for a in question.answers or ())) or "(none)",
                one.text or "(none)",
                _around(question),
            ]
            for f1, _, question, one in errors[:shown]
        ],
    )
    return html_page(
        f"Answers to {len(questions):,} questions",
        {
            "Measures": measures,
            "Confusion": confusion,
            f"Worst errors ({min(shown, len(errors)):,} of {len(errors):,})": worst,
        },
    )


def _around(question: PassageQuestion) -> str:
    start = question.answers[0].start if question.answers else 0
    first, last = max(start - _AROUND, 0), start + _AROUND
    dots = "…" if first else ""
    return f"{dots}{question.context[first:last]}{'…' if last < len(question.context) else ''}"
