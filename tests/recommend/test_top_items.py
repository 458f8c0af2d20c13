"""The items of the largest inner products for many users, against a sort of the full product."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from idiolect.recommend.byte_products import ItemCodes
from idiolect.recommend.top_items import top_items


def test_top_items_equal_a_sort() -> None:
    rng = np.random.default_rng(0)
    users = rng.standard_normal((530, 8)).astype(np.float32)
    items = rng.standard_normal((2100, 8)).astype(np.float32)
    items[5] = items[4]  # a tie
    numbers, scores = top_items(users, items, 7)
    product = users @ items.T
    wanted = np.argsort(-product, axis=1, kind="stable")[:, :7]
    assert (numbers == wanted).mean() > 0.999  # products in blocks may round differently
    np.testing.assert_allclose(scores, np.take_along_axis(product, wanted, 1), rtol=1e-4)
    numbers, _ = top_items(users[:1], items[:3], 9)
    assert sorted(numbers[0].tolist()) == [0, 1, 2]


def _largest(users: np.ndarray, items: np.ndarray, hidden: sparse.csr_matrix) -> np.ndarray:
    """Return the seven items with the largest products that are not hidden, by a sort."""
    product = users.astype(np.float64) @ items.T.astype(np.float64)
    product[hidden.nonzero()] = -np.inf
    return np.argsort(-product, axis=1, kind="stable")[:, :7]


@pytest.mark.parametrize("width", [8, 70])
def test_products_of_bytes_find_the_largest_and_know_where_they_are_certain(width: int) -> None:
    rng = np.random.default_rng(0)
    users = rng.standard_normal((1100, width)).astype(np.float32)
    items = rng.standard_normal((3005, width)).astype(np.float32)
    items[5], items[:, 1] = items[4], 0.5  # a tie, and a dimension that is equal for all items
    users[7] = 0
    hidden = sparse.random(1100, 3005, 0.2, "csr", np.float32, random_state=rng)
    hidden.sort_indices()
    numbers, scores, certain = ItemCodes.of(items).largest(users, hidden, 7)
    assert certain[np.arange(1100) != 7].mean() > 0.9
    assert not certain[7]  # all items are equal for it
    wanted = _largest(users, items, hidden)
    np.testing.assert_array_equal(numbers[certain], wanted[certain])
    np.testing.assert_allclose(
        scores, np.einsum("ij,ikj->ik", users, items[numbers]), rtol=1e-4, atol=1e-5
    )
    items[9] *= 1e4  # rounding is useless now
    numbers, _, certain = ItemCodes.of(items).largest(users, hidden, 7)
    assert certain.mean() < 0.1
    wanted = _largest(users, items, hidden)
    assert (numbers != wanted).any()
    np.testing.assert_array_equal(numbers[certain], wanted[certain])
    numbers, _ = top_items(users, items, 7, hidden)
    assert (numbers == wanted).mean() > 0.999


@pytest.mark.parametrize(
    ("user", "many", "others", "best"),
    [
        # The products of codes: 400 for the many, 399 for the best, which is 400.96.
        ((1, 1, 1, 1), (100.1, 100.1, 100.1, 100.1), (0, 0, 0, 0), (100.49, 100.49, 100.49, 99.49)),
        # The user's code is (127, 0, 0, 0), which leaves out most of what the best is better in,
        ((127, 0.49, 0.49, 0.49), (100, 10, 10, 10), (0, 0, 0, 0), (99, 255, 255, 255)),
        # or what all have.
        ((127, 0.49, 0.49, 0.49), (100, 200, 200, 200), (0, 200, 200, 200), (100, 255, 255, 255)),
    ],
)
def test_an_item_that_only_rounding_hides_is_found(
    user: tuple[float, ...],
    many: tuple[float, ...],
    others: tuple[float, ...],
    best: tuple[float, ...],
) -> None:
    # The codes are the rounded numbers, as these go from 0 to 255.
    zeros = np.where(np.eye(4), 0, others)
    items = np.array([(255, 255, 255, 255), *zeros, *[many] * 100, *[others] * 300, best])
    users = np.tile(np.array(user, np.float32), (1024, 1))
    hidden = sparse.csr_matrix(np.arange(len(items)) == np.zeros((1024, 1)), dtype=np.float32)
    numbers, _, certain = ItemCodes.of(items.astype(np.float32)).largest(users, hidden, 1)
    assert not certain.any()
    assert (numbers < 405).all()
    assert (top_items(users, items.astype(np.float32), 1, hidden)[0] == 405).all()


def test_top_items_leave_out_hidden_ones_and_say_where_too_few_remain() -> None:
    users = np.ones((1030, 4), np.float32)
    items = np.arange(12, dtype=np.float32)[:, None] * np.ones(4, np.float32)
    hidden = sparse.csr_matrix((np.arange(12) > np.arange(1030)[:, None] % 12), dtype=np.float32)
    for some in (users, users[:20]):  # by bytes and by blocks
        numbers, scores = top_items(some, items, 3, hidden[: len(some)])
        np.testing.assert_array_equal(numbers[:3], [[0, -1, -1], [1, 0, -1], [2, 1, 0]])
        assert np.isneginf(scores[0, 1:]).all()
        np.testing.assert_array_equal(numbers[11:14], [[11, 10, 9], [0, -1, -1], [1, 0, -1]])
