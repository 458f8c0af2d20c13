"""Fusion and diversification on hand-computed examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from idiolect.errors import InputError
from idiolect.search.fusion import diversify, fuse
from idiolect.search.items import Hit


def _ranking(**scores: float) -> list[Hit]:
    return [Hit(id, score, id.upper(), {}) for id, score in scores.items()]


DENSE = _ranking(a=0.9, b=0.8, c=0.1)
WORDS = _ranking(b=7.0, d=3.0, a=2.0)


def test_reciprocal_rank_fusion() -> None:
    scores = {hit.id: hit.score for hit in fuse([DENSE, WORDS])}
    assert scores == pytest.approx(
        {
            "b": 61 / 2 * (1 / 62 + 1 / 61),
            "a": 61 / 2 * (1 / 61 + 1 / 63),
            "d": 61 / 2 / 62,
            "c": 61 / 2 / 63,
        }
    )
    assert list(scores) == ["b", "a", "d", "c"]
    weighted = fuse([DENSE, WORDS], weights=(3, 1))
    assert [hit.id for hit in weighted] == ["a", "b", "c", "d"]
    assert weighted[1].score == pytest.approx(61 / 4 * (3 / 62 + 1 / 61))


def test_weighted_scores() -> None:
    scores = {hit.id: hit.score for hit in fuse([DENSE, WORDS], method="weighted")}
    assert scores == pytest.approx({"b": (0.7 / 0.8 + 1) / 2, "a": 0.5, "d": 0.1, "c": 0.0})
    alone = fuse([_ranking(x=5.0), []], method="weighted")
    assert [(hit.id, hit.score) for hit in alone] == [("x", 0.5)]
    assert fuse([[], []]) == []


def test_a_complete_ranking_is_scaled_from_zero() -> None:
    """An item with a word is better than one without, even if it is the last with it."""
    words = _ranking(b=8.0, a=6.0)  # shorter than the dense ranking
    scores = {hit.id: hit.score for hit in fuse([DENSE, words], method="weighted")}
    assert scores == pytest.approx({"b": (0.7 / 0.8 + 1) / 2, "a": (1 + 0.75) / 2, "c": 0.0})
    hits = fuse([DENSE, WORDS], method="weighted", complete=(False, True))
    assert {hit.id: hit.score for hit in hits}["a"] == pytest.approx((1 + 2 / 7) / 2)


def test_a_ranking_without_weight_only_fills_up() -> None:
    for method in ("weighted", "rrf"):
        hits = fuse([DENSE, WORDS], method=method, weights=(0, 2))
        assert [hit.id for hit in hits] == ["b", "d", "a", "c"]
        assert hits[0].score == 1
        assert hits[-1].score == 0
    many = _ranking(x=0.9, z=0.5, y=0.4)
    assert [hit.id for hit in fuse([many, []], method="weighted", weights=(0, 1))] == [*"xzy"]


def test_ties_go_to_the_smaller_id_and_highlights_are_kept() -> None:
    left, right = _ranking(z=1.0), [Hit("a", 1.0, "A", {}, "[A]")]
    assert [hit.id for hit in fuse([left, right])] == ["a", "z"]
    both = fuse([_ranking(a=1.0), right])
    assert both[0].highlight == "[A]"


def test_invalid_fusion_arguments() -> None:
    with pytest.raises(InputError, match=r"unknown fusion 'sum' \(known: rrf, weighted"):
        fuse([DENSE], method="sum")  # type: ignore[arg-type]
    for weights in ([1.0], [1.0, -1.0], [1.0, float("nan")]):
        with pytest.raises(InputError, match="weights"):
            fuse([DENSE, WORDS], weights=weights)


def test_diversify_prefers_dissimilar_hits() -> None:
    hits = _ranking(a=1.0, twin=0.99, b=0.6, c=0.0)
    vectors = {
        "a": np.array([1, 0], np.float32),
        "twin": np.array([2, 0], np.float32),
        "b": np.array([0, 1], np.float32),
        "c": np.array([-1, 0], np.float32),
    }

    def chosen(diversity: float, top_k: int = 4) -> list[str]:
        return [hit.id for hit in diversify(hits, vectors, top_k, diversity)]

    assert chosen(0.0) == ["a", "twin", "b", "c"]
    # After a: twin 0.5 * 0.99 - 0.5 * 1, b 0.5 * 0.6 - 0, c 0 + 0.5; after c: b 0.3, twin -0.005.
    assert chosen(0.5) == ["a", "c", "b", "twin"]
    assert chosen(1.0, 2) == ["a", "c"]
    assert [hit.score for hit in diversify(hits, vectors, 2, 0.5)] == [1.0, 0.0]
    assert diversify([], vectors, 3, 0.5) == []
    for diversity in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="mmr_diversity"):
            chosen(diversity)


def test_an_item_that_occurs_twice_counts_at_its_first_place() -> None:
    twice = [*_ranking(a=3.0, b=2.0), *_ranking(a=1.0, c=1.0)]
    for method in ("rrf", "weighted"):
        assert fuse([twice], method=method) == fuse([_ranking(a=3.0, b=2.0, c=1.0)], method=method)


@pytest.mark.parametrize("method", ["rrf", "weighted"])
@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_are_refused(method: Any, score: float) -> None:
    with pytest.raises(InputError, match="score of item 'b' is"):
        fuse([_ranking(a=1.0), _ranking(b=score, c=1.0)], method=method)


def test_scores_of_any_size_are_scaled() -> None:
    for high, low in ((1.7e308, -1.7e308), (5e-324, 0.0), (0.0, 0.0)):
        hits = fuse([_ranking(a=high, b=low)], method="weighted")
        assert [hit.id for hit in hits] == ["a", "b"]
        assert all(0 <= hit.score <= 1 for hit in hits)
