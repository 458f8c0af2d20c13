"""Random vectors that resemble sentence embeddings, and their exact nearest neighbours.

Points of unit length lie near a curved 64-dimensional manifold, plus a little noise. They form
topics of very different size and spread, with a common mean direction and a decaying spectrum.
Queries are new samples from the same topics with more noise, never copies of points.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["exact_neighbours", "load_mixture", "mixture", "recall"]

_BLOCK = 20_000  # points compared at once
_LATENT, _TOPICS, _GROUPS, _CURVED = 64, 2000, 60, 160


def mixture(
    rows: int, queries: int = 1000, dimension: int = 384, seed: int = 7
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sample points (rows, dimension) and queries (queries, dimension) of unit length."""
    rng = np.random.default_rng(seed)
    groups = rng.normal(size=(_GROUPS, _LATENT))
    topics = 0.8 * groups[rng.integers(0, _GROUPS, _TOPICS)]
    topics += 0.62 * rng.normal(size=(_TOPICS, _LATENT))
    spread = 0.62 * rng.gamma(4.0, 0.25, _TOPICS)
    share = np.arange(1, _TOPICS + 1) ** -0.8
    spectrum = 1.6 * np.arange(1, _LATENT + 1) ** -0.35
    bend = rng.normal(size=(_LATENT, _CURVED)) / np.sqrt(_LATENT)
    shift = 0.15 * rng.normal(size=_CURVED)
    curved = rng.normal(size=(_CURVED, dimension)) / np.sqrt(_CURVED)
    flat = 0.5 * rng.normal(size=(_LATENT, dimension)) / np.sqrt(_LATENT)
    mean = 0.12 * rng.normal(size=dimension)
    fall = np.arange(1, dimension + 1) ** -0.15

    def draw(count: int, noise: float) -> NDArray[np.float32]:
        drawn = np.empty((count, dimension), np.float32)
        for start in range(0, count, 50_000):
            size = min(50_000, count - start)
            topic = rng.choice(_TOPICS, size, p=share / share.sum())
            hidden = topics[topic] + spread[topic, None] * rng.normal(size=(size, _LATENT))
            hidden *= spectrum
            points = (np.tanh(hidden @ bend + shift) @ curved + hidden @ flat) * fall + mean
            points /= np.linalg.norm(points, axis=1, keepdims=True)
            points += noise * rng.normal(size=points.shape)
            points /= np.linalg.norm(points, axis=1, keepdims=True)
            drawn[start : start + size] = points
        return drawn

    return draw(rows, 0.016), draw(queries, 0.024)


def exact_neighbours(
    points: NDArray[np.float32], queries: NDArray[np.float32], k: int = 10
) -> NDArray[np.int64]:
    """Return the rows of the largest inner products (queries, k), nearest first."""
    best = np.full((len(queries), k), -np.inf, np.float32)
    found = np.full((len(queries), k), -1, np.int64)
    for start in range(0, len(points), _BLOCK):
        block = points[start : start + _BLOCK]
        scores = np.concatenate([best, queries @ block.T], axis=1)
        rows = np.arange(start - k, start + len(block))
        chosen = np.argpartition(-scores, k, axis=1)[:, :k]
        found = np.where(chosen < k, np.take_along_axis(found, chosen % k, 1), rows[chosen])
        best = np.take_along_axis(scores, chosen, 1)
    return np.take_along_axis(found, np.argsort(-best, axis=1), 1)


def recall(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Return the fraction of true neighbours that were found, over all queries."""
    hits = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), truth.tolist(), strict=True))
    return hits / truth.size


def load_mixture(scratch: Path, rows: int, dimension: int = 384) -> tuple[NDArray[np.float32], ...]:
    """Return points, queries and true neighbours, cached in `scratch`."""
    size = f"{rows}" if dimension == 384 else f"{rows}x{dimension}"
    names = [scratch / f"{what}-{size}.npy" for what in ("points", "queries", "truth")]
    if not names[2].exists():
        points, queries = mixture(rows, dimension=dimension)
        for name, array in zip(
            names, (points, queries, exact_neighbours(points, queries)), strict=True
        ):
            np.save(name, array)
    return tuple(np.load(name) for name in names)
