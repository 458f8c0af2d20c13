"""Vectors in few bits: against exact search, by hand, and saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from idiolect.encoding.matryoshka import neighbours_kept
from idiolect.encoding.precision import Precision, QuantizedVectors
from idiolect.errors import CheckpointError, ConfigError, InputError


def _clusters(n: int, dimensions: int, seed: int) -> np.ndarray:
    """Unit vectors that lie in clusters, as texts do."""
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(40, dimensions))
    vectors = centres[chance.integers(40, size=n)] + 0.8 * chance.normal(size=(n, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("precision", ["int8", "binary"])
def test_scoring_enough_again_is_an_exact_search(precision: Precision) -> None:
    vectors, queries = _clusters(2000, 128, 1), _clusters(20, 128, 2)
    exact = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :10]
    codes = QuantizedVectors.of(vectors, precision)

    def found(**options: object) -> float:
        ids, scores = codes.search(queries, 10, **options)
        assert (np.diff(scores) <= 0).all()
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(ids, exact, strict=True)]))

    ids, scores = codes.search(queries, 10, exact=vectors, rescore=200)
    np.testing.assert_array_equal(ids, exact)
    np.testing.assert_allclose(
        scores, np.take_along_axis(queries @ vectors.T, ids, axis=1), rtol=1e-5
    )
    # The more candidates are scored again, the more of the best are among them.
    shares = [found(exact=vectors, rescore=times) for times in (1, 4, 16)]
    assert shares == sorted(shares)
    assert shares[0] > 10 * 10 / 2000
    if precision == "int8":
        assert found() > 0.95


def test_binary_candidates_are_the_nearest_by_hamming_distance() -> None:
    vectors, queries = _clusters(500, 30, 1), _clusters(5, 30, 2)
    ids, _ = QuantizedVectors.of(vectors, "binary").search(queries, 20, rescore=1)
    distances = ((queries[:, None] > 0) != (vectors[None] > 0)).sum(-1)
    for mine, row in zip(ids, distances, strict=True):
        assert sorted(row[mine]) == sorted(row)[:20]


def test_codes_take_a_quarter_and_a_thirty_second() -> None:
    vectors = _clusters(100, 128, 1)
    assert QuantizedVectors.of(vectors, "int8").codes.nbytes * 4 == vectors.nbytes
    assert QuantizedVectors.of(vectors, "binary").codes.nbytes * 32 == vectors.nbytes


def test_decoded_by_hand() -> None:
    vectors = np.array([[1.27, -2.54, 0], [0.64, 0.01, 0]], dtype=np.float32)
    codes = QuantizedVectors.of(vectors, "int8")
    assert codes.codes.tolist() == [[127, -127, 0], [64, 0, 0]]
    np.testing.assert_allclose(codes.decode(slice(None)), [[1.27, -2.54, 0], [0.64, 0, 0]])
    signs = QuantizedVectors.of(vectors, "binary")
    assert signs.codes.tolist() == [[0b10000000], [0b11000000]]
    assert signs.decode(slice(None)).tolist() == [[1, -1, -1], [1, 1, -1]]


@pytest.mark.parametrize("precision", ["int8", "binary"])
def test_saved_and_opened(tmp_path: Path, precision: Precision) -> None:
    vectors, queries = _clusters(200, 20, 1), _clusters(5, 20, 2)
    codes = QuantizedVectors.of(vectors, precision)
    codes.save(tmp_path / "codes")
    again = QuantizedVectors.open(tmp_path / "codes")
    assert (again.precision, again.dimensions, len(again)) == (precision, 20, 200)
    np.testing.assert_array_equal(again.search(queries, 3)[0], codes.search(queries, 3)[0])
    np.save(tmp_path / "codes" / "scale.npy", np.ones(40, dtype=np.float32))
    with pytest.raises(CheckpointError, match="different shapes"):
        QuantizedVectors.open(tmp_path / "codes")
    (tmp_path / "codes" / "scale.npy").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="cannot read"):
        QuantizedVectors.open(tmp_path / "codes")


def test_few_and_no_vectors() -> None:
    codes = QuantizedVectors.of(np.eye(3, dtype=np.float32), "int8")
    assert codes.search(np.eye(3, dtype=np.float32), 10)[0].shape == (3, 3)
    assert codes.search(np.empty((0, 3), np.float32), 2)[0].shape == (0, 2)
    for precision in ("int8", "binary"):
        none = QuantizedVectors.of(np.empty((0, 3), dtype=np.float32), precision)
        assert none.search(np.ones((1, 3), np.float32), 2)[0].shape == (1, 0)


def test_what_cannot_be_coded_is_refused() -> None:
    with pytest.raises(InputError, match="not finite"):
        QuantizedVectors.of(np.array([[np.nan, 1]], dtype=np.float32), "int8")
    with pytest.raises(ConfigError, match="int8, binary"):
        QuantizedVectors.of(np.eye(2, dtype=np.float32), "int4")  # type: ignore[arg-type]
    codes = QuantizedVectors.of(np.eye(2, dtype=np.float32), "int8")
    with pytest.raises(InputError, match="queries of the shape"):
        codes.search(np.ones((1, 3), np.float32), 1)
    with pytest.raises(InputError, match="exact vectors"):
        codes.search(np.ones((1, 2), np.float32), 1, exact=np.eye(3, dtype=np.float32))


def test_neighbours_kept_by_hand() -> None:
    # In two dimensions 0 is nearest to 1; in the first alone, to 2.
    vectors = np.array([[1, 1], [0.5, 1], [1, -0.5], [-1, 0]], dtype=np.float32)
    kept = neighbours_kept(vectors, [1, 2], k=1)
    assert kept[2] == 1
    assert kept[1] < 1
