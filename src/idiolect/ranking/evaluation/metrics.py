"""How good rankings are: the measures of the field, query by query.

The numbers are those of NIST's `trec_eval`, through `pytrec_eval`. What is notable:

- A query without any relevant document says nothing about a ranking; it is left out and counted. A
  query the system gave no answer to counts as zero, and is counted too.
- Documents nobody judged count as not relevant, which punishes a system for finding what the
  judges never saw. So `judged@k` says how many of the first k were judged, and `judged_only` takes
  the others out of the ranking first ("condensed lists": Sakai 2007, SIGIR, "Alternatives to
  Bpref").
- Documents of equal score stand in descending order of their ids, as in `trec_eval`: the order a
  system happened to return them in must not matter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import pytrec_eval

from idiolect.errors import InputError

__all__ = ["DEFAULT_MEASURES", "Evaluation", "Gains", "Judgements", "Run", "evaluate"]

Judgements = Mapping[str, Mapping[str, float]]
"""The grade of each judged document, by query."""
Run = Mapping[str, Mapping[str, float]]
"""The score of each returned document, by query; larger is better."""
Gains = Literal["linear", "exponential"]
"""What a grade g is worth in nDCG: g (Järvelin & Kekäläinen 2002), or 2^g - 1 (Burges 2005)."""

DEFAULT_MEASURES = ("ndcg@10", "mrr@10", "map", "recall@100", "precision@10", "hit@10", "judged@10")
"""What `evaluate` reports unless told otherwise."""

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
"""Our names, and the library's without and with a cut-off."""
_FRACTION = 1000
_LARGEST_GAIN = 1_000_000
"""The library keeps a counter for each whole number up to the largest gain."""


@dataclass(frozen=True)
class Evaluation:
    """What a run is worth, query by query."""

    per_query: Mapping[str, Mapping[str, float]]
    """By measure, the value of each query."""
    left_out: tuple[str, ...]
    """Queries without a relevant document."""
    unanswered: tuple[str, ...]
    """Queries the run does not answer; their values are zero."""
    unjudged: tuple[str, ...]
    """Queries of the run that nobody judged."""

    @property
    def queries(self) -> int:
        """How many queries were evaluated."""
        return len(next(iter(self.per_query.values())))

    @property
    def means(self) -> dict[str, float]:
        """The mean of each measure over the queries."""
        return {
            name: math.fsum(values.values()) / len(values)
            for name, values in self.per_query.items()
        }


def evaluate(
    judgements: Judgements,
    run: Run,
    *,
    measures: Sequence[str] = DEFAULT_MEASURES,
    gains: Gains = "linear",
    relevant: float = 1,
    judged_only: bool = False,
) -> Evaluation:
    """Evaluate a run against judgements.

    >>> judgements = {"q": {"a": 2, "b": 0, "c": 1}}
    >>> run = {"q": {"b": 3.0, "a": 2.0, "x": 1.0}}
    >>> evaluate(judgements, run, measures=["mrr", "recall@2", "judged@3"]).means
    {'mrr': 0.5, 'recall@2': 0.5, 'judged@3': 0.6666666666666666}

    Args:
        judgements: The grades; 0 or less is not relevant.
        run: The scores.
        measures: `ndcg`, `mrr`, `map`, `recall`, `precision`, `hit` and `judged`; with a cut-off
            as in `recall@100`, which all but the first three need.
        gains: What a grade is worth in nDCG.
        relevant: The lowest grade that counts as relevant in the other measures. A query without
            such a document is left out of all of them.
        judged_only: Take documents that nobody judged out of the rankings first.

    Raises:
        InputError: A measure is unknown; a score or grade is not a number; no query of the
            judgements has a relevant document; or grades are too large for whole gains.
    """
    for name in measures:
        _parse(name)
    if gains not in get_args(Gains):
        raise InputError(f"gains={gains!r}", hint="one of " + ", ".join(get_args(Gains)))
    if not relevant > 0:
        raise InputError(f"relevant={relevant:g}", hint="a grade of 0 is not relevant")
    _check_numbers(judgements, "grade")
    _check_numbers(run, "score")
    known = {
        query: grades
        for query, grades in judgements.items()
        if any(grade >= relevant for grade in grades.values())
    }
    if not known:
        raise InputError(
            f"none of {len(judgements)} queries has a document of grade {relevant:g} or more",
            hint="are these the right judgements?",
        )
    answers = {query: dict(run[query]) for query in known if run.get(query)}
    binary = {q: {d: int(g >= relevant) for d, g in grades.items()} for q, grades in known.items()}
    worth = _gains(known, gains)
    values: dict[str, dict[str, float]] = {}
    for name in measures:
        kind, cut = _parse(name)
        if kind == "judged":
            values[name] = {q: _share_judged(answers.get(q, {}), known[q], cut or 0) for q in known}
            continue
        scores = _ask(
            worth if kind == "ndcg" else binary, answers, _library_name(kind, cut), judged_only
        )
        least = 1 / cut - 1e-9 if kind == "mrr" and cut else 0.0
        values[name] = {q: s if (s := scores.get(q, 0.0)) >= least else 0.0 for q in known}
    return Evaluation(
        per_query=values,
        left_out=tuple(query for query in judgements if query not in known),
        unanswered=tuple(query for query in known if query not in answers),
        unjudged=tuple(query for query in run if query not in judgements),
    )


def _parse(name: str) -> tuple[str, int | None]:
    """Part a measure's name from its cut-off.

    >>> _parse("recall@100")
    ('recall', 100)
    """
    match = _NAME.fullmatch(name)
    if match and match[1] in _LIBRARY:
        if match[2] is not None or _LIBRARY[match[1]][0] is not None:
            return match[1], int(match[2]) if match[2] else None
        raise InputError(f"{name} needs a cut-off", hint=f"such as {name}@10")
    raise InputError(
        f"unknown measure {name!r}", hint=f"known: {', '.join(_LIBRARY)}, such as ndcg@10"
    )


def _library_name(kind: str, cut: int | None) -> str:
    name = _LIBRARY[kind][cut is not None]
    return f"{name}_{cut}" if cut and kind != "mrr" else f"{name}"


def _ask(
    grades: Mapping[str, Mapping[str, int]],
    answers: Mapping[str, Mapping[str, float]],
    measure: str,
    judged_only: bool,
) -> dict[str, float]:
    evaluator = pytrec_eval.RelevanceEvaluator(grades, {measure}, judged_docs_only_flag=judged_only)
    return {query: float(found[measure]) for query, found in evaluator.evaluate(answers).items()}


def _gains(known: Judgements, gains: Gains) -> dict[str, dict[str, int]]:
    """Turn grades into whole gains, which nDCG does not change by: it is a ratio of sums of them.

    Grades that are fractions, such as means over several judges, are kept to a thousandth.
    """
    worth: Callable[[float], float] = (
        (lambda grade: grade) if gains == "linear" else (lambda grade: 2.0**grade - 1)
    )
    grades = {max(0.0, grade) for judged in known.values() for grade in judged.values()}
    scale = 1 if all(float(grade).is_integer() for grade in grades) else _FRACTION
    highest, limit = max(grades), _LARGEST_GAIN / scale
    if highest > (limit if gains == "linear" else math.log2(limit)):
        raise InputError(
            f"a grade of {highest:g} with {gains} gains", hint="rescale the grades, say to 0-4"
        )
    return {
        query: {doc: round(worth(max(0.0, grade)) * scale) for doc, grade in judged.items()}
        for query, judged in known.items()
    }


def _share_judged(scores: Mapping[str, float], judged: Mapping[str, float], cut: int) -> float:
    first = sorted(scores, key=lambda doc: (scores[doc], doc), reverse=True)[:cut]
    return sum(doc in judged for doc in first) / len(first) if first else 0.0


def _check_numbers(table: Mapping[str, Mapping[str, float]], what: str) -> None:
    for query, row in table.items():
        for doc, value in row.items():
            if not math.isfinite(value):
                raise InputError(
                    f"the {what} of document {doc!r} for query {query!r} is {value}",
                    hint="every one must be a finite number",
                )
