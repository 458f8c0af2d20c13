"""The two tests against `scipy`'s, and on cases whose answer is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from idiolect.errors import InputError
from idiolect.ranking.evaluation.significance import compare


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
