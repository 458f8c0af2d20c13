"""`Als`: implicit alternating least squares (Hu, Koren & Volinsky 2008, ICDM).

Users and items have vectors. An interaction is a preference of 1 with the confidence 1 + α; all
other pairs have a preference of 0 with the confidence 1. A sweep solves for the vectors of all
users, then for those of all items:

    x = (YᵀY + α·Σ yᵢyᵢᵀ + λI)⁻¹ (1 + α)·Σ yᵢ      over the items i of the user

A history is treated as a new user, whose vector is computed in the same way (fold-in), so users
need not be known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from idiolect.recommend.histories import Histories
from idiolect.recommend.scorer import VectorScorer
from idiolect.recommend.scorers.co_occurrence import interaction_matrix

__all__ = ["Als"]

_AT_ONCE = 1024
"""Rows per block of linear systems."""


class Als(VectorScorer):
    """Vectors of items, and of a history as a new user.

    Args:
        items: Shape (items, factors).
    """

    name: ClassVar[str] = "als"
    factors: ClassVar[int] = 64
    confidence: ClassVar[float] = 20.0
    """α."""
    regularisation: ClassVar[float] = 5.0
    """λ."""
    sweeps: ClassVar[int] = 12

    def __init__(self, items: NDArray[np.float32]) -> None:
        self.items = items

    @classmethod
    def fit(cls, histories: Histories) -> Self:
        """Alternate between solving for users and for items."""
        users = interaction_matrix(histories.rows, len(histories.items))
        random = np.random.default_rng(0)
        items = (random.standard_normal((users.shape[1], cls.factors)) * 0.01).astype(np.float32)
        columns = users.T.tocsr()
        for _ in range(cls.sweeps):
            items = cls.solve(columns, cls.solve(users, items))
        return cls(items)

    @classmethod
    def solve(cls, events: sparse.csr_matrix, others: NDArray[np.float32]) -> NDArray[np.float32]:
        """Solve for the vectors of rows, given those of the columns.

        Shape: events (rows, columns), others (columns, factors), result (rows, factors).
        """
        width = others.shape[1]
        common = others.T @ others + np.float32(cls.regularisation) * np.eye(
            width, dtype=np.float32
        )
        solved = np.zeros((events.shape[0], width), np.float32)
        right = (1 + cls.confidence) * (events @ others)
        bounds = events.indptr
        for start in range(0, events.shape[0], _AT_ONCE):
            rows = range(start, min(start + _AT_ONCE, events.shape[0]))
            filled = [row for row in rows if bounds[row] < bounds[row + 1]]
            if not filled:
                continue
            left = np.empty((len(filled), width, width), np.float32)
            for place, row in enumerate(filled):
                own = others[events.indices[bounds[row] : bounds[row + 1]]]
                left[place] = common + np.float32(cls.confidence) * (own.T @ own)
            solved[filled] = np.linalg.solve(left, right[filled][:, :, None])[:, :, 0]
        return solved

    def user_vectors(self, contexts: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Solve for the vector of each history as a new user."""
        return self.solve(interaction_matrix(contexts, len(self.items)), self.items)

    def item_vectors(self) -> NDArray[np.float32]:
        """Return the vectors of the items."""
        return self.items

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the vectors of the items."""
        return {"items": self.items}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Create a scorer from the vectors of the items."""
        return cls(arrays["items"].astype(np.float32, copy=False))
