"""`TextSimilarity`: TF-IDF similarity of texts; it can recommend items without interactions."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from idiolect.errors import InputError
from idiolect.recommend.histories import Histories
from idiolect.recommend.scorer import ItemScorer
from idiolect.recommend.scorers.co_occurrence import interaction_matrix

__all__ = ["TextSimilarity"]

_WORD = re.compile(r"[^\W_]+")


class TextSimilarity(ItemScorer):
    """Similarity of an item's text to those of the history, with higher weights for late events.

    Args:
        vectors: TF-IDF weights; each row has length one, or is zero for an item without text.
            Shape: (items, words).
    """

    name: ClassVar[str] = "text"
    decay: ClassVar[float] = 0.6
    """Weight of an event relative to the one after it."""

    def __init__(self, vectors: sparse.csr_matrix) -> None:
        self.vectors = vectors

    @classmethod
    def fit(cls, histories: Histories) -> Self:
        """Raise an error: it is built from texts."""
        raise InputError("text similarity needs the items' texts", hint="pass --items FILE")

    @classmethod
    def of_texts(cls, texts: Sequence[str]) -> Self:
        """Compute the TF-IDF weights of each item's text."""
        rows = [Counter(_WORD.findall(text.lower())) for text in texts]
        spread = Counter(word for row in rows for word in row)
        number = {word: i for i, word in enumerate(spread)}
        idf = {word: math.log((1 + len(rows)) / (1 + n)) + 1 for word, n in spread.items()}
        data, indices, indptr = [], [], [0]
        for row in rows:
            values = {word: (1 + math.log(n)) * idf[word] for word, n in row.items()}
            length = math.sqrt(sum(value * value for value in values.values())) or 1.0
            data += [value / length for value in values.values()]
            indices += [number[word] for word in values]
            indptr.append(len(data))
        parts = (np.array(data, np.float32), np.array(indices, np.int64), np.array(indptr))
        return cls(sparse.csr_matrix(parts, (len(rows), len(number))))

    def score(self, contexts: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Compare the weighted sum of the history's texts with all texts."""
        history = interaction_matrix(contexts, self.vectors.shape[0], self.decay)
        scores: NDArray[np.float32] = ((history @ self.vectors) @ self.vectors.T).toarray()
        return scores

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays of the sparse matrix."""
        shape = np.array(self.vectors.shape)
        names = ("data", "indices", "indptr")
        return {"shape": shape, **{name: getattr(self.vectors, name) for name in names}}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Create a scorer from the arrays of its matrix."""
        parts = (arrays["data"], arrays["indices"], arrays["indptr"])
        return cls(sparse.csr_matrix(parts, tuple(map(int, arrays["shape"]))))
