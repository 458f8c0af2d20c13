"""Fusion and diversification on hand-computed examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from idiolect.errors import InputError
from idiolect.search.fusion import choose_weights, diversify, fuse
from idiolect.search.items import Hit


def _ranking(**scores: float) -> list[Hit]:
    return [Hit(id, score, id.upper(), {}) for id, score in scores.items()]


DENSE = _ranking(a=0.9, b=0.8, c=0.1)
WORDS = _ranking(b=7.0, d=3.0, a=2.0)


def test_reciprocal_rank_fusion() -> None:
    scores = {hit.id: hit.score for hit in fuse([DENSE, WORDS])}
    assert scores == pytest.approx(
        {"b": 1 / 62 + 1 / 61, "a": 1 / 61 + 1 / 63, "d": 1 / 62, "c": 1 / 63}
    )
    assert list(scores) == ["b", "a", "d", "c"]
    weighted = fuse([DENSE, WORDS], weights=(3, 1))
    assert [hit.id for hit in weighted] == ["a", "b", "c", "d"]
    assert weighted[1].score == pytest.approx(3 / 62 + 1 / 61)


def test_weighted_scores() -> None:
    scores = {hit.id: hit.score for hit in fuse([DENSE, WORDS], method="weighted")}
    assert scores == pytest.approx({"b": 0.7 / 0.8 + 1, "a": 1.0, "d": 0.2, "c": 0.0})
    alone = fuse([_ranking(x=5.0), []], method="weighted")
    assert [(hit.id, hit.score) for hit in alone] == [("x", 1.0)]
    assert fuse([[], []]) == []


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


def test_weights_are_chosen_by_mean_reciprocal_rank() -> None:
    """Only the dense ranking has x first, and only the lexical ranking has y first."""
    dense = (_ranking(x=0.9, a=0.1), _ranking(a=5.0, x=1.0), {"x"})
    lexical = (_ranking(b=0.9, y=0.8, c=0.1), _ranking(y=5.0, b=1.0), {"y"})
    assert choose_weights([dense]) == (0.6, 0.4), "at 0.5, x and a are equal, and a is first"
    assert choose_weights([lexical]) == (0.5, 0.5), "the weight nearest to 0.5 wins a tie"
    never = (_ranking(a=1.0, b=0.5), _ranking(b=1.0, z=0.5, a=0.1), {"z"})
    assert choose_weights([never, never])[0] < 0.5
    with pytest.raises(InputError, match="no queries"):
        choose_weights([])


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
