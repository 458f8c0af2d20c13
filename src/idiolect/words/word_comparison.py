"""Compare the neighbours of query words between models, by rank and word frequency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from idiolect.errors import InputError
from idiolect.words.word_vectors import WordVectors

__all__ = ["Agreement", "compare_neighbours"]

_RANKS = (1, 5, 50)
_BANDS = ((0, 100), (100, 1_000), (1_000, 10_000), (10_000, 10**9))


@dataclass(frozen=True)
class Agreement:
    """Share of nearest neighbours that two models have in common, for one frequency band."""

    first: str
    second: str
    band: str
    """Frequency ranks of the query words in the first model's vocabulary."""
    queries: int
    overlap: dict[int, float]
    """For each rank k, the mean share of the k nearest words in common."""


def compare_neighbours(
    models: Mapping[str, WordVectors], *, queries: int = 100, seed: int = 0
) -> tuple[list[Agreement], dict[str, dict[str, list[str]]]]:
    """Compare the neighbours of query words, sampled from frequency bands.

    Only words that all models have are used as queries and neighbours, so that a different
    vocabulary does not count as a difference.

    Args:
        models: Two models or more, by name.
        queries: Number of query words in each band.
        seed: Random seed of the query words.

    Returns:
        The agreement of each pair of models in each band, and the five nearest words of some query
        words in each model.

    Raises:
        InputError: The models share fewer than two words.
    """
    names = list(models)
    first = models[names[0]]
    shared = [word for word in first.words if all(word in one for one in models.values())]
    if len(shared) < 2:
        raise InputError("the models share fewer than two words", hint="compare related models")
    tables = {
        name: one.directions[[one.place(word) for word in shared]]  # type: ignore[index]
        for name, one in models.items()
    }
    generator = np.random.default_rng(seed)
    found: list[Agreement] = []
    examples: dict[str, dict[str, list[str]]] = {}
    for low, high in _BANDS:
        high = min(high, len(shared))
        if low >= high:
            continue
        drawn = np.sort(generator.choice(np.arange(low, high), min(queries, high - low), False))
        ranked = {}
        most = min(max(_RANKS), len(shared) - 1)
        for name, table in tables.items():
            scores = table[drawn] @ table.T
            scores[np.arange(len(drawn)), drawn] = -np.inf
            ranked[name] = np.argsort(-scores, 1, kind="stable")[:, :most]
        for query in range(min(3, len(drawn))):
            examples[shared[drawn[query]]] = {
                name: [shared[place] for place in ranked[name][query, :5]] for name in names
            }
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                overlap = {}
                for rank in (r for r in _RANKS if r <= most):
                    both = [
                        len(set(a[:rank]) & set(b[:rank])) / rank
                        for a, b in zip(ranked[one].tolist(), ranked[other].tolist(), strict=True)
                    ]
                    overlap[rank] = float(np.mean(both))
                band = f"{low + 1:,}-{high:,}"
                found.append(Agreement(one, other, band, len(drawn), overlap))
    return found, examples
