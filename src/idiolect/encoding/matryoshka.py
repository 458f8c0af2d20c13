"""Fewer dimensions: the first ones of a vector, which some models were trained to make do with.

Matryoshka representation learning (Kusupati et al. 2022, 2205.13147) trains a model on several
widths at once. Any vector can be cut; what that costs a model that was not trained so is told here
without judgements, by how many of the nearest neighbours stay the same.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["neighbours_kept", "tell_untrained"]

_NEIGHBOURS = 10


def neighbours_kept(
    vectors: NDArray[np.float32], dimensions: Iterable[int], *, k: int = _NEIGHBOURS
) -> dict[int, float]:
    """Measure how many of each vector's `k` nearest by cosine are so with fewer dimensions as well.

    Args:
        vectors: Shape (n, full dimensions), n more than k + 1.
        dimensions: The widths to try.
        k: Neighbours to look at.

    Returns:
        The share that stays, for each width.
    """
    full = _nearest(vectors, k)
    return {
        width: float(np.mean([len(set(a) & set(b)) / k for a, b in zip(full, short, strict=True)]))
        for width in dimensions
        for short in [_nearest(vectors[:, :width], k)]
    }


def tell_untrained(vectors: NDArray[np.float32], width: int) -> str:
    """Word a warning that a model was not trained for a width, with the curve over others.

    Args:
        vectors: Some at full width. Shape: (n, full dimensions).
        width: The one that was asked for.
    """
    full = vectors.shape[1]
    text = f"the model was not trained for {width} of its {full} dimensions"
    if len(vectors) < 2 * _NEIGHBOURS:
        return text
    widths = sorted({width, *(full >> i for i in range(1, 5))} - {0})
    curve = neighbours_kept(vectors, widths, k=_NEIGHBOURS)
    points = ", ".join(f"{kept:.0%} with {one}" for one, kept in curve.items())
    return f"{text}; of {_NEIGHBOURS} nearest neighbours it keeps {points}"


def _nearest(vectors: NDArray[np.float32], k: int) -> list[list[int]]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(lengths > 0, lengths, 1)
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, -np.inf)
    nearest: list[list[int]] = np.argpartition(-likeness, k - 1, axis=1)[:, :k].tolist()
    return nearest
