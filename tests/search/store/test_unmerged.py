"""The newest vectors: results, growth in place, and no threads of the linear algebra library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from idiolect.search.store import unmerged
from idiolect.search.store.unmerged import Unmerged
from idiolect.search.store.unmerged_codes import UnmergedCodes

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(300, 16)).astype(np.float32)
ROWS = np.arange(10, 610, 2)


def _filled() -> Unmerged:
    state = Unmerged.empty(16)
    for start in range(0, 300, 50):
        state = state.append(ROWS[start : start + 50], VECTORS[start : start + 50])
    return state


@pytest.mark.parametrize("metric", ["inner", "l2"])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.05])
def test_results_are_exact(metric: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unmerged, "_BLOCK", 7)
    state = _filled().without(np.array([1, 12, 13, 608, 9999]))
    assert len(state) == 298
    chosen = (RNG.random(300) < share) & state.alive
    query = VECTORS[5] + 0.1
    exact = VECTORS @ query if metric == "inner" else -((VECTORS - query) ** 2).sum(1)
    places = np.flatnonzero(chosen)
    best = places[np.argsort(-exact[places])][:9]
    found = sorted(state.search(query, metric, 9, chosen), key=lambda pair: -pair[1])
    assert [row for row, _ in found] == ROWS[best].tolist()
    np.testing.assert_allclose([score for _, score in found], exact[best], rtol=1e-4)


@pytest.mark.parametrize("metric", ["cosine", "inner", "l2"])
@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_codes_lose_no_result(metric: Any, spread: float) -> None:
    """Also where the vectors are so near to each other that codes cannot tell them apart."""
    rng = np.random.default_rng(1)
    vectors = (rng.normal(size=24) + spread * rng.normal(size=(4000, 24))).astype(np.float32)
    vectors[7] = 0
    if metric == "cosine":
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    codes, places = UnmergedCodes(5000, 24), np.flatnonzero(rng.random(4000) < 0.8)
    for count in (2500, 4000):  # the array grows
        own = places[places < count]
        for query in vectors[rng.integers(0, count, 30)] + np.float32(0.01):
            given = vectors[:count].astype(np.float64)
            exact = given @ query if metric != "l2" else -((given - query) ** 2).sum(1)
            best = own[np.argsort(-exact[own])][:10]
            found = codes.candidates(vectors[:count], query, metric, 10, own)
            assert set(best) <= set(found) <= set(own)
            assert spread < 1 or len(found) < 400


def test_a_rounding_error_of_the_vectors_hides_no_result() -> None:
    """The first vector is the best, and by its code the second: its numbers are rounded down."""
    vectors = np.array([[127] + 15 * [3.49], [127] + 10 * [3.51] + 5 * [2.0]], np.float32)
    query = np.ones(16, np.float32)
    assert np.argmax(vectors @ query) == 0
    assert np.argmax(np.rint(vectors) @ query) == 1
    found = UnmergedCodes(2, 16).candidates(vectors, query, "inner", 1, np.arange(2))
    assert 0 in found


def test_a_rounding_error_of_the_query_hides_no_result() -> None:
    query = np.array([127] + 15 * [3.49], np.float32)
    vectors = np.array([16 * [1.0], [1.38] + 15 * [0.0]], np.float32)
    assert np.argmax(vectors @ query) == 0
    assert np.argmax(vectors @ np.rint(query)) == 1
    found = UnmergedCodes(2, 16).candidates(vectors, query, "inner", 1, np.arange(2))
    assert 0 in found


def test_codes_are_compared_beside_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unmerged, "_CODED", 100)
    used, original = [], UnmergedCodes.candidates

    def candidates(self: UnmergedCodes, *given: Any) -> Any:
        used.append(1)
        return original(self, *given)

    monkeypatch.setattr(UnmergedCodes, "candidates", candidates)
    state, best = _filled(), np.argsort(-VECTORS @ VECTORS[5])[:9]
    for coded, calls in ((False, 0), (True, 1)):
        found = state.search(VECTORS[5], "inner", 9, None, coded=coded)
        assert {row for row, _ in found} == set(ROWS[best].tolist())
        assert len(used) == calls


def test_older_states_never_change_and_share_their_array() -> None:
    first = _filled()
    kept = first.vectors.copy()
    second = first.append(np.array([700]), VECTORS[:1] + 1)
    third = second.append(np.array([701, 702]), VECTORS[:2] + 2)
    assert np.shares_memory(second.vectors, third.vectors)
    np.testing.assert_array_equal(first.vectors, kept)
    assert (len(first), len(second), len(third)) == (300, 301, 303)


def test_rows_after_a_merge_are_kept() -> None:
    state = _filled().without(np.array([608])).after(600)
    assert state.rows.tolist() == [602, 604, 606]
    np.testing.assert_array_equal(state.vectors, VECTORS[296:299])


def test_scores_start_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product with a matrix is threaded; on busy processors its threads wait for each other."""

    def fail(*_: object) -> None:
        raise AssertionError("a threaded product")

    for name in ("dot", "matmul", "inner", "tensordot"):
        monkeypatch.setattr(np, name, fail)

    class Watched(np.ndarray):
        def __matmul__(self, other: object) -> None:  # type: ignore[override]
            fail()

    state = _filled()
    watched = Unmerged(state.rows, state.vectors.view(Watched), state.alive, state._buffer)
    assert len(watched.search(VECTORS[0], "cosine", 5, None)) == 5
