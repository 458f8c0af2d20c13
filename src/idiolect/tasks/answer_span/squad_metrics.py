"""SQuAD metrics, by the rules of the official scripts (1606.05250; 1806.03822)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from idiolect.tasks.answer_span.squad_files import PassageQuestion
from idiolect.text.answer_match import answer_f1, exact_match

__all__ = ["AnswerScores", "best_threshold", "score_answers"]


@dataclass(frozen=True)
class AnswerScores:
    """How well questions were answered: percentages, as published."""

    exact_match: float
    """Share of answers equal to a reference after normalising case, punctuation and articles."""
    f1: float
    """Mean over questions of the word-level F1 with the most similar reference."""
    answerable_f1: float | None
    """F1 of the questions that have an answer; `None` without any."""
    unanswerable_accuracy: float | None
    """Share of unanswerable questions left without an answer; `None` without any."""
    questions: int

    def as_dict(self) -> dict[str, Any]:
        """Return the metrics by name."""
        return asdict(self)


def score_answers(questions: Sequence[PassageQuestion], found: Sequence[str]) -> AnswerScores:
    """Measure answers.

    Args:
        questions: Questions with their right answers.
        found: An answer for each; empty for none.
    """
    exact, f1, known = list[float](), list[float](), list[bool]()
    for question, answer in zip(questions, found, strict=True):
        right = [one.text for one in question.answers or ()]
        exact.append(exact_match(answer, right))
        f1.append(answer_f1(answer, right))
        known.append(bool(question.answers))
    return AnswerScores(
        exact_match=_percent(exact) or 0.0,
        f1=_percent(f1) or 0.0,
        answerable_f1=_percent([v for v, k in zip(f1, known, strict=True) if k]),
        unanswerable_accuracy=_percent([v for v, k in zip(f1, known, strict=True) if not k]),
        questions=len(questions),
    )


def best_threshold(
    questions: Sequence[PassageQuestion], found: Sequence[str], doubts: Sequence[float]
) -> float:
    """Return the threshold on `doubts` with the best F1, computed as in SQuAD 2.0's script.

    Args:
        questions: Questions with their right answers.
        found: The best answer for each.
        doubts: Score of "no answer" minus the score of that answer.
    """
    order = sorted(range(len(found)), key=lambda i: doubts[i])
    rights = [[one.text for one in questions[i].answers or ()] for i in order]
    current = best = sum(not right for right in rights)
    threshold = doubts[order[0]] - 1.0 if order else 0.0
    score = float(current)
    best_score = float(best)
    for place, (number, right) in enumerate(zip(order, rights, strict=True)):
        score += answer_f1(found[number], right) if right else -1.0
        is_last = place + 1 == len(order)
        if score > best_score and (is_last or doubts[order[place + 1]] > doubts[number]):
            best_score, threshold = score, doubts[number]
    return threshold


def _percent(values: Sequence[float]) -> float | None:
    return 100 * sum(values) / len(values) if values else None
