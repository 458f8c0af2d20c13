"""Questions about passages, from SQuAD's JSON (1.1 and 2.0) and from records.

    records    {"question": "…", "context": "…", "answers": [{"text": "…", "answer_start": 17}]}

`answers` may also be a text, a list of texts, or `{"text": […], "answer_start": […]}`. Without a
start, the first occurrence of the text is used. If there are no answers, the question is
unanswerable.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from idiolect.errors import InputError
from idiolect.text.record_types.text_lines import open_text
from idiolect.text.records import numbered_records, unusable
from idiolect.text.skipped import MAX_UNREADABLE, Skipped, skip, summary

__all__ = ["PassageAnswer", "PassageQuestion", "fingerprint_questions", "read_questions"]


@dataclass(frozen=True, slots=True)
class PassageAnswer:
    """An answer, and where it begins in its passage."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class PassageQuestion:
    """A question about a passage."""

    id: str
    question: str
    context: str
    answers: tuple[PassageAnswer, ...] | None = None
    """The right answers; empty if unanswerable; `None` if unknown."""


def read_questions(
    path: Path,
    *,
    answered: bool = True,
    skipped: Skipped | None = None,
    max_unreadable: float = MAX_UNREADABLE,
) -> list[PassageQuestion]:
    """Read a SQuAD file (`.json` with `data`), or a file of records.

    Args:
        path: The file.
        answered: Whether to read the answers.
        skipped: Counts the questions that are left out, by reason: a question or a passage is
            missing, or an answer is not in the passage.
        max_unreadable: The share of the questions that may be left out.

    Raises:
        InputError: The file cannot be read, or too many of its questions are unusable.
    """
    left_out, own = Skipped() if skipped is None else skipped, Skipped()
    found: list[PassageQuestion] = []
    for place, record in _records(path, left_out, max_unreadable):
        texts = [record.get(name) for name in ("question", "context")]
        if not all(isinstance(text, str) and unusable(text) is None for text in texts):
            skip(own, "no question or context", place)
            continue
        question, context = map(str, texts)
        answers = _answers(record, context) if answered else None
        if answered and answers is None:
            skip(own, "an answer that is not in the passage", place)
            continue
        name = record.get("id", len(found) + 1)
        found.append(PassageQuestion(str(name), question, context, answers))
    left_out.update(own)
    if own.total() > max_unreadable * (len(found) + own.total()):
        raise InputError(
            f"{path}: {own.total():,} of {len(found) + own.total():,} questions cannot be used: "
            f"{summary(own)}",
            hint="answer_start counts characters from 0; correct the file, or allow a larger "
            "share: --max-unreadable",
        )
    if not found:
        raise InputError(
            f"{path} has no questions", hint="give SQuAD's JSON, or question, context and answers"
        )
    return found


def fingerprint_questions(questions: Sequence[PassageQuestion]) -> str:
    """Return a hash of the questions in their order."""
    made = sha256()
    for question in questions:
        made.update(repr(question).encode())
    return made.hexdigest()


def _records(
    path: Path, skipped: Skipped, max_unreadable: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.name.endswith((".json", ".json.gz")):
        squad = _squad(path)
        if squad is not None:
            yield from _flattened(squad, path)
            return
    for place, record in numbered_records(path, skipped, max_unreadable=max_unreadable):
        yield f"{path.name} {place}", record


def _squad(path: Path) -> list[Any] | None:
    """Return the articles of a SQuAD file, or None if it is another one."""
    with open_text(path) as file:
        if not file.read(1 << 10).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{"):
            return None
    try:
        with open_text(path) as file:
            whole = json.loads(file.read().decode("utf-8-sig"))
    except ValueError:  # several objects: JSON Lines, or no JSON
        return None
    articles = whole.get("data") if isinstance(whole, dict) else None
    return articles if isinstance(articles, list) else None


def _flattened(articles: list[Any], path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        for article in articles:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    place = f"{path.name} question {question.get('id', '?')}"
                    yield place, {**question, "context": paragraph["context"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is no SQuAD file: {error!r}",
            hint="data has paragraphs, these have context and qas",
        ) from error


def _answers(record: dict[str, Any], context: str) -> tuple[PassageAnswer, ...] | None:
    """Return the answers, or `None` if one is not in the passage."""
    given = record.get("answers", record.get("answer"))
    if record.get("is_impossible") is True or given is None:
        return ()
    if isinstance(given, dict):
        texts, starts = given.get("text", []), given.get("answer_start")
        texts = [texts] if isinstance(texts, str) else texts
        starts = [starts] if isinstance(starts, int) else starts
        starts = starts or [None] * len(texts)
        if len(starts) != len(texts):
            return None
        given = [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)]
    if isinstance(given, str):
        given = [given] if given else []
    if not isinstance(given, list):
        return None
    found: list[PassageAnswer] = []
    for one in given:
        text, start = (one, None) if isinstance(one, str) else _parts(one)
        if not isinstance(text, str) or not text:
            return None
        if start is None:
            start = context.find(text)
        if type(start) is not int or start < 0 or context[start : start + len(text)] != text:
            return None
        found.append(PassageAnswer(text, start))
    return tuple(found)


def _parts(one: Any) -> tuple[Any, Any]:
    return (one.get("text"), one.get("answer_start")) if isinstance(one, dict) else (None, None)
