"""`DenseText`: similarity of text embeddings; it can recommend items without interactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError
from idiolect.recommend.histories import Histories
from idiolect.recommend.scorer import VectorScorer
from idiolect.recommend.scorers.co_occurrence import interaction_matrix

if TYPE_CHECKING:
    from idiolect.encoding.encoder import Encoder

__all__ = ["DenseText", "centred", "encode_items"]


class DenseText(VectorScorer):
    """Similarity of an item's vector to those of the history, with higher weights for late events.

    Args:
        vectors: A vector of each item, of length one, or zero for an item without text.
            Shape: (items, width).
    """

    name: ClassVar[str] = "text-dense"
    decay: ClassVar[float] = 0.6
    """Weight of an event relative to the one after it."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self.vectors = vectors

    @classmethod
    def fit(cls, histories: Histories) -> Self:
        """Raise an error: it is built from vectors."""
        raise InputError(
            "dense text similarity needs the items' texts and an encoder",
            hint="pass --items FILE --encoder DIR",
        )

    def user_vectors(self, contexts: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Return the weighted sum of each history's vectors."""
        history = interaction_matrix(contexts, len(self.vectors), self.decay)
        summed: NDArray[np.float32] = history @ self.vectors
        return summed

    def item_vectors(self) -> NDArray[np.float32]:
        """Return the vectors of the texts."""
        return self.vectors

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the vectors."""
        return {"vectors": self.vectors}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Create a scorer from the vectors."""
        return cls(arrays["vectors"].astype(np.float32))


def encode_items(texts: Sequence[str], encoder: Encoder | str | Path) -> NDArray[np.float32]:
    """Encode the items' texts. Shape: (items, width). An item without text has a zero vector.

    Args:
        texts: The text of each item, empty if there is none.
        encoder: The encoder, a directory that `Encoder.load` reads, or the id of a repository.

    Raises:
        InputError: No item has a text, or there is no such encoder.
    """
    from idiolect.encoding.encoder import Encoder

    filled = [number for number, text in enumerate(texts) if text.strip()]
    if not filled:
        raise InputError("no item has a text to encode", hint="pass --items FILE with texts")
    loaded = Encoder.load(encoder) if isinstance(encoder, str | Path) else encoder
    found = loaded.encode([texts[number] for number in filled], progress=True)
    vectors = np.zeros((len(texts), found.shape[1]), np.float32)
    vectors[filled] = found
    return centred(vectors)


def centred(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Subtract the mean of the items' vectors, and normalize each.

    Vectors of language models have a large common component, which makes all items similar. A zero
    vector (of an item without text) stays zero and is not part of the mean. Shape: (items, width).
    """
    filled = (vectors != 0).any(axis=1)
    moved = np.where(filled[:, None], vectors - vectors[filled].mean(0), 0)
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (moved / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return scaled
