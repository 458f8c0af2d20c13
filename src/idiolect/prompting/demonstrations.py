"""Choose the few-shot examples of a prompt: random, nearest to the text, or diverse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from idiolect.encoding.encoder import Encoder
from idiolect.errors import ConfigError
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.training.seeds import derive_seed

__all__ = [
    "DemonstrationChoice",
    "Demonstrations",
    "DiverseDemonstrations",
    "FixedDemonstrations",
    "NearestDemonstrations",
    "RandomDemonstrations",
]

DemonstrationChoice = Literal["random", "nearest", "diverse"]
"""How few-shot examples are chosen."""


class Demonstrations(Protocol):
    """Chooses the few-shot examples of a prompt."""

    def choose(self, texts: Sequence[LabelledText]) -> list[tuple[LabelledText, ...]]:
        """Return the examples for each text, in their order in the prompt."""


class FixedDemonstrations:
    """The same examples for every text.

    Args:
        examples: The examples, in their order in the prompt; may be empty.
    """

    def __init__(self, examples: Sequence[LabelledText] = ()) -> None:
        self.examples = tuple(examples)

    def choose(self, texts: Sequence[LabelledText]) -> list[tuple[LabelledText, ...]]:
        """Return the examples once for each text."""
        return [self.examples] * len(texts)


class RandomDemonstrations(FixedDemonstrations):
    """Examples drawn from a pool, the same for every text.

    Args:
        pool: Solved examples.
        count: How many to draw.
        seed: Random seed of the choice and its order.

    Raises:
        ConfigError: The pool has fewer examples.
    """

    def __init__(self, pool: Sequence[LabelledText], count: int, *, seed: int = 0) -> None:
        _check(pool, count)
        chosen = np.random.default_rng(derive_seed(seed, count)).permutation(len(pool))[:count]
        super().__init__([pool[int(number)] for number in chosen])


class NearestDemonstrations:
    """The pool's examples nearest to each text, the nearest last (Liu et al. 2021, 2101.06804).

    Args:
        pool: Solved examples; one that equals the text itself is left out.
        count: How many to choose.
        encoder: Computes the vectors that are compared.

    Raises:
        ConfigError: The pool has fewer examples.
    """

    def __init__(self, pool: Sequence[LabelledText], count: int, *, encoder: Encoder) -> None:
        _check(pool, count)
        self.pool, self.count, self.encoder = list(pool), count, encoder
        self._vectors = _unit(encoder, pool)

    def choose(self, texts: Sequence[LabelledText]) -> list[tuple[LabelledText, ...]]:
        """Return the nearest examples of each text."""
        if not self.count or not texts:
            return [()] * len(texts)
        chosen = []
        vectors = _unit(self.encoder, texts)
        for text, row in zip(texts, vectors @ self._vectors.T, strict=True):
            order = np.argsort(-row, kind="stable")
            same = (text.text, text.text_pair)
            others = (self.pool[int(number)] for number in order)
            found = [one for one in others if (one.text, one.text_pair) != same][: self.count]
            chosen.append(tuple(reversed(found)))
        return chosen


class DiverseDemonstrations(FixedDemonstrations):
    """The example nearest to the centre of each cluster of the pool, the same for every text.

    The clusters are those of k-means (as for Auto-CoT, Zhang et al. 2022, 2210.03493).

    Args:
        pool: Solved examples.
        count: How many to choose: the number of clusters.
        encoder: Computes the vectors that are clustered.
        seed: Random seed of the clusters and of the order in the prompt.

    Raises:
        ConfigError: The pool has fewer examples.
    """

    def __init__(
        self, pool: Sequence[LabelledText], count: int, *, encoder: Encoder, seed: int = 0
    ) -> None:
        _check(pool, count)
        chosen: list[int] = []
        if count:
            random = np.random.default_rng(derive_seed(seed, count))
            chosen = random.permutation(_middles(_unit(encoder, pool), count, random)).tolist()
        super().__init__([pool[number] for number in chosen])


def _check(pool: Sequence[LabelledText], count: int) -> None:
    if not 0 <= count <= len(pool):
        raise ConfigError(
            f"{count} demonstrations from a pool of {len(pool)}", hint="lower num_fewshot"
        )
    if any(example.label is None for example in pool):
        raise ConfigError("an example of the pool has no label", hint="demonstrations are solved")


def _unit(encoder: Encoder, texts: Sequence[LabelledText]) -> NDArray[np.float32]:
    """Return unit vectors. (texts, dimensions)."""
    joined = [f"{one.text} {one.text_pair or ''}".strip() or " " for one in texts]
    vectors = encoder.encode(joined)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(lengths, 1e-12)
    return unit


def _middles(vectors: NDArray[np.float32], count: int, random: np.random.Generator) -> list[int]:
    """Return the rows nearest to the centres of `count` clusters, without duplicates."""
    centres = vectors[_spread(vectors, count, random)]
    for _ in range(50):
        owner = (vectors @ centres.T).argmax(1)
        sums = np.zeros_like(centres)
        np.add.at(sums, owner, vectors)
        moved = np.where(np.any(sums, axis=1, keepdims=True), sums, centres)
        moved /= np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
        if np.allclose(moved, centres, atol=1e-6):
            break
        centres = moved
    chosen: list[int] = []
    for similarity in centres @ vectors.T:
        similarity[chosen] = -np.inf
        chosen.append(int(similarity.argmax()))
    return chosen


def _spread(vectors: NDArray[np.float32], count: int, random: np.random.Generator) -> list[int]:
    """Draw initial centres that are far apart (k-means++, Arthur & Vassilvitskii 2007)."""
    chosen = [int(random.integers(len(vectors)))]
    while len(chosen) < count:
        distance = (1 - (vectors @ vectors[chosen].T).max(1)).clip(0).astype(np.float64)
        distance[chosen] = 0
        if not distance.sum():
            left = [number for number in range(len(vectors)) if number not in set(chosen)]
            chosen.append(int(random.choice(left)))
        else:
            chosen.append(int(random.choice(len(vectors), p=distance / distance.sum())))
    return chosen
