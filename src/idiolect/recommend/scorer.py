"""`ItemScorer`: the interface of every recommender; and popularity baselines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from idiolect.recommend.histories import Histories
from idiolect.recommend.largest_scores import largest_of_rows

__all__ = ["ItemScorer", "Popularity", "RecentPopularity", "VectorScorer", "hide_seen"]

_AT_ONCE = 256
"""Histories per batch of scores in memory."""


class ItemScorer(ABC):
    """Scores all items as the next one after a history."""

    name: ClassVar[str]
    """Its name on the command line and in tables."""

    @classmethod
    @abstractmethod
    def fit(cls, histories: Histories) -> Self:
        """Learn from the training events."""

    @abstractmethod
    def score(self, contexts: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Score all items. A higher score is better.

        Shape: result (contexts, items).

        Args:
            contexts: Item numbers of each history, oldest first; may be empty.
        """

    def best(
        self,
        contexts: Sequence[NDArray[np.int64]],
        top_k: int,
        order: NDArray[np.int64],
        *,
        exclude_seen: bool,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the items with the highest scores after each of many histories, best first.

        Shape: both results (contexts, min(top_k, items)), item numbers and scores. If fewer items
        can be recommended, they are padded with the number −1.

        Args:
            contexts: As in `score`.
            top_k: Number of items.
            order: Rank of each item for breaking ties. Shape: (items,).
            exclude_seen: Never recommend an item of the history.
        """
        found = []
        for start in range(0, len(contexts), _AT_ONCE):
            some = contexts[start : start + _AT_ONCE]
            scores = self.score(some)
            if exclude_seen:
                hide_seen(scores, some)
            found.append(largest_of_rows(scores, top_k, order))
        numbers, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return numbers, scores

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the learned parameters."""

    @classmethod
    @abstractmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Create a scorer from the result of `arrays`."""


class VectorScorer(ItemScorer):
    """Scores are inner products of a history's vector with the items' vectors.

    So an index of the items can be searched instead, with filters; see `Recommender.build_index`.
    """

    @abstractmethod
    def user_vectors(self, contexts: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Return a vector of each history; zero for an empty one. Shape: (contexts, width)."""

    @abstractmethod
    def item_vectors(self) -> NDArray[np.float32]:
        """Return a vector of each item. Shape: (items, width)."""

    def score(self, contexts: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Multiply the vectors of histories and items."""
        scores: NDArray[np.float32] = self.user_vectors(contexts) @ self.item_vectors().T
        return scores


class Popularity(ItemScorer):
    """The number of training events of each item, whatever the history."""

    name: ClassVar[str] = "popularity"

    def __init__(self, counts: NDArray[np.generic]) -> None:
        self.counts = counts.astype(np.float32)

    @classmethod
    def fit(cls, histories: Histories) -> Self:
        """Count the events of each item."""
        return cls(histories.counts)

    def score(self, contexts: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Score all items the same for every history."""
        return np.tile(self.counts, (len(contexts), 1))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the counts."""
        return {"counts": self.counts}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Create a scorer from the counts."""
        return cls(arrays["counts"])


class RecentPopularity(Popularity):
    """The number of events of each item in the last tenth of the training events."""

    name: ClassVar[str] = "popularity-recent"

    @classmethod
    def fit(cls, histories: Histories) -> Self:
        """Count the latest events; without times, the last events of each user."""
        if histories.times is not None:
            order = histories.times
        else:
            ends = histories.offsets[1:][histories.owners]
            order = (np.arange(len(histories.events)) - ends).astype(np.float64)
        recent = histories.events[order >= np.quantile(order, 0.9)]
        return cls(np.bincount(recent, minlength=len(histories.items)))


def hide_seen(scores: NDArray[np.float32], contexts: Sequence[NDArray[np.int64]]) -> None:
    """Set the scores of the items in each history to −∞, in place. Shape: (cases, items)."""
    for row, context in zip(scores, contexts, strict=True):
        row[context] = -np.inf
