"""Ranking metrics, query by query: the values of NIST's `trec_eval`, through `pytrec_eval`.

- Queries without a relevant document are left out and counted. Queries without results count as
  zero and are counted too.
- Unjudged documents count as not relevant, which penalizes a system for finding documents outside
  the judging pool. `judged@k` is the fraction of the top k that was judged, and `judged_only`
  removes unjudged documents from the rankings first ("condensed lists": Sakai 2007, SIGIR,
  "Alternatives to Bpref").
- Documents are ranked by their scores in double precision; equal scores by descending id, as in
  `trec_eval`, so the order in which a system returned them does not matter. `trec_eval` itself
  reads scores in single precision, and orders scores that are then equal by id.
- Ids may contain any characters: `pytrec_eval` gets numbers instead of ids, and ranks as scores.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pytrec_eval

from idiolect.errors import InputError
from idiolect.text.arguments import check_mapping, checked, list_of_texts

__all__ = [
    "DEFAULT_METRICS",
    "Evaluation",
    "Gain",
    "Qrels",
    "Run",
    "count_ids",
    "evaluate",
    "ranked",
]

Qrels = Mapping[str, Mapping[str, float]]
"""The grade of each judged document, by query."""
Run = Mapping[str, Mapping[str, float]]
"""The score of each returned document, by query; larger is better."""
Gain = Literal["linear", "exponential"]
"""The nDCG gain of a grade g: g (Järvelin & Kekäläinen 2002), or 2^g - 1 (Burges 2005)."""

DEFAULT_METRICS = ("ndcg@10", "mrr@10", "map", "recall@100", "precision@10", "hit@10", "judged@10")
"""Default metrics of `evaluate`."""

_NAME = re.compile(r"([a-z]+)(?:@([1-9][0-9]*))?")
_LIBRARY = {
    "ndcg": ("ndcg", "ndcg_cut"),
    "map": ("map", "map_cut"),
    "mrr": ("recip_rank", "recip_rank"),
    "recall": (None, "recall"),
    "precision": (None, "P"),
    "hit": (None, "success"),
    "judged": (None, None),
}
"""Our names, and the names in pytrec_eval without and with a cut-off."""
_LARGEST_GAIN = 100_000
"""pytrec_eval allocates a counter for each integer up to the largest gain."""
_LARGEST_EXPONENT = 20
"""Maximum grade with exponential gains; beyond it, lower grades would be negligible."""


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a run, query by query."""

    per_query: Mapping[str, Mapping[str, float]]
    """The value of each query, by metric."""
    left_out: tuple[str, ...]
    """Queries without a relevant document."""
    unanswered: tuple[str, ...]
    """Queries without results in the run; their values are zero."""
    unjudged: tuple[str, ...]
    """Queries of the run without judgements."""

    @property
    def queries(self) -> int:
        """Number of evaluated queries."""
        return len(next(iter(self.per_query.values())))

    @property
    def notes(self) -> tuple[str, ...]:
        """Messages about queries without a relevant document, results or judgements."""
        return (
            *count_ids(self.left_out, "queries have no relevant document and are left out"),
            *count_ids(self.unanswered, "queries have no results and count as zero"),
            *count_ids(self.unjudged, "queries of the run have no judgements and are ignored"),
        )

    @property
    def means(self) -> dict[str, float]:
        """The mean of each metric over the queries."""
        return {
            name: math.fsum(values.values()) / len(values)
            for name, values in self.per_query.items()
        }


@checked
def evaluate(
    qrels: Qrels,
    run: Run,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    gain: Gain = "linear",
    relevant: float = 1,
    judged_only: bool = False,
) -> Evaluation:
    """Evaluate a run against relevance judgements (qrels).

    >>> judgements = {"q": {"a": 2, "b": 0, "c": 1}}
    >>> run = {"q": {"b": 3.0, "a": 2.0, "x": 1.0}}
    >>> evaluate(judgements, run, metrics=["mrr", "recall@2", "judged@3"]).means
    {'mrr': 0.5, 'recall@2': 0.5, 'judged@3': 0.6666666666666666}

    Args:
        qrels: The grades; 0 or less is not relevant.
        run: The scores.
        metrics: `ndcg`, `mrr`, `map`, `recall`, `precision`, `hit` and `judged`, with a cut-off
            as in `recall@100`. It is optional for the first three.
        gain: The nDCG gain of a grade.
        relevant: The lowest relevant grade in the other metrics. Queries without such a document
            are left out of all metrics.
        judged_only: Remove unjudged documents from the rankings first.

    Raises:
        InputError: A metric is unknown, an id is not a string, a score or grade is not a finite
            number, no query has a relevant document, or grades are too large for exponential gains.
    """
    metrics = _check_choices(metrics, gain, relevant)
    qrels, run = _checked(qrels, "qrels", "grade"), _checked(run, "run", "score")
    known = {
        query: grades
        for query, grades in qrels.items()
        if any(grade >= relevant for grade in grades.values())
    }
    if not known:
        raise InputError(
            f"none of {len(qrels)} queries has a document of grade {relevant:g} or more",
            hint="check that these are the right judgements",
        )
    judged, answers = _numbered(known, run)
    binary = {q: {d: int(g >= relevant) for d, g in grades.items()} for q, grades in judged.items()}
    gain_of = _gains(judged, gain)

    def measure(name: str) -> dict[str, float]:
        kind, cut = _parse(name)
        if kind == "judged":
            scores = {q: _share_judged(found, judged[q], cut or 0) for q, found in answers.items()}
        else:
            grades = gain_of if kind == "ndcg" else binary
            if kind == "ndcg" and cut is None:
                # At a depth of all documents it has the same value. Without one, the library takes
                # seconds per query if gains are large: the square of the largest.
                cut = max(map(len, (*judged.values(), *answers.values())))
            scores = _trec_eval(grades, answers, _library_name(kind, cut), judged_only)
        minimum = 1 / cut - 1e-9 if kind == "mrr" and cut else 0.0
        return {
            query: score if (score := scores.get(number, 0.0)) >= minimum else 0.0
            for query, number in zip(known, judged, strict=True)
        }

    return Evaluation(
        per_query={name: measure(name) for name in metrics},
        left_out=tuple(query for query in qrels if query not in known),
        unanswered=tuple(query for query in known if not run.get(query)),
        unjudged=tuple(query for query in run if query not in qrels),
    )


def _check_choices(metrics: Sequence[str], gain: Gain, relevant: float) -> list[str]:
    """Return the names of the metrics, if they and the other choices are valid."""
    names = list_of_texts(metrics, "metrics")
    if not names:
        raise InputError("no metrics", hint="such as ndcg@10")
    for name in names:
        _parse(name)
    if gain not in get_args(Gain):
        raise InputError(f"gain={gain!r}", hint="one of " + ", ".join(get_args(Gain)))
    if not relevant > 0:
        raise InputError(f"relevant is {relevant:g}", hint="choose a number above 0")
    return names


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Return documents by descending score; equal scores by descending id, as in `trec_eval`.

    >>> ranked({"a": 1.0, "b": 1.0, "c": 2.0})
    ['c', 'b', 'a']
    """
    return sorted(scores, key=lambda doc: (scores[doc], doc), reverse=True)


def count_ids(ids: Iterable[str], what: str) -> tuple[str, ...]:
    """Return a message with the number of ids and the first three, or nothing without ids.

    >>> count_ids(["q1", "q2"], "queries are empty")
    ("2 queries are empty: 'q1', 'q2'",)
    """
    ids = list(ids)
    shown = ", ".join(map(repr, ids[:3])) + (", …" if len(ids) > 3 else "")
    return (f"{len(ids)} {what}: {shown}",) if ids else ()


def _numbered(
    known: Qrels, run: Run
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Replace ids by numbers, and scores by ranks, which are distinct in single precision.

    The library's C code terminates the process for some characters in an id.

    Returns:
        The judgements, and the results of judged queries; queries without results are left out.
    """
    judged, answers = {}, {}
    for number, (query, grades) in enumerate(known.items()):
        order = ranked(run.get(query, {}))
        names = {doc: str(n) for n, doc in enumerate(dict.fromkeys((*order, *grades)))}
        judged[str(number)] = {names[doc]: grade for doc, grade in grades.items()}
        if order:
            answers[str(number)] = {names[doc]: -float(rank) for rank, doc in enumerate(order)}
    return judged, answers


def _parse(name: str) -> tuple[str, int | None]:
    """Split a metric into name and cut-off.

    >>> _parse("recall@100")
    ('recall', 100)
    """
    match = _NAME.fullmatch(name)
    if match and match[1] in _LIBRARY:
        if match[2] is not None or _LIBRARY[match[1]][0] is not None:
            return match[1], int(match[2]) if match[2] else None
        raise InputError(f"{name} needs a cut-off", hint=f"such as {name}@10")
    raise InputError(
        f"unknown metric {name!r}", hint=f"known: {', '.join(_LIBRARY)}, such as ndcg@10"
    )


def _library_name(kind: str, cut: int | None) -> str:
    name = _LIBRARY[kind][cut is not None]
    return f"{name}_{cut}" if cut and kind != "mrr" else f"{name}"


def _trec_eval(
    grades: Mapping[str, Mapping[str, int]],
    answers: Mapping[str, Mapping[str, float]],
    metric: str,
    judged_only: bool,
) -> dict[str, float]:
    evaluator = pytrec_eval.RelevanceEvaluator(grades, {metric}, judged_docs_only_flag=judged_only)
    return {query: float(found[metric]) for query, found in evaluator.evaluate(answers).items()}


def _gains(known: Qrels, gain: Gain) -> dict[str, dict[str, int]]:
    """Convert grades to integer gains. Scaling them does not change nDCG, a ratio of their sums.

    Gains that are fractional, such as means over several assessors, or large, are scaled and
    rounded to a hundred-thousandth of the query's largest gain.
    """
    transform: Callable[[float], float] = (
        (lambda grade: grade) if gain == "linear" else (lambda grade: 2.0**grade - 1)
    )
    highest = max(max(grades.values()) for grades in known.values())
    if gain == "exponential" and highest > _LARGEST_EXPONENT:
        raise InputError(
            f"a grade of {highest:g} with {gain} gains", hint="rescale the grades, say to 0-4"
        )
    gains = {}
    for query, grades in known.items():
        exact = {doc: transform(max(0.0, grade)) for doc, grade in grades.items()}
        best = max(exact.values())
        whole = best <= _LARGEST_GAIN and all(one.is_integer() for one in exact.values())
        scale = 1.0 if whole else _LARGEST_GAIN / best
        gains[query] = {doc: round(one * scale) for doc, one in exact.items()}
    return gains


def _share_judged(scores: Mapping[str, float], judged: Mapping[str, float], cut: int) -> float:
    first = ranked(scores)[:cut]
    return sum(doc in judged for doc in first) / len(first) if first else 0.0


def _checked(table: Any, name: str, what: str) -> dict[str, dict[str, float]]:
    """Return grades or scores as floats.

    Raises:
        InputError: It is not a dict of dicts, an id is not a string, or a value is not a finite
            number.
    """
    checked = {}
    rows = check_mapping(table, name, "a dict of dicts", f"read a file with read_{name}")
    for query, row in rows.items():
        check_mapping(row, f"{name}[{query!r}]", "a dict of documents and numbers")
        if not isinstance(query, str):
            raise _wrong_id("query", query)
        checked[query] = {doc: _number(value, doc, query, what) for doc, value in row.items()}
    return checked


def _number(value: Any, doc: str, query: str, what: str) -> float:
    if not isinstance(doc, str):
        raise _wrong_id("document", doc)
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(
            f"the {what} of document {doc!r} for query {query!r} is {value!r:.40}",
            hint="all values must be finite numbers",
        )
    return number


def _wrong_id(what: str, id: object) -> InputError:
    return InputError(
        f"the {what} id {id!r} is a {type(id).__name__}, not a string",
        hint="convert the ids of judgements and runs with str()",
    )
