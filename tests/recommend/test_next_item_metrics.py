"""Metrics equal a brute-force count with ties; a collapsed model gets no good score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pytest

from idiolect.errors import ConfigError, InputError
from idiolect.recommend.histories import Histories
from idiolect.recommend.next_item_metrics import evaluate_scorer, mean_ranks, parse_metric
from idiolect.recommend.scorer import ItemScorer
from idiolect.recommend.splits import Cases


class _Given(ItemScorer):
    """Scores that the test chooses."""

    name: ClassVar[str] = "given"

    def __init__(self, rows: Any) -> None:
        self.rows = np.asarray(rows, np.float32)

    @classmethod
    def fit(cls, histories: Histories) -> Self:
        raise NotImplementedError

    def score(self, contexts: Sequence[Any]) -> Any:
        return np.array([self.rows[context[0]] for context in contexts])

    def arrays(self) -> dict[str, Any]:
        return {}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Any]) -> Self:
        raise NotImplementedError


def _cases(count: int, targets: Any) -> Cases:
    contexts = [np.array([i]) for i in range(count)]
    return Cases.of(range(count), contexts, np.asarray(targets, np.int64))


def test_metrics_equal_a_brute_force_count_with_ties() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, (40, 30)).astype(np.float32)  # many ties
    targets = rng.integers(0, 30, 40)
    result = evaluate_scorer(_Given(scores), _cases(40, targets), np.ones(30), exclude_seen=False)
    expected = []
    for row, target in zip(scores, targets, strict=True):
        # The mean place of the target over both extremes of the order of equal scores.
        above = sum(score > row[target] for score in row)
        places = [above + 1 + i for i in range(sum(score == row[target] for score in row))]
        expected.append(sum(places) / len(places))
    np.testing.assert_allclose(result.ranks, expected)
    hits = [rank <= 10 for rank in expected]
    gains = [hit / np.log2(rank + 1) for hit, rank in zip(hits, expected, strict=True)]
    assert result.means()["hr@10"] == pytest.approx(np.mean(hits))
    assert result.means()["ndcg@10"] == pytest.approx(np.mean(gains))
    mrr = [hit / rank for hit, rank in zip(hits, expected, strict=True)]
    assert result.means()["mrr@10"] == pytest.approx(np.mean(mrr))


def test_a_collapsed_model_is_not_better_than_chance() -> None:
    items = 200
    rng = np.random.default_rng(0)
    result = evaluate_scorer(
        _Given(np.zeros((50, items))),
        _cases(50, rng.integers(50, items, 50)),
        np.ones(items),
        exclude_seen=False,
    )
    assert result.means()["hr@10"] <= 10 / items
    assert result.ranks.mean() == pytest.approx((items + 1) / 2)


def test_seen_items_are_ranked_last() -> None:
    scores = np.array([[9, 1, 2], [0, 5, 1]])
    result = evaluate_scorer(_Given(scores), _cases(2, [2, 1]), np.ones(3), exclude_seen=True)
    assert result.ranks.tolist() == [1, 3]


def test_hidden_items_of_a_small_catalogue_are_no_recommendations() -> None:
    """A target among hidden items has the last rank, not their mean one, which may be a hit."""
    seen = np.arange(8)
    cases = Cases.of([0], [seen], np.array([2]))
    scores = np.arange(12.0)[None]
    result = evaluate_scorer(_Given(scores), cases, np.ones(12), exclude_seen=True)
    assert result.ranks.tolist() == [12]
    assert result.means()["hr@10"] == 0
    assert result.coverage == pytest.approx(4 / 12)


def test_cold_targets_and_history_lengths_are_apart() -> None:
    counts = np.array([5, 0, 3])
    result = evaluate_scorer(_Given(np.eye(3)), _cases(3, [1, 1, 2]), counts, exclude_seen=False)
    figures: Any = result.figures()
    assert figures["cold"]["cases"] == 2
    assert figures["warm"]["cases"] == 1
    assert figures["warm"]["ndcg@10"] == 1.0
    assert figures["by_history_length"]["1-2"]["cases"] == 3


def test_sampled_metrics_are_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="Krichene"):
        parse_metric("sampled-ndcg@10")
    with pytest.raises(ConfigError, match="ndcg@10"):
        parse_metric("auc")


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="no numbers"):
        mean_ranks(np.full((1, 3), np.nan, np.float32), np.array([0]))


def test_metrics_of_baskets_equal_a_count() -> None:
    scores = np.array([[9, 8, 7, 6, 5], [1, 2, 3, 4, 5]])
    contexts = [np.array([0]), np.array([1])]
    targets, owners = np.array([0, 2, 4, 1]), np.array([0, 0, 0, 1])
    cases = Cases((0, 1), contexts, targets, owners)
    result = evaluate_scorer(_Given(scores), cases, np.ones(5), exclude_seen=False)
    assert result.ranks.tolist() == [1, 3, 5, 4]
    assert result.values("recall@3").tolist() == pytest.approx([2 / 3, 0])
    assert result.values("hr@3").tolist() == [1, 0]
    assert result.values("mrr@4").tolist() == [1, 1 / 4]
    gains = 1 + 1 / np.log2(4)
    assert result.values("ndcg@3")[0] == pytest.approx(gains / (gains + 1 / np.log2(3)))
    part = cases.part(np.array([1, 0]))
    assert part.targets.tolist() == [1, 0, 2, 4]
    assert part.owners.tolist() == [0, 1, 1, 1]
