"""Test vectors, and the recall against an exact search."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def clusters(rows: int, dimension: int, seed: int = 0, *, lengths: float = 0.0) -> Floats:
    """Draw vectors in clusters of unequal size near a subspace, like embeddings.

    `lengths` is the standard deviation of the logarithm of their norms.
    """
    rng = np.random.default_rng(seed)
    hidden = min(dimension, 12)
    share = np.arange(1, 41) ** -0.8
    centres = np.random.default_rng(99).normal(size=(40, hidden))
    basis = np.random.default_rng(98).normal(size=(hidden, dimension)) / np.sqrt(hidden)
    topic = rng.choice(40, rows, p=share / share.sum())
    points = (centres[topic] + 0.6 * rng.normal(size=(rows, hidden))) @ basis
    points += 0.1 * rng.normal(size=points.shape)
    points *= np.exp(lengths * rng.normal(size=(rows, 1)))
    return points.astype(np.float32)


def scores_of(points: Floats, queries: Floats, metric: str) -> NDArray[np.float64]:
    """Return all scores (queries, points) by definition, in float64."""
    a, b = queries.astype(np.float64), points.astype(np.float64)
    if metric == "l2":
        return -((a[:, None] - b[None]) ** 2).sum(-1)
    if metric == "cosine":
        a = a / np.linalg.norm(a, axis=1, keepdims=True)
        b = b / np.linalg.norm(b, axis=1, keepdims=True)
    return a @ b.T


def recall(
    found: NDArray[np.int64],
    points: Floats,
    queries: Floats,
    metric: str,
    keep: NDArray[np.bool_] | None = None,
) -> float:
    """Return the recall; a row with the score of the last true neighbour counts, too."""
    scores = scores_of(points, queries, metric)
    if keep is not None:
        scores[:, ~keep] = -np.inf
    k = found.shape[1]
    last = np.sort(scores, axis=1)[:, -k][:, None]
    assert (found >= 0).all()
    assert all(len(set(row)) == k for row in found.tolist())
    reached = np.take_along_axis(scores, found, 1)
    return float((reached >= last - 1e-6 * np.abs(last)).mean())
