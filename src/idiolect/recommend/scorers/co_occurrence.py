"""Co-occurrence recommenders: strong baselines that are trained without gradient descent.

    transitions   which items follow an item, weighted by decreasing distance (Markov chain with
                  decay), or only directly after the last item (first order)
    item-knn      cosine of the user sets of two items (Sarwar et al. 2001)
    session-knn   items of the most similar histories, weighted by recency (V-SkNN, Ludewig &
                  Jannach 2018)
    ease          the linear item-to-item model in closed form (Steck 2019, 1905.03375)

The first three are sparse matrices between items; EASE is a dense one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack

from idiolect.errors import InputError
from idiolect.recommend.histories import Histories
from idiolect.recommend.largest_scores import largest_of_product
from idiolect.recommend.scorer import ItemScorer

__all__ = [
    "Ease",
    "FirstOrderTransitions",
    "ItemKnn",
    "SessionKnn",
    "Transitions",
    "interaction_matrix",
]

_ITEMS_AT_ONCE = 16_384
"""Items per block when neighbours are computed."""
_MAX_DENSE = 20_000
"""Maximum number of items for EASE, whose dense matrix has items² elements."""


def interaction_matrix(
    contexts: Sequence[NDArray[np.int64]], items: int, decay: float = 1.0
) -> sparse.csr_matrix:
    """Return the items of each history as a sparse matrix.

    Shape: (contexts, items).

    Args:
        contexts: Item numbers, oldest first.
        items: Number of items.
        decay: Weight of an event relative to the next one; only the last event of an item counts.
    """
    lengths = np.array([len(context) for context in contexts], np.int64)
    columns = np.concatenate([*contexts, np.zeros(0, np.int64)]).astype(np.int64)
    return _matrix(columns, lengths, items, decay)


def _matrix_of(histories: Histories) -> sparse.csr_matrix:
    """Return the items of each user as a sparse matrix. Shape: (users, items)."""
    return _matrix(histories.events, np.diff(histories.offsets), len(histories.items), 1.0)


def _matrix(
    columns: NDArray[np.int64], lengths: NDArray[np.int64], items: int, decay: float
) -> sparse.csr_matrix:
    rows = np.repeat(np.arange(len(lengths)), lengths)
    ages = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(len(columns))
    # The last event of an item is its first one in reverse order.
    _, last = np.unique((rows * items + columns)[::-1], return_index=True)
    kept = len(columns) - 1 - last
    weights = np.power(decay, ages[kept], dtype=np.float32)
    return sparse.csr_matrix(
        (weights, (rows[kept], columns[kept])), (len(lengths), items), dtype=np.float32
    )


class _ItemMatrix(ItemScorer):
    """Scores are sums of sparse matrix rows, one for each event of a history."""

    decay: ClassVar[float]
    """Weight of an event relative to the one after it."""

    def __init__(self, matrix: sparse.csr_matrix) -> None:
        self.matrix = matrix

    def score(self, contexts: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Sum the rows of the items in each history."""
        history = interaction_matrix(contexts, self.matrix.shape[0], self.decay)
        scores: NDArray[np.float32] = (history @ self.matrix).toarray()
        return scores

    def best(
        self,
        contexts: Sequence[NDArray[np.int64]],
        top_k: int,
        order: NDArray[np.int64],
        *,
        exclude_seen: bool,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the items with the highest scores, and fill up with the first items of `order`."""
        history = interaction_matrix(contexts, len(order), self.decay)
        hidden = history if exclude_seen else None
        numbers, scores = largest_of_product(
            history, self.matrix, top_k, order=order, hidden=hidden
        )
        first = np.argsort(order)
        for row in np.flatnonzero((numbers < 0).any(1)).tolist():
            taken = [numbers[row], contexts[row]] if exclude_seen else [numbers[row]]
            others = first[~np.isin(first, np.concatenate(taken))]
            places = np.flatnonzero(numbers[row] < 0)[: len(others)]
            numbers[row, places], scores[row, places] = others[: len(places)], 0
        return numbers, scores

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays of the sparse matrix."""
        names = ("data", "indices", "indptr")
        return {name: getattr(self.matrix, name) for name in names}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Create a scorer from the arrays of its matrix."""
        size = len(arrays["indptr"]) - 1
        parts = (arrays["data"], arrays["indices"], arrays["indptr"])
        return cls(sparse.csr_matrix(parts, (size, size)))


class Transitions(_ItemMatrix):
    """Transition weights between items: the sum of 1 / distance over pairs of events.

    In scoring, the events of a history are weighted by `decay`. A row is divided by the square root
    of its item's number of events, so that frequent items do not dominate.
    """

    name: ClassVar[str] = "transitions"
    decay: ClassVar[float] = 0.7
    reach: ClassVar[int] = 10
    """Maximum distance of two events."""

    @classmethod
    def fit(cls, histories: Histories) -> Self:
        """Count pairs of events by their distance."""
        size, events, owners = len(histories.items), histories.events, histories.owners
        total = sparse.csr_matrix((size, size), dtype=np.float32)
        for distance in range(1, min(cls.reach, len(events) - 1) + 1):
            same = owners[distance:] == owners[:-distance]
            pair = (events[:-distance][same], events[distance:][same])
            weight = np.full(len(pair[0]), 1 / distance, np.float32)
            total = total + sparse.csr_matrix((weight, pair), (size, size))
        scale = 1 / np.sqrt(np.maximum(1, histories.counts)).astype(np.float32)
        return cls(sparse.csr_matrix(sparse.diags_array(scale) @ total))


class FirstOrderTransitions(Transitions):
    """A first-order Markov chain: which items come directly after the last item."""

    name: ClassVar[str] = "transitions-first-order"
    decay: ClassVar[float] = 0.0
    reach: ClassVar[int] = 1


class ItemKnn(_ItemMatrix):
    """Cosine similarity of the user sets of two items, with the 200 nearest items of each."""

    name: ClassVar[str] = "item-knn"
    decay: ClassVar[float] = 0.9
    neighbours: ClassVar[int] = 200
    """Number of neighbours of each item."""
    shrinkage: ClassVar[float] = 10.0
    """Added to the product of lengths, so that rare items are not neighbours by chance."""

    @classmethod
    def fit(cls, histories: Histories) -> Self:
        """Compute cosines from the user-item matrix, one block of items at a time."""
        users = _matrix_of(histories)
        lengths = np.sqrt(np.asarray(users.sum(0)).ravel())
        items, own = sparse.csr_matrix(users.T), sparse.eye_array(users.shape[1], format="csr")
        blocks = []
        for start in range(0, items.shape[0], _ITEMS_AT_ONCE):
            part = slice(start, start + _ITEMS_AT_ONCE)
            numbers, values = largest_of_product(
                items[part],
                users,
                cls.neighbours,
                hidden=own[part],
                lengths=(lengths[part], lengths),
                shrinkage=cls.shrinkage,
                ranked=False,
            )
            blocks.append(_as_matrix(numbers, values, users.shape[1]))
        # Rows of the result are items of the history, columns are candidates.
        return cls(sparse.csr_matrix(sparse.vstack(blocks).T))


def _as_matrix(
    numbers: NDArray[np.int64], values: NDArray[np.float32], columns: int
) -> sparse.csr_matrix:
    """Create a sparse matrix from the column numbers and values of each row; −1 is skipped."""
    kept = numbers >= 0
    starts = np.concatenate([[0], np.cumsum(kept.sum(1))])
    return sparse.csr_matrix((values[kept], numbers[kept], starts), (len(numbers), columns))


class SessionKnn(ItemScorer):
    """Items of the 100 most similar training histories, weighted by similarity (V-SkNN)."""

    name: ClassVar[str] = "session-knn"
    neighbours: ClassVar[int] = 100
    """Number of neighbour histories."""

    def __init__(self, matrix: sparse.csr_matrix) -> None:
        self.matrix = matrix
        sizes = np.maximum(1, np.diff(matrix.indptr))
        scaled = sparse.diags_array(1 / np.sqrt(sizes).astype(np.float32)) @ matrix
        self._items = sparse.csr_matrix(scaled.T)

    @classmethod
    def fit(cls, histories: Histories) -> Self:
        """Store the training histories."""
        return cls(_matrix_of(histories))

    def score(self, contexts: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Find similar histories, with higher weights for recent items, and sum their items."""
        asked = interaction_matrix(contexts, self.matrix.shape[1], 0.8)
        near = largest_of_product(asked, self._items, self.neighbours, ranked=False)
        best = _as_matrix(*near, self.matrix.shape[0])
        # A rare item is more informative about the next item than a popular one.
        votes = np.asarray(self.matrix.sum(0)).ravel()
        idf = np.log((1 + self.matrix.shape[0]) / (1 + votes)).astype(np.float32)
        scores: NDArray[np.float32] = (best @ self.matrix).toarray() * idf
        return scores

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the histories."""
        width = np.array([self.matrix.shape[1]])
        return {"indices": self.matrix.indices, "indptr": self.matrix.indptr, "items": width}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Create a scorer from the histories."""
        shape = (len(arrays["indptr"]) - 1, int(arrays["items"][0]))
        ones = np.ones(len(arrays["indices"]), np.float32)
        return cls(sparse.csr_matrix((ones, arrays["indices"], arrays["indptr"]), shape))


class Ease(ItemScorer):
    """The linear model B = I − P / diag(P) with P = (XᵀX + λI)⁻¹, whose diagonal is zero."""

    name: ClassVar[str] = "ease"
    regularisation: ClassVar[float] = 250.0
    """λ, added to the diagonal of XᵀX."""

    def __init__(self, weights: NDArray[np.float32]) -> None:
        self.weights = weights

    @classmethod
    def fit(cls, histories: Histories) -> Self:
        """Invert the regularized co-occurrence matrix.

        Raises:
            InputError: There are too many items for a dense matrix.
        """
        size = len(histories.items)
        if size > _MAX_DENSE:
            raise InputError(
                f"EASE of {size:,} items needs {size * size * 4 / 2**30:.0f} GiB",
                hint=f"at most {_MAX_DENSE:,} items; use item-knn",
            )
        users = _matrix_of(histories)
        gram = (users.T @ users).toarray()
        gram[np.diag_indices(size)] += cls.regularisation
        return cls(_zero_diagonal_weights(_inverse(gram)))

    def score(self, contexts: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Multiply each history by the weights."""
        history = interaction_matrix(contexts, len(self.weights))
        return np.ascontiguousarray(history @ self.weights)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the weights."""
        return {"weights": self.weights}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Create a scorer from its weights."""
        return cls(arrays["weights"].astype(np.float32, copy=False))


def _inverse(gram: NDArray[np.float32]) -> NDArray[np.float32]:
    """Invert a positive definite matrix by its Cholesky factor: half the work of a general one."""
    factor, failed = lapack.spotrf(gram, lower=True, overwrite_a=True)
    half, failed_too = lapack.spotri(factor, lower=True, overwrite_c=True)
    if failed or failed_too:
        raise InputError("the matrix of EASE cannot be inverted", hint="use item-knn")
    lower = np.tril(half)
    return np.asarray(lower + np.tril(half, -1).T, np.float32)


def _zero_diagonal_weights(inverse: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide by minus the diagonal, column by column, and set the diagonal to zero."""
    weights: NDArray[np.float32] = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights
