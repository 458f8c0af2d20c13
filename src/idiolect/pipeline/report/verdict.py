"""The verdict of a run: what got better, what did not, and what its index uses.

Everything is computed from the run's metrics. A difference between rankings counts as a change only
if it is significant at 5%. Bits per byte and tokens are not tested and are reported as measured.
If training has seen the answers of some queries, only the others are used, if there are at least
20.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Finding", "Outcome", "Verdict", "judge"]

Outcome = Literal["better", "unchanged", "worse"]
"""How a metric changed; unchanged if the difference is not significant."""

_SIGNIFICANT = 0.05
_MEASURE = "nDCG@10"  # used in all comparisons
_FEW = 50  # with fewer queries, only large differences are significant
_VERBS: Mapping[Outcome, str] = {
    "better": "got better",
    "worse": "got worse",
    "unchanged": "did not change significantly",
}
_MINIMUM_UNSEEN = 20
_UNKNOWN = "whether search got better is unknown, because there are no relevance judgements"
_COMPARED = (
    ("search", "base", "tuning", "Vector search, before and after"),
    ("search", "words", "hybrid", "Hybrid search, compared with words alone"),
    ("search", "plain.tuning", "tuning", "New tokens, compared with the same training without"),
    ("search", "random.tuning", "tuning", "New tokens, compared with random ones"),
    ("similar", "base", "tuning", "Similar items by vectors, before and after"),
    ("similar", "bm25", "tuning", "Similar items by vectors, compared with BM25"),
    ("similar", "plain.tuning", "tuning", "New tokens for similar items, compared with none"),
)


@dataclass(frozen=True)
class Finding:
    """One result of a run."""

    outcome: Outcome
    what: str
    """What was compared."""
    figures: str
    """The values, and the significance of the difference."""


@dataclass(frozen=True)
class Verdict:
    """The verdict of a run."""

    sentence: str
    """A summary in one sentence."""
    findings: tuple[Finding, ...]
    """The results it is based on."""
    index: str
    """How the index ranks by default, and why."""


def judge(metrics: Mapping[str, Any]) -> Verdict:
    """Return the verdict of a run.

    Args:
        metrics: The metrics of all stages, by stage.

    Raises:
        KeyError: Metrics are missing.
    """
    evaluate = metrics["evaluate"]
    changes = list(_changes(evaluate))
    recommending = tuple(_recommending(metrics.get("evaluate_recommend")))
    recommended = list(_recommending_clauses(recommending))
    known = ", ".join([*changes, *recommended, *_language_clauses(evaluate)])
    uses = _index_clause(metrics)
    parts = [part for part in (uses, "" if changes else _UNKNOWN, known) if part]
    sentence = ", ".join([*_broken_promises(evaluate), f"{'; '.join(parts)}."])
    if changes or recommended or "(" in uses:
        sentence = sentence.replace("(", f"({_MEASURE} ", 1)
    task = _task(metrics.get("evaluate_task"))
    findings = (
        *_rankings(evaluate), *recommending, *task, *_language(evaluate), *_tokens(evaluate),
    )  # fmt: skip
    return Verdict(sentence[0].upper() + sentence[1:], findings, _index(metrics))


def _changes(evaluate: Mapping[str, Any]) -> Iterator[str]:
    """Yield a clause for each outcome of vector search and similar items."""
    subjects: dict[Outcome, list[str]] = {outcome: [] for outcome in _VERBS}
    for test, name in (("search", "vector search"), ("similar", "similar items")):
        if (row := _row(evaluate, test, "base", "tuning")) is not None:
            subjects[_outcome(row)].append(f"{name} ({_values(evaluate, row)})")
    for outcome, verb in _VERBS.items():
        if subjects[outcome]:
            yield f"{' and '.join(subjects[outcome])} {verb}"


def _language_clauses(evaluate: Mapping[str, Any]) -> Iterator[str]:
    tokens = evaluate["tokens"].get("domain")
    if tokens is not None:
        yield f"new tokens save {tokens['saved']:.1%} of the tokens of domain text"
    for finding in _language(evaluate):
        if finding.what == _BITS["domain"]:
            change = finding.figures.partition(";")[0]
            yield f"bits per byte of domain text {_MOVED[finding.outcome]} ({change})"


def _broken_promises(evaluate: Mapping[str, Any]) -> Iterator[str]:
    promises = evaluate["promises"]
    if not promises["original_rows_identical"]:
        yield "a guarantee was broken: the published rows were changed"
    if promises["documents_changed"]:
        yield "a guarantee was broken: text without new terms changed its tokens"


def _rankings(evaluate: Mapping[str, Any]) -> Iterator[Finding]:
    for test, first, second, what in _COMPARED:
        row = _row(evaluate, test, first, second)
        if row is None:
            continue
        queries = evaluate[test]["unseen" if row["unseen"] else "queries"]
        outcome = _outcome(row)
        few = "; too few to show a small difference" if queries < _FEW else ""
        p = "p < 0.001" if row["p_value"] < 0.001 else f"p = {row['p_value']:.3f}"
        yield Finding(
            outcome,
            what,
            f"{_MEASURE} {_values(evaluate, row)}, {p}, {queries:,} "
            f"{'query' if queries == 1 else 'queries'}"
            f"{' with answers that training has not seen' if row['unseen'] else ''}"
            f"{few if outcome == 'unchanged' else ''}",
        )


_RECOMMENDED = (
    ("text", "all", "base", "tuning", "Recommending by texts, before and after"),
    ("text", "cold", "base", "tuning", "Recommending new items by texts, before and after"),
    ("blend", "all", "base", "tuning", "Recommending by behaviour and texts, before and after"),
    ("text", "all", "plain.tuning", "tuning", "New tokens for recommending, compared with none"),
)


def _recommending(evaluate: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Yield the changes in recommendation, if the run has histories."""
    if evaluate is None:
        return
    systems = {one["name"]: one for one in evaluate["systems"]}
    for use, targets, first, second, what in _RECOMMENDED:
        for row in evaluate["significance"]:
            if (row["use"], row["targets"], row["first"], row["second"]) != (
                (use, targets, first, second)
            ):
                continue
            before, after = (systems[name][use][targets]["ndcg@10"] for name in (first, second))
            p = "p < 0.001" if row["p_value"] < 0.001 else f"p = {row['p_value']:.3f}"
            figures = f"{_MEASURE} {before:.3f} → {after:.3f}, {p}, {row['queries']:,} cases"
            yield Finding(_outcome(row), what, figures)


def _recommending_clauses(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield the changes in recommendation by item texts, over all targets."""
    for finding in findings:
        if finding.what == _RECOMMENDED[0][-1]:
            values = finding.figures.partition(",")[0].removeprefix(f"{_MEASURE} ")
            yield f"recommending by texts ({values}) {_VERBS[finding.outcome]}"


_TASK = (
    ("base", "pretraining", "The task, before and after"),
    ("plain.pretraining", "pretraining", "New tokens for the task, compared with none"),
)


def _task(evaluate: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Yield the changes on the run's task, if it has one."""
    if evaluate is None:
        return
    means = {one["name"]: one["mean"] for one in evaluate["systems"]}
    for first, second, what in _TASK:
        for row in evaluate["significance"]:
            if (row["first"], row["second"]) == (first, second):
                shown = f"{means[first]:.3f} → {means[second]:.3f}"
                p = "p < 0.001" if row["p_value"] < 0.001 else f"p = {row['p_value']:.3f}"
                seeds = len(evaluate["systems"][0]["values"])
                tested = f"{evaluate['test_texts']:,} texts"
                if seeds > 1:
                    tested += f", {seeds} seeds"
                yield Finding(_outcome(row), what, f"{evaluate['measure']} {shown}, {p}, {tested}")


_BITS = {"domain": "Bits per byte of domain text", "general": "Bits per byte of general text"}
_MOVED: Mapping[Outcome, str] = {"better": "fell", "unchanged": "did not change", "worse": "rose"}


def _language(evaluate: Mapping[str, Any]) -> Iterator[Finding]:
    bits = evaluate["language"]["systems"]
    before, after = bits.get("base", {}), bits.get("pretraining", {})
    for text, what in _BITS.items():
        if text in before and text in after:
            shown = f"{before[text]:.2f} → {after[text]:.2f}"
            outcome: Outcome = "better" if after[text] < before[text] else "worse"
            if f"{before[text]:.2f}" == f"{after[text]:.2f}":
                outcome = "unchanged"
            yield Finding(outcome, what, f"{shown}; less is better")


def _tokens(evaluate: Mapping[str, Any]) -> Iterator[Finding]:
    tokens = evaluate["tokens"].get("domain")
    if tokens is not None:
        yield Finding(
            "better" if tokens["after"] < tokens["before"] else "unchanged",
            "Tokens of held-out domain text",
            f"{tokens['before']:,} → {tokens['after']:,}, {tokens['saved']:.1%} saved",
        )


def _index_clause(metrics: Mapping[str, Any]) -> str:
    """Describe what the index uses, compared with lexical search."""
    evaluate, index = metrics["evaluate"], metrics["index"]
    share = index["meaning"]
    uses = f"the index uses {_ENCODERS[index['encoder']]}, and its default search {_mix(share)}"
    row = _row(evaluate, "search", "words", "hybrid")
    if row is None:
        return uses
    outcome = _outcome(row)
    if outcome == "unchanged" and share == 0:
        return f"{uses}, which vectors did not improve"
    than = {
        "better": "is better than",
        "unchanged": "does not differ significantly from",
        "worse": "is worse than",
    }[outcome]
    advice = " (search it with --mode lexical)" if outcome == "worse" else ""
    return f"{uses}, which {than} words alone ({_values(evaluate, row)}){advice}"


_ENCODERS = {
    "tuning": "the encoder tuned with new tokens",
    "plain.tuning": "the encoder tuned without new tokens",
    "base": "the encoder of the base, untuned",
}


def _mix(share: float) -> str:
    """Describe the weight of vectors."""
    if share in (0, 1):
        return f"uses {'vectors' if share else 'words'} alone"
    return f"weights vectors by {share:.0%} and words by {1 - share:.0%}"


def _index(metrics: Mapping[str, Any]) -> str:
    index, kept = metrics["index"], metrics["tune"]["kept_apart"]
    share = index["meaning"]
    uses = f"By default, search {_mix(share)}"
    encoder = _ENCODERS[index["encoder"]]
    if not kept:
        return (
            f"The index uses {encoder}. {uses}. There were no queries on which to choose encoder "
            "and weights: ten or more pairs of a query and an item are needed."
        )
    queries = "one query that was" if kept == 1 else f"{kept:,} queries that were"
    candidates = index["candidates"]
    figures = ", ".join(f"{one['label']} {one['ndcg']:.3f}" for one in candidates)
    best = max(one["ndcg"] for one in candidates)
    is_tie = sum(one["ndcg"] == best for one in candidates) > 1
    how = " no worse than any other" if is_tie else " best"
    return (
        f"The index uses {encoder}, which ranked the answers of {queries} kept out of tuning{how} "
        f"({_MEASURE} {figures}). {uses}, by the lower bound of what vectors add to words for the "
        "same answers."
    )


def _row(
    evaluate: Mapping[str, Any], test: str, first: str, second: str
) -> Mapping[str, Any] | None:
    """Return the comparison of two systems in a test, if there is one.

    It covers the queries without answers seen in training, if there are enough of them.
    """
    found = {
        row["unseen"]: row
        for row in evaluate["significance"]
        if (row["test"], row["first"], row["second"]) == (test, first, second)
    }
    enough = bool(found) and evaluate[test]["unseen"] >= _MINIMUM_UNSEEN
    return found.get(True, found.get(False)) if enough else found.get(False)


def _outcome(row: Mapping[str, Any]) -> Outcome:
    if row["p_value"] >= _SIGNIFICANT or row["difference"] == 0:
        return "unchanged"
    return "better" if row["difference"] > 0 else "worse"


def _values(evaluate: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Return both values of a comparison, as text."""
    systems: Sequence[Mapping[str, Any]] = evaluate["systems"]
    test = row["test"]
    of = {
        system["name"]: system["unseen"].get(test) if row["unseen"] else system[test]
        for system in systems
    }
    first, second = (of[row[side]][row["measure"]] for side in ("first", "second"))
    if row["first"] == "base":
        return f"{first:.3f} → {second:.3f}"
    return f"{second:.3f} against {first:.3f}"
