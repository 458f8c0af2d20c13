"""Vectors shaped like sentence embeddings, drawn from a seed, and their exact nearest neighbours.

Points lie near a curved manifold of some dozens of dimensions, in topics of very different sizes
and tightness, with a mean direction and a spectrum that falls off, plus a little noise, at unit
length. Queries are fresh draws from the same topics with more noise: never copies of points.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["exact_neighbours", "load_mixture", "mixture", "recall"]

_HIDDEN, _TOPICS, _GROUPS, _BENT = 64, 2000, 60, 160


def mixture(
    rows: int, queries: int = 1000, dimension: int = 384, seed: int = 7
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw points (rows, dimension) and queries (queries, dimension) of unit length."""
    random = np.random.default_rng(seed)
    groups = random.normal(size=(_GROUPS, _HIDDEN))
    topics = 0.8 * groups[random.integers(0, _GROUPS, _TOPICS)]
    topics += 0.62 * random.normal(size=(_TOPICS, _HIDDEN))
    spread = 0.62 * random.gamma(4.0, 0.25, _TOPICS)
    share = np.arange(1, _TOPICS + 1) ** -0.8
    spectrum = 1.6 * np.arange(1, _HIDDEN + 1) ** -0.35
    bend = random.normal(size=(_HIDDEN, _BENT)) / np.sqrt(_HIDDEN)
    shift = 0.15 * random.normal(size=_BENT)
    curved = random.normal(size=(_BENT, dimension)) / np.sqrt(_BENT)
    flat = 0.5 * random.normal(size=(_HIDDEN, dimension)) / np.sqrt(_HIDDEN)
    mean = 0.12 * random.normal(size=dimension)
    fall = np.arange(1, dimension + 1) ** -0.15

    def draw(count: int, noise: float) -> NDArray[np.float32]:
        drawn = np.empty((count, dimension), np.float32)
        for start in range(0, count, 50_000):
            size = min(50_000, count - start)
            topic = random.choice(_TOPICS, size, p=share / share.sum())
            hidden = topics[topic] + spread[topic, None] * random.normal(size=(size, _HIDDEN))
            hidden *= spectrum
            points = (np.tanh(hidden @ bend + shift) @ curved + hidden @ flat) * fall + mean
            points /= np.linalg.norm(points, axis=1, keepdims=True)
            points += noise * random.normal(size=points.shape)
            points /= np.linalg.norm(points, axis=1, keepdims=True)
            drawn[start : start + size] = points
        return drawn

    return draw(rows, 0.016), draw(queries, 0.024)


def exact_neighbours(
    points: NDArray[np.float32], queries: NDArray[np.float32], k: int = 10
) -> NDArray[np.int64]:
    """Return the rows of the largest inner products (queries, k), nearest first."""
    found = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), 100):
        scores = queries[start : start + 100] @ points.T
        best = np.argpartition(-scores, k, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
        found[start : start + 100] = np.take_along_axis(best, order, 1)
    return found


def recall(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Return the share of true neighbours that were found, over all queries."""
    hits = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), truth.tolist(), strict=True))
    return hits / truth.size


def load_mixture(scratch: Path, rows: int) -> tuple[NDArray[np.float32], ...]:
    """Return points, queries and true neighbours; drawn once and kept in `scratch`."""
    names = [scratch / f"{what}-{rows}.npy" for what in ("points", "queries", "truth")]
    if not names[2].exists():
        points, queries = mixture(rows)
        for name, array in zip(
            names, (points, queries, exact_neighbours(points, queries)), strict=True
        ):
            np.save(name, array)
    return tuple(np.load(name) for name in names)
