"""Baselines equal plain counts and closed forms; the blend is not worse than its best part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pytest

from idiolect.errors import InputError
from idiolect.recommend.histories import Histories
from idiolect.recommend.model_names import BASELINES
from idiolect.recommend.next_item_metrics import evaluate_scorer
from idiolect.recommend.scorer import ItemScorer, Popularity, RecentPopularity
from idiolect.recommend.scorers.blend import Blend
from idiolect.recommend.scorers.co_occurrence import (
    Ease,
    FirstOrderTransitions,
    ItemKnn,
    SessionKnn,
    Transitions,
)
from idiolect.recommend.scorers.text_similarity import TextSimilarity
from idiolect.recommend.splits import Cases, split


def _shop(users: int = 60, items: int = 25, seed: int = 0) -> Histories:
    """Histories in which an item is mostly followed by the next number."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(users):
        row = [int(rng.integers(items))]
        for _ in range(rng.integers(3, 9)):
            jump = rng.integers(items) if rng.random() < 0.3 else 1
            row.append(int(row[-1] + jump) % items)
        rows.append(row)
    names = tuple(map(str, range(items)))
    return Histories.of_numbers(tuple(map(str, range(users))), names, rows)


def _dense(shop: Histories) -> np.ndarray:
    matrix = np.zeros((len(shop), len(shop.items)))
    for user, row in enumerate(shop.rows):
        matrix[user, row] = 1
    return matrix


def test_transitions_equal_a_loop() -> None:
    shop = _shop()
    expected: dict[tuple[int, int], float] = defaultdict(float)
    for row in shop.rows:
        for i, first in enumerate(row):
            for j in range(i + 1, min(i + Transitions.reach, len(row) - 1) + 1):
                expected[int(first), int(row[j])] += 1 / (j - i)
    context = np.array([3, 9])
    scores = Transitions.fit(shop).score([context])[0]
    counts = shop.counts
    for item in range(len(shop.items)):
        wanted = sum(
            weight * expected[first, item] / counts[first] ** 0.5
            for first, weight in ((3, Transitions.decay), (9, 1.0))
        )
        assert scores[item] == pytest.approx(wanted, rel=1e-5)


def test_first_order_transitions_read_the_last_item_alone() -> None:
    shop = Histories.of({"a": ["x", "y", "z"], "b": ["x", "y", "w"], "c": ["y", "z"]})
    scores = FirstOrderTransitions.fit(shop).score([np.array([0, 1]), np.array([1])])
    np.testing.assert_array_equal(scores[0], scores[1])
    assert scores[0][2] == 2 * scores[0][3] > 0  # z follows y twice, w once
    assert scores[0][:2].tolist() == [0, 0]


def test_ease_equals_its_closed_form() -> None:
    shop = _shop()
    matrix = _dense(shop)
    inverse = np.linalg.inv(matrix.T @ matrix + Ease.regularisation * np.eye(len(shop.items)))
    weights = np.eye(len(shop.items)) - inverse / np.diag(inverse)
    np.testing.assert_allclose(Ease.fit(shop).weights, weights, atol=1e-5)


def test_item_knn_equals_cosines() -> None:
    shop = _shop()
    matrix = _dense(shop)
    lengths = np.sqrt(matrix.sum(0))
    cosine = matrix.T @ matrix / (np.outer(lengths, lengths) + ItemKnn.shrinkage)
    np.fill_diagonal(cosine, 0)
    found = ItemKnn.fit(shop).score([np.array([4])])[0]
    np.testing.assert_allclose(found, cosine[4], rtol=1e-5)


def test_session_knn_finds_the_items_of_like_histories() -> None:
    shop = Histories.of({"a": ["pen", "ink"], "b": ["pen", "ink"], "c": ["tea", "cup"]})
    scores = SessionKnn.fit(shop).score([np.array([0])])[0]
    assert scores[1] > 0
    assert scores[2] == scores[3] == 0


def test_recent_popularity_counts_the_latest_events() -> None:
    shop = Histories.of({"a": ["x"] * 9 + ["y"]})
    timed = Histories(shop.users, shop.items, shop.offsets, shop.events, np.arange(10.0))
    assert RecentPopularity.fit(timed).counts.tolist() == [0, 1]


def test_text_recommends_items_that_nobody_had() -> None:
    texts = ["red ink pen", "blue ink pen", "green tea", ""]
    scores = TextSimilarity.of_texts(texts).score([np.array([0])])[0]
    assert scores[0] == pytest.approx(1)
    assert scores[1] > scores[2] == scores[3] == 0


@pytest.mark.parametrize("scorer", BASELINES)
def test_arrays_restore_every_scorer(scorer: type[ItemScorer]) -> None:
    fitted = scorer.fit(_shop())
    contexts = [np.array([1, 2]), np.array([], np.int64)]
    again = scorer.of_arrays(fitted.arrays()).score(contexts)
    np.testing.assert_array_equal(again, fitted.score(contexts))
    assert again.shape == (2, 25)


def test_a_blend_is_not_worse_than_its_best_part() -> None:
    parts = split(_shop(200))
    fitted = {one.name: one.fit(parts.train) for one in (Transitions, ItemKnn)}
    blend = Blend.chosen_on(fitted, parts.valid, exclude_seen=False)

    def value(scorer: ItemScorer) -> float:
        counts = parts.train.counts
        return evaluate_scorer(scorer, parts.valid, counts, exclude_seen=False).means()["ndcg@10"]

    assert value(blend) >= max(map(value, fitted.values()))


class _Table(Popularity):
    """Scores that are looked up by the last event of a history."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table.astype(np.float32)

    def score(self, contexts: Sequence[np.ndarray]) -> np.ndarray:
        return self.table[[context[-1] for context in contexts]]


def test_a_blend_is_the_best_sum_on_the_way_of_ensemble_selection() -> None:
    rng = np.random.default_rng(0)
    truth = rng.permutation(30)
    cases = Cases.of(range(30), [np.array([item]) for item in range(30)], truth)
    # Each scorer knows the targets of other histories, and the fourth knows nothing.
    tables = rng.standard_normal((4, 30, 30)) * 0.3
    for third in range(3):
        known = np.arange(third, 30, 3)
        tables[third, known, truth[known]] += 3
    parts = dict(zip("abcd", map(_Table, tables), strict=True))
    blend = Blend.chosen_on(parts, cases, exclude_seen=False)

    def value(weights: Sequence[float]) -> float:
        counts = np.zeros(30, np.int64)
        scorer = Blend(parts, dict(zip("abcd", weights, strict=True)))
        return evaluate_scorer(scorer, cases, counts, exclude_seen=False).means()["ndcg@10"]

    best, chosen, reached, counts = -1.0, (0, 0, 0, 0), -1.0, (0, 0, 0, 0)
    for _ in range(20):
        tried = [tuple(np.add(counts, one)) for one in np.eye(4, dtype=int)]
        counts = max(tried, key=value)
        reached = value(counts)
        if reached > best:
            best, chosen = reached, counts
    assert list(blend.weights.values()) == [count / max(chosen) for count in chosen]
    assert min(chosen[:3]) > 0
    assert value(list(blend.weights.values())) > max(map(value, np.eye(4))) + 0.3


def test_ease_of_too_many_items_is_refused() -> None:
    shop = Histories.of({"a": ["x"]})
    wide = Histories(shop.users, tuple(map(str, range(30_000))), shop.offsets, shop.events)
    with pytest.raises(InputError, match="at most 20,000"):
        Ease.fit(wide)


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("scorer", [ItemKnn, Transitions, Ease, Popularity])
def test_the_best_items_equal_a_full_sort(scorer: type[ItemScorer], exclude_seen: bool) -> None:
    """Equal scores, of which there are many, are in the given order."""
    shop = _shop(users=12, items=30)
    order = np.random.default_rng(1).permutation(30)
    fitted = scorer.fit(shop)
    contexts = [*shop.rows[:4], np.array([3]), np.arange(25)]
    numbers, scores = fitted.best(contexts, 12, order, exclude_seen=exclude_seen)
    for row, context in enumerate(contexts):
        expected = fitted.score([context])[0]
        if exclude_seen:
            expected[context] = -np.inf
        wanted = np.lexsort((order, -expected))[:12]
        wanted = wanted[np.isfinite(expected[wanted])]
        assert numbers[row, : len(wanted)].tolist() == wanted.tolist()
        assert (numbers[row, len(wanted) :] == -1).all()
        np.testing.assert_allclose(scores[row, : len(wanted)], expected[wanted], rtol=1e-5)


def test_item_knn_keeps_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of equal ones, those with the first numbers; also if items are taken in parts."""
    shop = _shop(users=200)
    every = ItemKnn.fit(shop).matrix.toarray()
    monkeypatch.setattr(ItemKnn, "neighbours", 4)
    monkeypatch.setattr(f"{ItemKnn.__module__}._ITEMS_AT_ONCE", 10)
    found = ItemKnn.fit(shop).matrix.toarray()
    for item in range(len(shop.items)):
        near = np.lexsort((np.arange(len(every)), -every[:, item]))[:4]
        assert np.flatnonzero(found[:, item]).tolist() == sorted(near.tolist())
        np.testing.assert_array_equal(found[near, item], every[near, item])
