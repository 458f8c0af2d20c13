"""Initial rows, each against a calculation by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from idiolect.vocabulary.rows.initial_rows import Init, RowMixture, initial_rows, piece_mixture

MATRIX = torch.tensor([[3.0, 4.0], [0.0, 1.0], [6.0, 8.0], [0.0, 0.0], [100.0, 100.0]])
# Row 3 is all zeros and row 4 is padding: neither has been trained.
TRAINED = torch.tensor([True, True, True, False, False])
BIAS = torch.tensor([1.0, 2.0, 6.0, 0.0, 50.0])


def rows(
    init: Init,
    pieces: list[list[int]],
    *,
    matrix: Tensor = MATRIX,
    trained: Tensor = TRAINED,
    is_input: bool = True,
    is_output: bool = False,
    neighbours: RowMixture | None = None,
    seed: int = 0,
) -> Tensor:
    return initial_rows(
        matrix,
        trained,
        pieces,
        init,
        is_input=is_input,
        is_output=is_output,
        neighbours=neighbours,
        generator=torch.Generator().manual_seed(seed),
    )


def test_subword_is_the_mean_of_the_pieces_at_the_median_norm() -> None:
    # Norms of trained rows: 5, 1 and 10. Mean of rows 0 and 1: (1.5, 2.5), of norm √8.5.
    made = rows("subword", [[0, 1]])
    expected = torch.tensor([[1.5, 2.5]]) * 5 / math.sqrt(8.5)
    torch.testing.assert_close(made, expected)


def test_subword_is_not_rescaled_in_an_output_matrix() -> None:
    for is_input in (True, False):
        made = rows("subword", [[0, 1], [2]], is_input=is_input, is_output=True)
        torch.testing.assert_close(made, torch.tensor([[1.5, 2.5], [6.0, 8.0]]))


def test_subword_of_biases_is_their_mean() -> None:
    made = rows("subword", [[0, 1], [2]], matrix=BIAS, is_input=False, is_output=True)
    torch.testing.assert_close(made, torch.tensor([1.5, 6.0]))


def test_weighted_prefers_late_pieces_for_input_and_early_ones_for_output() -> None:
    more, less = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))
    first, second = MATRIX[0], MATRIX[1]
    read = rows("weighted", [[0, 1]], is_output=True)
    torch.testing.assert_close(read[0], less * first + more * second)
    head = rows("weighted", [[0, 1]], is_input=False, is_output=True)
    torch.testing.assert_close(head[0], more * first + less * second)


def test_weights_fall_by_the_same_factor_from_piece_to_piece() -> None:
    weights = piece_mixture([[5, 6, 7]], "early").weights
    torch.testing.assert_close(weights[:-1] / weights[1:], torch.full((2,), math.exp(2)))
    assert float(weights.sum()) == pytest.approx(1)


def test_mean_excludes_zero_and_padding_rows() -> None:
    made = rows("mean", [[0], [1]])
    torch.testing.assert_close(made, torch.tensor([[3.0, 13 / 3]]).repeat(2, 1))


def test_a_token_of_no_known_pieces_gets_the_mean() -> None:
    made = rows("subword", [[], [2]], is_output=True)
    torch.testing.assert_close(made, torch.tensor([[3.0, 13 / 3], [6.0, 8.0]]))


def test_normal_matches_mean_and_deviation_of_trained_rows() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(60, 5) * torch.tensor([0.1, 1, 2, 3, 4]) + torch.arange(5)
    matrix[50:] = 1e6
    trained = torch.arange(60) < 50
    made = rows("normal", [[0]] * 40_000, matrix=matrix, trained=trained)
    deviation = matrix[:50].std(0)
    assert ((made.mean(0) - matrix[:50].mean(0)).abs() < 0.03 * deviation).all()
    torch.testing.assert_close(made.std(0), deviation, rtol=0.02, atol=0)
    correlation = torch.corrcoef(made.T) - torch.eye(5)
    assert correlation.abs().max() < 0.03


@pytest.mark.parametrize("count", [200, 4])
def test_multivariate_matches_the_covariance_even_of_fewer_rows_than_columns(count: int) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(count, 6) @ torch.randn(6, 6) + torch.arange(6)
    trained = torch.ones(count, dtype=torch.bool)
    made = rows("multivariate", [[0]] * 60_000, matrix=matrix, trained=trained)
    wanted = torch.cov(matrix.T)
    assert (torch.cov(made.T) - wanted).norm() < 0.03 * wanted.norm()
    assert (made.mean(0) - matrix.mean(0)).norm() < 0.05 * wanted.diagonal().sum().sqrt()


@pytest.mark.parametrize("init", ["normal", "multivariate"])
def test_random_rows_depend_on_the_seed(init: Init) -> None:
    one, same, other = (rows(init, [[0]] * 3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_neighbours_mix_rows_and_fall_back_on_pieces() -> None:
    near = RowMixture.of([([0, 2], [0.25, 0.75]), ([], [])])
    made = rows("neighbours", [[1], [0, 1]], is_output=True, neighbours=near)
    torch.testing.assert_close(made, torch.tensor([[5.25, 7.0], [1.5, 2.5]]))
