"""The largest scores of each row, against a sort."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from idiolect.recommend.largest_scores import largest_of_product, largest_of_rows


def test_rows_are_sorted_by_score_and_then_by_the_order_of_columns() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(-3, 3, (40, 60)).astype(np.float32) * np.float32(0.7)
    scores[scores == 0] *= rng.choice([1, -1], (scores == 0).sum())  # both zeros are equal
    scores[3] = scores[4, 2:] = scores[5, ::2] = -np.inf
    order = rng.permutation(60)
    numbers, best = largest_of_rows(scores, 20, order)
    for row, values in enumerate(scores):
        wanted = [n for n in np.lexsort((order, -values)) if values[n] > -np.inf][:20]
        np.testing.assert_array_equal(numbers[row], wanted + [-1] * (20 - len(wanted)))
        np.testing.assert_array_equal(best[row, : len(wanted)], values[wanted])
        assert np.isneginf(best[row, len(wanted) :]).all()


@pytest.mark.parametrize("density", [0.02, 0.6])
def test_products_are_those_of_dense_matrices(density: float) -> None:
    rng = np.random.default_rng(0)
    left, right = (rng.integers(-1, 3, shape).astype(np.float32) for shape in ((30, 40), (40, 70)))
    left *= rng.random(left.shape) < density
    right *= rng.random(right.shape) < density
    hidden = (rng.random((30, 70)) < 0.1).astype(np.float32)
    lengths = rng.random(30).astype(np.float32) + 1, rng.random(70).astype(np.float32) + 1
    order = rng.permutation(70)
    arguments = sparse.csr_matrix(left), sparse.csr_matrix(right), 8
    for divisors in (None, lengths):
        numbers, best = largest_of_product(
            *arguments, order=order, hidden=sparse.csr_matrix(hidden), lengths=divisors
        )
        product = left @ right
        if divisors is not None:
            product /= divisors[0][:, None] * divisors[1]
        product[(product <= 0) | (hidden > 0)] = 0
        for row, values in enumerate(product):
            wanted = [n for n in np.lexsort((order, -values)) if values[n] > 0][:8]
            np.testing.assert_array_equal(numbers[row], wanted + [-1] * (8 - len(wanted)))
            np.testing.assert_allclose(best[row, : len(wanted)], values[wanted], rtol=1e-5)
    ranked, _ = largest_of_product(*arguments)
    some, _ = largest_of_product(*arguments, ranked=False)
    np.testing.assert_array_equal(np.sort(some), np.sort(ranked))
