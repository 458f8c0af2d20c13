"""The weight of vectors: by origin of the encoder, then by known answers, carefully."""

from __future__ import annotations

import pytest

from idiolect.errors import InputError
from idiolect.search.hybrid_weight import HybridWeight, fit_weight
from idiolect.search.items import Hit

PUBLISHED = HybridWeight.default({"published": 1})
PLAIN = HybridWeight.default({"published": 0})


def _ranking(**scores: float) -> list[Hit]:
    return [Hit(id, score, "", {}) for id, score in scores.items()]


GOOD = (_ranking(x=0.9, a=0.1), _ranking(a=5.0, b=2.0, x=1.0), {"x"})
"""Only vectors have the answer first."""
BAD = (_ranking(b=0.9, y=0.8, c=0.1), _ranking(y=5.0, b=1.0, d=0.5), {"y"})
"""Only words have it first."""
EVEN = (_ranking(x=0.9, a=0.1), _ranking(x=5.0, a=1.0, b=0.5), {"x"})


def test_the_default_is_by_origin() -> None:
    assert PUBLISHED.weights == (0.4, 0.6)
    assert PLAIN.weights == (0, 1)
    assert HybridWeight.of({}).dense == 0.4, "an encoder of another library"
    assert HybridWeight.of({"dense_percent": 15, "published": 0}).dense == 0.15


def test_known_answers_move_the_weight_from_the_default() -> None:
    few, many = fit_weight([GOOD] * 4, PLAIN), fit_weight([GOOD] * 400, PLAIN)
    assert few.dense <= 0.05 < many.dense
    assert many.dense == 0.4, "x is before a from 0.45 on"
    assert "400 queries with known answers: nDCG@10 0.631, words alone 0.500" in many.evidence
    harmful = [fit_weight([BAD] * n, PUBLISHED).dense for n in (1, 30, 100, 1000)]
    assert harmful == sorted(harmful, reverse=True)
    assert 0.35 <= harmful[0] <= 0.4
    assert harmful[-1] == 0


def test_a_gain_that_may_be_luck_has_no_weight() -> None:
    """Better on two of forty queries; a choice by the mean would weigh vectors."""
    lucky = [GOOD] * 2 + [EVEN] * 38
    assert fit_weight(lucky, PLAIN).dense == 0
    assert "best for them 0," in fit_weight(lucky, PLAIN).evidence
    assert fit_weight([GOOD] * 20 + [EVEN] * 20, PLAIN).dense > 0


def test_there_must_be_queries() -> None:
    with pytest.raises(InputError, match="no queries"):
        fit_weight([], PLAIN)
    assert fit_weight([(GOOD[0], GOOD[1], set())], PLAIN).dense == 0
