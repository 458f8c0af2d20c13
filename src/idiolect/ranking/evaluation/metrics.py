"""Ranking metrics, query by query: the values of NIST's `trec_eval`, through `pytrec_eval`.

- Queries without a relevant document are left out and counted. Queries without results count as
  zero and are counted too.
- Unjudged documents count as not relevant, which penalizes a system for finding documents outside
  the judging pool. `judged@k` is the fraction of the top k that was judged, and `judged_only`
  removes unjudged documents from the rankings first ("condensed lists": Sakai 2007, SIGIR,
  "Alternatives to Bpref").
- Ties are broken by descending document id, as in `trec_eval`, so the order in which a system
  returned them does not matter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

import pytrec_eval

from idiolect.errors import InputError
from idiolect.text.arguments import check_mapping, checked, list_of_texts

__all__ = ["DEFAULT_METRICS", "Evaluation", "Gain", "Qrels", "Run", "evaluate"]

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
_FRACTION = 1000
_LARGEST_GAIN = 1_000_000
"""pytrec_eval allocates a counter for each integer up to the largest gain."""


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
        InputError: A metric is unknown, a score or grade is not finite, no query has a relevant
            document, or grades are too large for integer gains.
    """
    for table, name in ((qrels, "qrels"), (run, "run")):
        rows = check_mapping(table, name, "a dict of dicts", f"read a file with read_{name}")
        for query, row in rows.items():
            check_mapping(row, f"{name}[{query!r}]", "a dict of documents and numbers")
    metrics = list_of_texts(metrics, "metrics")
    if not metrics:
        raise InputError("no metrics", hint="such as ndcg@10")
    for name in metrics:
        _parse(name)
    if gain not in get_args(Gain):
        raise InputError(f"gain={gain!r}", hint="one of " + ", ".join(get_args(Gain)))
    if not relevant > 0:
        raise InputError(f"relevant is {relevant:g}", hint="choose a number above 0")
    _check_numbers(qrels, "grade")
    _check_numbers(run, "score")
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
    answers = {query: dict(run[query]) for query in known if run.get(query)}
    binary = {q: {d: int(g >= relevant) for d, g in grades.items()} for q, grades in known.items()}
    gain_of = _gains(known, gain)
    values: dict[str, dict[str, float]] = {}
    for name in metrics:
        kind, cut = _parse(name)
        if kind == "judged":
            values[name] = {q: _share_judged(answers.get(q, {}), known[q], cut or 0) for q in known}
            continue
        scores = _trec_eval(
            gain_of if kind == "ndcg" else binary, answers, _library_name(kind, cut), judged_only
        )
        minimum = 1 / cut - 1e-9 if kind == "mrr" and cut else 0.0
        values[name] = {q: s if (s := scores.get(q, 0.0)) >= minimum else 0.0 for q in known}
    return Evaluation(
        per_query=values,
        left_out=tuple(query for query in qrels if query not in known),
        unanswered=tuple(query for query in known if query not in answers),
        unjudged=tuple(query for query in run if query not in qrels),
    )


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

    Fractional grades, such as means over several assessors, are rounded to a thousandth.
    """
    transform: Callable[[float], float] = (
        (lambda grade: grade) if gain == "linear" else (lambda grade: 2.0**grade - 1)
    )
    grades = {max(0.0, grade) for judged in known.values() for grade in judged.values()}
    scale = 1 if all(float(grade).is_integer() for grade in grades) else _FRACTION
    highest, limit = max(grades), _LARGEST_GAIN / scale
    if highest > (limit if gain == "linear" else math.log2(limit)):
        raise InputError(
            f"a grade of {highest:g} with {gain} gains", hint="rescale the grades, say to 0-4"
        )
    return {
        query: {doc: round(transform(max(0.0, grade)) * scale) for doc, grade in judged.items()}
        for query, judged in known.items()
    }


def _share_judged(scores: Mapping[str, float], judged: Mapping[str, float], cut: int) -> float:
    first = sorted(scores, key=lambda doc: (scores[doc], doc), reverse=True)[:cut]
    return sum(doc in judged for doc in first) / len(first) if first else 0.0


def _check_numbers(table: Mapping[str, Mapping[str, float]], what: str) -> None:
    for query, row in table.items():
        for doc, value in row.items():
            if not isinstance(value, Real) or not math.isfinite(value):
                raise InputError(
                    f"the {what} of document {doc!r} for query {query!r} is {value}",
                    hint="all values must be finite",
                )
