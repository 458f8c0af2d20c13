"""Evaluate answers: retrieval, the answer itself, its citations, and abstention.

Exact match and F1 are those of SQuAD (Rajpurkar et al. 2016, 1606.05250). A citation is correct if
its passage is from a gold document and, if answers are known, contains a correct one. The baseline
always cites the first passage. Faithfulness is measured by two checks without an LLM judge: whether
the sentences of an answer occur verbatim in their citations, and whether a scorer of statements and
evidence finds them supported. With a model, `quoted` is the share of answers that quote passages
because nothing that the model wrote could be used. Abstention is measured twice: with all items,
and without the gold documents of each question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from idiolect.errors import InputError
from idiolect.search.answers.answer import Answer, Passage
from idiolect.search.answers.citations import without_markers
from idiolect.search.answers.index_answers import IndexAnswers
from idiolect.search.answers.support import PairScorer, WordSupport, language_of
from idiolect.search.chunks import sentence_spans
from idiolect.text.answer_match import answer_f1, exact_match, normalize_answer
from idiolect.text.records import numbered_records
from idiolect.text.skipped import Skipped

__all__ = ["GoldQuestion", "evaluate_answers", "read_gold_questions"]

_QUESTION = ("question", "query")
_ANSWERS = ("answers", "answer")
_DOCUMENTS = ("documents", "document")


@dataclass(frozen=True)
class GoldQuestion:
    """A question with its known answers or gold documents."""

    question: str
    answers: tuple[str, ...] = ()
    """Correct answers; empty if they are not known."""
    documents: tuple[str, ...] = ()
    """Ids of the items that contain the answer; empty if they are not known."""


def read_gold_questions(path: str | Path, *, limit: int | None = None) -> list[GoldQuestion]:
    """Read questions: records with `question`, and `answers` or `documents` (a text or a list).

    Args:
        path: The file.
        limit: Read only the first `limit` questions.

    Raises:
        InputError: The file cannot be read, or a record has no question, or neither answers nor
            documents.
    """
    questions: list[GoldQuestion] = []
    for place, record in numbered_records(Path(path), Skipped(), max_unreadable=0):
        place = f"{path}, {place}"
        if limit is not None and len(questions) == limit:
            break
        question = " ".join(_texts(record, _QUESTION, place))
        found = GoldQuestion(
            question, _texts(record, _ANSWERS, place), _texts(record, _DOCUMENTS, place)
        )
        if not question.strip() or not (found.answers or found.documents):
            raise InputError(
                f"{place} has the fields {', '.join(map(str, record))}",
                hint="it needs `question`, and `answers` or `documents` (a text or a list)",
            )
        questions.append(found)
    if not questions:
        raise InputError(f"{path} has no questions", hint="one record a line")
    return questions


def evaluate_answers(
    index: IndexAnswers,
    questions: Sequence[GoldQuestion],
    top_k: int = 5,
    *,
    without_gold: bool = True,
    support: PairScorer | None = None,
    progress: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Answer questions, and return metrics, each a mean over the questions it applies to.

    Args:
        index: The index.
        questions: The questions.
        top_k: The number of passages to read.
        without_gold: Also ask each question with its gold documents excluded.
        support: Scores pairs of statement and evidence for faithfulness; by default `WordSupport`.
        progress: Show progress on a terminal.
        options: As for `Index.answer`.

    Raises:
        InputError: As for `Index.answer`.
        ConfigError: As for `Index.answer`.
    """
    from idiolect.training.progress import track

    support = support or WordSupport(language_of(index.store)).score
    tally: dict[str, list[float]] = {}
    for gold in track(questions, "answering", len(questions), shown=progress):
        found = index.answer(gold.question, top_k, **options)
        figures = _figures(gold, found, support)
        if options.get("model") is not None and not found.abstained:
            figures["quoted"] = float(found.method == "extractive")
        for name, value in figures.items():
            tally.setdefault(name, []).append(value)
        if without_gold and gold.documents:
            left = {**options, "exclude": {*options.get("exclude", ()), *gold.documents}}
            other = index.answer(gold.question, top_k, **left)
            tally.setdefault("abstained_without_gold", []).append(float(other.abstained))
    means = {name: fmean(values) for name, values in tally.items()}
    return {"questions": len(questions), "top_k": top_k, **means}


def _figures(gold: GoldQuestion, found: Answer, support: PairScorer) -> dict[str, float]:
    text = without_markers(found.answer)
    figures = {"abstained": float(found.abstained)}
    if gold.documents:
        named = [passage.id for passage in found.passages]
        figures["document_recall_at_1"] = float(named[:1] != [] and named[0] in gold.documents)
        figures["document_recall"] = float(any(name in gold.documents for name in named))
    if gold.answers:
        figures["passage_recall"] = float(any(_is_right(gold, one) for one in found.passages))
        said = "" if found.abstained else text
        figures["exact_match"] = exact_match(said, gold.answers)
        figures["f1"] = answer_f1(said, gold.answers)
        figures["contains_answer"] = float(_contains(said, gold.answers))
    if found.abstained:
        return figures
    cited = [passage for passage in found.passages if _is_cited(passage, found)]
    figures["cited_first_is_right"] = float(_is_right(gold, found.passages[0]))
    if cited:
        right = [_is_right(gold, passage) for passage in cited]
        figures["citation_precision"] = fmean(right)
        figures["citation_has_answer"] = (
            fmean(_contains(one.text, gold.answers) for one in found.citations)
            if gold.answers
            else figures["citation_precision"]
        )
    golden = [passage for passage in found.passages if _is_right(gold, passage)]
    if golden:
        figures["citation_recall"] = fmean(passage in cited for passage in golden)
    claims = [text[start:end] for start, end in sentence_spans(text)]
    evidence = " ".join(one.text for one in found.citations)
    if claims:
        figures["verbatim"] = fmean(_flat(claim) in _flat(evidence) for claim in claims)
        scores = support([(claim, evidence) for claim in claims])
        figures["supported"] = float((scores >= 0.5).mean())
        written = len(claims) + len(found.dropped)
        figures["dropped"] = len(found.dropped) / written
    return figures


def _is_cited(passage: Passage, found: Answer) -> bool:
    return any(
        one.id == passage.id and passage.start <= one.start and one.end <= passage.end
        for one in found.citations
    )


def _is_right(gold: GoldQuestion, passage: Passage) -> bool:
    """Return whether a passage is from a gold document and contains an answer, as far as known."""
    of_gold = not gold.documents or passage.id in gold.documents
    return of_gold and (not gold.answers or _contains(passage.text, gold.answers))


def _contains(text: str, answers: Sequence[str]) -> bool:
    words = f" {normalize_answer(text)} "
    return any(f" {normalize_answer(one)} " in words for one in answers)


def _flat(text: str) -> str:
    return " ".join(text.split()).strip(" .!?")


def _texts(record: Mapping[str, Any], names: Sequence[str], place: str) -> tuple[str, ...]:
    """Return the texts of the first of the fields `names` that a record has."""
    for name in names:
        value = record.get(name)
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str | int) and not isinstance(one, bool) for one in values):
            raise InputError(f"{place}: {name} is {value!r:.60}", hint="a text, or a list of texts")
        return tuple(str(one) for one in values)
    return ()
