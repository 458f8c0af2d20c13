"""Question files: five forms of records, recognised by their fields.

    query, choices, gold                    choose the likeliest of several answers
    context_options, continuation, gold     choose the context that makes an ending likeliest
    context, continuation                   is the continuation what the model would write?
    context, answer (, aliases)             generate an answer, and compare it
    question, answer with "#### 72"         write the reasoning, and compare the final number

These are the forms of MosaicML's evaluation sets (`jsonl`, also compressed) and of GSM8K. A record
of the fourth form with a field `chain_of_thought` is treated as one of the fifth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idiolect.errors import InputError
from idiolect.text.records import numbered_records
from idiolect.text.skipped import Skipped

__all__ = ["FINAL", "Question", "read_questions"]

FINAL = "####"
"""What GSM8K writes before the final answer."""


@dataclass(frozen=True)
class Question:
    """One question: pairs of a context and an ending to compare, or a text to generate."""

    pairs: tuple[tuple[str, str], ...]
    """Contexts and endings; a single pair if there is no choice."""
    gold: int
    """Index of the right pair."""
    answers: tuple[str, ...] = ()
    """Right answers of a question that is answered by generation."""
    reasoning: str = ""
    """Reasoning that examples show before the answer (Wei et al. 2022, 2201.11903)."""

    @property
    def is_choice(self) -> bool:
        """Whether one of several pairs is right."""
        return len(self.pairs) > 1

    @property
    def solved(self) -> tuple[str, str]:
        """The context and the right ending, as an example for other questions."""
        context, ending = self.pairs[self.gold]
        return context, f"{self.reasoning}\n{FINAL} {ending}" if self.reasoning else ending


def read_questions(path: Path, *, limit: int | None = None) -> list[Question]:
    """Read a file of questions. A single unreadable record is an error.

    Args:
        path: The file.
        limit: Read only the first `limit` questions.

    Raises:
        InputError: A record has no known form, its right answer is not among the choices, or the
            file mixes forms.
    """
    questions: list[Question] = []
    for place, record in numbered_records(path, Skipped(), max_unreadable=0):
        if limit is not None and len(questions) == limit:
            break
        question = _question(record, f"{path}, {place}")
        first = questions[0] if questions else question
        if (question.is_choice, bool(question.answers)) != (first.is_choice, bool(first.answers)):
            raise InputError(
                f"{path}, {place}: another form of question than the first",
                hint="put each form into a file of its own",
            )
        questions.append(question)
    if not questions:
        raise InputError(f"{path} has no questions", hint="pass a file with one record a line")
    return questions


def _question(record: Mapping[str, Any], place: str) -> Question:
    if {"query", "choices", "gold"} <= record.keys():
        context = _ask(_text(record, "query", place))
        choices = _texts(record, "choices", place)
        pairs = tuple((context, choice) for choice in choices)
        return Question(pairs, _gold(record, len(pairs), place))
    if {"context_options", "continuation", "gold"} <= record.keys():
        ending = _text(record, "continuation", place)
        pairs = tuple((option, ending) for option in _texts(record, "context_options", place))
        return Question(pairs, _gold(record, len(pairs), place))
    if {"context", "answer"} <= record.keys():
        answer = _text(record, "answer", place)
        others = _texts(record, "aliases", place) if record.get("aliases") else ()
        answers = tuple(dict.fromkeys((answer, *others)))
        way = record.get("chain_of_thought")
        reasoning = way.strip() if isinstance(way, str) else ""
        return Question(((_ask(_text(record, "context", place)), answer),), 0, answers, reasoning)
    if {"question", "answer"} <= record.keys():
        reasoning, mark, answer = _text(record, "answer", place).rpartition(FINAL)
        if not mark or not answer.strip():
            raise InputError(
                f"{place}: the answer ends without {FINAL} and a number",
                hint=f"write it as '… {FINAL} 72', or name the question context",
            )
        context, answer = _ask(_text(record, "question", place)), answer.strip()
        return Question(((context, answer),), 0, (answer,), reasoning.strip())
    if {"context", "continuation"} <= record.keys():
        pair = (_text(record, "context", place), _text(record, "continuation", place))
        return Question((pair,), 0)
    raise InputError(
        f"{place}: fields {', '.join(map(str, record)) or 'none'}",
        hint="expected query, choices, gold; or context_options, continuation, gold; or context"
        " with continuation or answer; or question and answer",
    )


def _ask(query: str) -> str:
    r"""End a query with the request for an answer, if it does not have one.

    >>> _ask("Question: Why?"), _ask("Question: Why? Answer:")
    ('Question: Why?\nAnswer:', 'Question: Why? Answer:')
    """
    return query if query.rstrip().endswith(":") else f"{query}\nAnswer:"


def _text(record: Mapping[str, Any], name: str, place: str) -> str:
    value = record[name]
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{place}: {name} is {value!r}", hint="it must be a text, not empty")
    return value


def _texts(record: Mapping[str, Any], name: str, place: str) -> tuple[str, ...]:
    values = record[name]
    if not isinstance(values, list) or not values:
        raise InputError(f"{place}: {name} is {values!r}", hint="it must be a list of texts")
    return tuple(_text({name: value}, name, place) for value in values)


def _gold(record: Mapping[str, Any], count: int, place: str) -> int:
    gold = record["gold"]
    if isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < count:
        raise InputError(
            f"{place}: gold is {gold!r}, and there are {count} choices",
            hint="it is the number of the right choice, from 0",
        )
    if count < 2:
        raise InputError(f"{place}: only one choice", hint="give at least two")
    return gold
