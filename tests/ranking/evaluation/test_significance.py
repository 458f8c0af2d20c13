"""The two tests against `scipy`'s, and on cases whose answer is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from idiolect.errors import InputError
from idiolect.ranking.evaluation.significance import compare, compare_ratios


def _values(numbers: np.ndarray) -> dict[str, float]:
    return {f"q{i}": float(value) for i, value in enumerate(numbers)}


def test_agrees_with_scipy() -> None:
    draw = np.random.default_rng(0)
    first = draw.random(60)
    second = first + draw.normal(0.03, 0.15, 60)
    ours = compare(_values(first), _values(second))
    mean = lambda a, b, axis: np.mean(b - a, axis=axis)  # noqa: E731
    theirs = stats.permutation_test(
        (first, second), mean, permutation_type="samples", vectorized=True, rng=1
    )
    interval = stats.bootstrap(
        (second - first,), np.mean, method="percentile", rng=1
    ).confidence_interval
    assert ours.difference == pytest.approx(theirs.statistic)
    assert ours.p_value == pytest.approx(theirs.pvalue, abs=0.02)
    assert (ours.low, ours.high) == pytest.approx(interval, abs=0.004)


def test_p_value_against_all_exchanges() -> None:
    """With eight queries every exchange can be counted."""
    gain = np.array([0.3, 0.1, -0.2, 0.4, 0.05, 0.2, -0.1, 0.25])
    signs = np.array(list(itertools.product([-1, 1], repeat=8)))
    exact = (np.abs(signs @ gain) >= abs(gain.sum()) - 1e-12).mean()
    ours = compare(_values(np.zeros(8)), _values(gain), rounds=40_000)
    assert ours.p_value == pytest.approx(exact, abs=0.01)
    assert (ours.wins, ours.losses) == (6, 2)


def test_equal_systems() -> None:
    same = _values(np.linspace(0, 1, 20))
    result = compare(same, same)
    assert (result.difference, result.p_value) == (0, 1)


def test_chunks_do_not_change_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = _values(np.arange(30.0)), _values(np.arange(30.0) ** 1.01)
    whole = compare(first, second, rounds=500)
    monkeypatch.setattr("idiolect.ranking.evaluation.significance._AT_ONCE", 90)
    parts = compare(first, second, rounds=500)
    assert parts.p_value == pytest.approx(whole.p_value, abs=0.05)
    assert parts.difference == whole.difference


def test_different_queries() -> None:
    with pytest.raises(InputError, match="different queries: b"):
        compare({"a": 1.0}, {"a": 1.0, "b": 0.5})
    with pytest.raises(InputError, match="none at all"):
        compare({}, {})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.5"])
def test_values_that_are_not_finite_numbers(value: float) -> None:
    """NaN would otherwise make any difference significant."""
    for sides in (({"a": 1.0}, {"a": value}), ({"a": value}, {"a": 1.0})):
        with pytest.raises(InputError, match="value of query 'a' is"):
            compare(*sides)


def test_one_query() -> None:
    result = compare({"a": 0.25}, {"a": 0.75}, rounds=100)
    assert (result.queries, result.difference, result.p_value) == (1, 0.5, 1)
    with pytest.raises(InputError, match="rounds is 0"):
        compare({"a": 0.25}, {"a": 0.75}, rounds=0)


def test_queries_that_are_not_strings_are_named() -> None:
    with pytest.raises(InputError, match="different queries: 1, 2, a"):
        compare({1: 1.0, "a": 1.0}, {2: 1.0})  # type: ignore[dict-item]


def test_ratios_of_ones_are_compared_as_means_are() -> None:
    """Accuracy is the ratio of right texts to texts, so both tests must agree on it."""
    draw = np.random.default_rng(3)
    first, second = draw.integers(2, size=(2, 200))
    second |= draw.random(200) < 0.1
    sides = [np.stack([side, np.ones_like(side)], 1) for side in (first, second)]
    found = compare_ratios(*sides)
    plain = compare(*({str(i): float(v) for i, v in enumerate(side)} for side in (first, second)))
    assert found.difference == pytest.approx(plain.difference)
    assert (found.wins, found.losses) == (plain.wins, plain.losses)
    assert found.low == pytest.approx(plain.low, abs=0.01)
    assert found.high == pytest.approx(plain.high, abs=0.01)
    assert found.p_value == pytest.approx(plain.p_value, abs=0.01)


def test_a_ratio_is_of_sums_over_texts() -> None:
    """Not the mean of each text's ratio: a text with many spans counts as much as they do."""
    first = np.array([[0, 2], [8, 8]])
    second = np.array([[2, 2], [0, 8]])
    found = compare_ratios(first, second)
    assert found.difference == pytest.approx(2 / 10 - 8 / 10)
    assert (found.wins, found.losses) == (1, 1)
    swapped = compare_ratios(second, first)
    assert swapped.difference == pytest.approx(-found.difference)
    # Of four equally likely swaps, all are as far apart as these two systems, or nearly so.
    ratios = {(a[0] + b[0]) / 10 for a in (first[0], second[0]) for b in (first[1], second[1])}
    assert ratios == {0, 0.2, 0.8, 1.0}
    assert found.p_value > 0.9


def test_finding_nothing_where_there_is_nothing_wins_against_a_false_alarm() -> None:
    silent, alarmed = np.array([[0, 0], [2, 2]]), np.array([[0, 1], [2, 2]])
    assert (compare_ratios(alarmed, silent).wins, compare_ratios(alarmed, silent).losses) == (1, 0)
    assert (compare_ratios(silent, alarmed).wins, compare_ratios(silent, alarmed).losses) == (0, 1)


def test_exact_p_of_a_ratio_by_enumeration() -> None:
    """The p-value is the share of all swaps with a difference as large."""
    draw = np.random.default_rng(0)
    sides = draw.integers(0, 5, size=(2, 8, 1)) * np.array([2, 0]) + np.array([0, 9])
    first, second = sides[0], sides[1] + np.array([2, 0])
    gaps = []
    for mask in itertools.product((False, True), repeat=8):
        one = np.where(np.array(mask)[:, None], second, first).sum(0)
        other = np.where(np.array(mask)[:, None], first, second).sum(0)
        gaps.append(abs(one[0] / one[1] - other[0] / other[1]))
    observed = abs(first[:, 0].sum() / first[:, 1].sum() - second[:, 0].sum() / second[:, 1].sum())
    exact = np.mean(np.array(gaps) >= observed - 1e-12)
    assert compare_ratios(first, second).p_value == pytest.approx(exact, abs=0.02)


def test_ratios_of_other_texts_are_refused() -> None:
    one = np.ones((3, 2), np.int64)
    for other in (np.ones((2, 2), np.int64), one * [1, 0]):
        with pytest.raises(InputError, match="cannot compare ratios"):
            compare_ratios(one, other)
