"""Metrics by hand and against `ranx`; unjudged queries and documents."""

from __future__ import annotations

import math
import random
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idiolect.errors import InputError
from idiolect.ranking.evaluation.metrics import DEFAULT_METRICS, evaluate, ranked

JUDGEMENTS = {"q": {"a": 3, "b": 0, "c": 1, "d": 2}}
RUN = {"q": {"b": 5.0, "a": 4.0, "x": 3.0, "c": 2.0}}


def _one(measure: str, **options: object) -> float:
    return evaluate(JUDGEMENTS, RUN, metrics=[measure], **options).means[measure]  # type: ignore[arg-type]


def _dcg(gains: list[float]) -> float:
    return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains))


@pytest.mark.parametrize(
    ("measure", "value"),
    [
        ("mrr", 1 / 2),
        ("mrr@1", 0),
        ("mrr@2", 1 / 2),
        ("map", (1 / 2 + 2 / 4) / 3),
        ("map@2", (1 / 2) / 3),
        ("recall@2", 1 / 3),
        ("recall@100", 2 / 3),
        ("precision@2", 1 / 2),
        ("precision@10", 2 / 10),
        ("hit@1", 0),
        ("hit@2", 1),
        ("judged@3", 2 / 3),
        ("judged@10", 3 / 4),
        ("ndcg@3", _dcg([0, 3, 0]) / _dcg([3, 2, 1])),
        ("ndcg", _dcg([0, 3, 0, 1]) / _dcg([3, 2, 1])),
    ],
)
def test_by_hand(measure: str, value: float) -> None:
    assert _one(measure) == pytest.approx(value, abs=1e-12)


def test_exponential_gains() -> None:
    assert _one("ndcg@4", gain="exponential") == pytest.approx(
        _dcg([0, 7, 0, 1]) / _dcg([7, 3, 1]), abs=1e-12
    )


def test_fractional_grades() -> None:
    """Means over judges are grades too; their gains are not rounded to whole numbers."""
    judged = {"q": {"a": 0.5, "b": 2.25}}
    for gains, worth in (("linear", lambda g: g), ("exponential", lambda g: 2**g - 1)):
        value = evaluate(judged, {"q": {"a": 2, "b": 1}}, metrics=["ndcg@5"], gain=gains)
        expected = _dcg([worth(0.5), worth(2.25)]) / _dcg([worth(2.25), worth(0.5)])
        assert value.means["ndcg@5"] == pytest.approx(expected, abs=1e-3)


def test_higher_bar() -> None:
    assert _one("mrr", relevant=2) == 1 / 2
    assert _one("recall@4", relevant=2) == 1 / 2


def test_condensed_lists() -> None:
    """Without the document nobody judged, c stands third."""
    assert _one("map", judged_only=True) == pytest.approx((1 / 2 + 2 / 3) / 3)
    assert _one("ndcg@3", judged_only=True) == pytest.approx(_dcg([0, 3, 1]) / _dcg([3, 2, 1]))
    assert _one("judged@3", judged_only=True) == pytest.approx(2 / 3)


def test_ties_do_not_depend_on_the_order_of_answers() -> None:
    judged = {"q": {"a": 1}}
    one = evaluate(judged, {"q": {"a": 1.0, "b": 1.0}}, metrics=["mrr"]).means
    other = evaluate(judged, {"q": {"b": 1.0, "a": 1.0}}, metrics=["mrr"]).means
    assert one == other == {"mrr": 0.5}


def test_queries_that_say_nothing_are_counted() -> None:
    judged = {"good": {"a": 1}, "silent": {"a": 1}, "bad": {"a": 0, "b": -1}}
    result = evaluate(judged, {"good": {"a": 1}, "bad": {"a": 1}, "new": {"a": 1}, "silent": {}})
    assert result.left_out == ("bad",)
    assert result.unanswered == ("silent",)
    assert result.unjudged == ("new",)
    assert result.queries == 2
    assert result.per_query["mrr@10"] == {"good": 1.0, "silent": 0.0}
    assert result.means["mrr@10"] == 0.5


def test_nothing_answered() -> None:
    assert set(evaluate({"q": {"a": 1}}, {}).means.values()) == {0.0}


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_numbers_that_are_none(score: float) -> None:
    with pytest.raises(InputError, match="score of document 'a' for query 'q'"):
        evaluate({"q": {"a": 1}}, {"q": {"a": score}})
    with pytest.raises(InputError, match="grade of document 'a' for query 'q'"):
        evaluate({"q": {"a": score}}, {"q": {"a": 1}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["bleu@4"]}, "unknown metric 'bleu@4'"),
        ({"metrics": ["ndcg@0"]}, "unknown metric"),
        ({"metrics": ["recall"]}, "recall needs a cut-off"),
        ({"gain": "cubic"}, "linear, exponential"),
        ({"relevant": 0}, "relevant is 0"),
        ({"relevant": 4}, "none of 1 queries"),
    ],
)
def test_what_cannot_be_evaluated(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(JUDGEMENTS, RUN, **options)  # type: ignore[arg-type]


def test_grades_too_large() -> None:
    with pytest.raises(InputError, match="rescale"):
        evaluate({"q": {"a": 40}}, {"q": {"a": 1}}, gain="exponential")
    assert evaluate({"q": {"a": 100}}, {"q": {"a": 1}}).means["ndcg@10"] == 1


@pytest.mark.slow  # ranx compiles for a minute when it is imported
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_ranx(seed: int) -> None:
    """Random graded judgements and runs of distinct scores, also with unjudged documents."""
    import ranx

    draw = random.Random(seed)
    docs = [f"d{i}" for i in range(40)]
    judged = {f"q{i}": {d: draw.randrange(4) for d in draw.sample(docs, 15)} for i in range(20)}
    judged = {q: grades for q, grades in judged.items() if any(grades.values())}
    run = {q: {d: float(s) for s, d in enumerate(draw.sample(docs, 25))} for q in judged}
    names = {
        "ndcg@10": "ndcg@10",
        "mrr@10": "mrr@10",
        "map": "map",
        "recall@10": "recall@10",
        "precision@10": "precision@10",
        "hit@3": "hit_rate@3",
    }
    qrels = ranx.Qrels({q: {d: g for d, g in gs.items() if g} for q, gs in judged.items()})
    theirs = ranx.evaluate(
        qrels, ranx.Run(run), [*names.values(), "ndcg_burges@10"], return_mean=False
    )
    ours = evaluate(judged, run, metrics=[*names])
    order = sorted(judged)
    for name, other in names.items():
        values = [ours.per_query[name][q] for q in order]
        np.testing.assert_allclose(values, theirs[other], atol=1e-9, err_msg=name)
    burges = evaluate(judged, run, metrics=["ndcg@10"], gain="exponential").per_query["ndcg@10"]
    np.testing.assert_allclose([burges[q] for q in order], theirs["ndcg_burges@10"], atol=1e-9)


def test_defaults_are_known() -> None:
    assert set(evaluate(JUDGEMENTS, RUN).means) == set(DEFAULT_METRICS)


IDS = ["\ud800", "a\x00", "a\x00b", "", "a b", "\u00e9", "e\u0301", "x" * 10_000, "\udfff\x00", "q"]


@pytest.mark.parametrize("odd", IDS, ids=ascii)
def test_ids_of_any_characters(odd: str) -> None:
    """Some of them would end the process in the library's C code."""
    run = {odd: {odd: 0.1, "z": 0.2, "y": 0.0}, "plain": {odd: 1.0}}
    result = evaluate({odd: {odd: 1, "\udc00": 2}, "plain": {"z": 1}}, run)
    assert result.per_query["mrr@10"] == {odd: 0.5, "plain": 0.0}
    assert result.per_query["recall@100"][odd] == 0.5
    assert result.per_query["judged@10"][odd] == 1 / 3


@pytest.mark.parametrize(
    ("qrels", "run", "message"),
    [
        ({1: {"a": 1}}, {}, "query id 1 is a int, not a string"),
        ({"1": {5: 1}}, {}, "document id 5 is a int"),
        ({"1": {"a": 1}}, {1: {"a": 1.0}}, "query id 1 is a int"),
        ({"1": {"a": 1}}, {"1": {5: 1.0}}, "document id 5 is a int"),
        ({"1": {"a": 1}}, {"1": {None: 1.0}}, "document id None"),
        ({"q": {"a": "2"}}, {}, "grade of document 'a' for query 'q' is '2'"),
        ({"q": {"a": None}}, {}, "grade of document 'a' for query 'q' is None"),
        ({"q": {"a": 10**400}}, {}, "grade of document 'a'"),
        ({"q": {"a": 1}}, {"q": {"a": "0.5"}}, "score of document 'a' for query 'q' is '0.5'"),
    ],
)
def test_ids_and_numbers_of_other_types(qrels: Any, run: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(qrels, run)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30, -1.0])
def test_scores_that_differ_only_in_double_precision(scale: float) -> None:
    """In single precision, `z` would tie with `a` and win by its id."""
    scores = {"a": scale * (1 + 1e-12 * scale / abs(scale)), "z": scale}
    assert ranked(scores) == ["a", "z"]
    for measure, value in (("mrr", 1.0), ("ndcg@10", 1.0), ("precision@1", 1.0), ("judged@1", 1.0)):
        assert evaluate({"q": {"a": 1}}, {"q": scores}, metrics=[measure]).means[measure] == value
    tied = {"q": {"a": scale, "z": scale}}
    assert evaluate({"q": {"a": 1}}, tied, metrics=["mrr"]).means["mrr"] == 0.5


def test_agrees_with_the_library_on_ties_and_negative_numbers() -> None:
    """Scores that single precision holds exactly, many of them equal."""
    import pytrec_eval

    draw = random.Random(0)
    docs = [f"d{i:02}" for i in range(30)]
    names = {
        "ndcg@10": "ndcg_cut_10", "ndcg": "ndcg", "map": "map", "mrr": "recip_rank",
        "recall@5": "recall_5", "precision@5": "P_5", "hit@3": "success_3",
    }  # fmt: skip
    for _ in range(50):
        grades = {d: draw.choice([-1, 0, 0, 1, 2, 3]) for d in draw.sample(docs, 12)}
        judged = {"q": {**grades, "d00": 1}}
        run = {"q": {d: draw.choice([0.5, 1.0, -2.0, 1e10]) for d in draw.sample(docs, 18)}}
        theirs = pytrec_eval.RelevanceEvaluator(judged, {*names.values()}).evaluate(run)["q"]
        ours = evaluate(judged, run, metrics=[*names]).means
        assert ours == pytest.approx({name: theirs[other] for name, other in names.items()})


@settings(max_examples=40, deadline=None)
@given(
    scores=st.lists(
        st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=12, unique=True
    ),
    grades=st.lists(st.integers(-1, 4), min_size=1, max_size=15),
    names=st.lists(
        st.text(st.characters(codec=None), max_size=5), min_size=15, max_size=15, unique=True
    ),
    judged_only=st.booleans(),
)
def test_metrics_do_not_depend_on_the_names(
    scores: list[float], grades: list[int], names: list[str], judged_only: bool
) -> None:
    """Only equal scores are ordered by id, and here all differ."""
    grades[0] = 1

    def measure(ids: list[str]) -> dict[str, float]:
        qrels = {ids[0]: dict(zip(ids, grades, strict=False))}
        run = {ids[0]: dict(zip(reversed(ids), scores, strict=False))}
        return evaluate(qrels, run, judged_only=judged_only).means

    assert measure(names) == measure([str(n) for n in range(15)])


def test_grades_of_any_size() -> None:
    """Fractions of any size, also of another size in another query."""
    judged = {"q": {"a": 1e-9, "b": 5e-10}, "r": {"a": 1e15, "b": 5e14}, "s": {"a": 2, "b": 1}}
    values = evaluate(
        judged, {q: {"b": 2, "a": 1} for q in judged}, metrics=["ndcg@10"], relevant=1e-12
    ).per_query["ndcg@10"]
    assert [*values.values()] == pytest.approx([_dcg([1, 2]) / _dcg([2, 1])] * 3)


def test_what_is_left_out_is_told() -> None:
    judged = {"good": {"a": 1}, "silent": {"a": 1}, "bad": {"a": 0}}
    result = evaluate(judged, {"good": {"a": 1}, "x": {"a": 1}, "y": {"a": 1}})
    assert result.notes == (
        "1 queries have no relevant document and are left out: 'bad'",
        "1 queries have no results and count as zero: 'silent'",
        "2 queries of the run have no judgements and are ignored: 'x', 'y'",
    )


def test_a_whole_ranking_with_fractional_grades_takes_no_seconds() -> None:
    began = time.process_time()
    found = evaluate({"q": {"a": 0.5, "b": 1.5}}, {"q": {"a": 2.0, "b": 1.0}}, metrics=["ndcg"])
    assert time.process_time() - began < 1  # it took 7 seconds
    ideal = 1.5 + 0.5 / math.log2(3)
    assert found.means["ndcg"] == pytest.approx((0.5 + 1.5 / math.log2(3)) / ideal, abs=1e-5)
