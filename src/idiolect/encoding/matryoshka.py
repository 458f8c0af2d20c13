"""Shorten vectors to their first dimensions, and measure the loss.

Matryoshka representation learning (Kusupati et al. 2022, 2205.13147) trains a model for several
widths at once. Vectors of other models can be shortened too. The loss is measured here without
qrels, as the share of nearest neighbours that are unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError

__all__ = [
    "VectorSample",
    "check_dimensions",
    "neighbours_kept",
    "shortened",
    "unit_length",
    "untrained_width_warning",
]

_NEIGHBOURS = 10
_SAMPLE = 512


@dataclass
class VectorSample:
    """Evenly spaced vectors at full width, to measure what a shorter width loses.

    Args:
        total: Number of all vectors.
    """

    total: int
    _parts: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, vectors: NDArray[np.float32], numbers: Sequence[int]) -> None:
        """Add those of `vectors` that belong to the sample; `numbers` are their indices."""
        step = -(-self.total // _SAMPLE)
        self._parts.append(vectors[[j for j, i in enumerate(numbers) if i % step == 0]])

    def warning(self, width: int) -> str | None:
        """Return `untrained_width_warning` for the sample, or None if it is empty."""
        if not self._parts:
            return None
        return untrained_width_warning(np.concatenate(self._parts), width)


def shortened(vectors: NDArray[np.float32], width: int, *, normalize: bool) -> NDArray[np.float32]:
    """Keep the first `width` dimensions; if `normalize` is true, normalize again."""
    if width == vectors.shape[1]:
        return vectors
    short = vectors[:, :width]
    return unit_length(short) if normalize else short


def unit_length(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale vectors to length one; zero vectors stay zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = vectors / np.maximum(lengths, np.float32(1e-12))
    return scaled


def neighbours_kept(
    vectors: NDArray[np.float32], dimensions: Iterable[int], *, k: int = _NEIGHBOURS
) -> dict[int, float]:
    """Measure the share of each vector's `k` nearest neighbours that fewer dimensions preserve.

    Args:
        vectors: Shape (n, full dimensions), n more than k + 1.
        dimensions: The widths to try.
        k: Number of neighbours, by cosine similarity.

    Returns:
        The share for each width.
    """
    full = _nearest(vectors, k)
    return {
        width: float(np.mean([len(set(a) & set(b)) / k for a, b in zip(full, short, strict=True)]))
        for width in dimensions
        for short in [_nearest(vectors[:, :width], k)]
    }


def untrained_width_warning(vectors: NDArray[np.float32], width: int) -> str:
    """Return a warning that a model was not trained for a width, with the loss at several widths.

    Args:
        vectors: A sample at full width. Shape: (n, full dimensions).
        width: The requested width.
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
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    nearest: list[list[int]] = np.argpartition(-similarity, k - 1, axis=1)[:, :k].tolist()
    return nearest


def check_dimensions(dimensions: int | None, whole: int) -> int:
    """Return how many of a vector's dimensions to use; `None` uses all.

    Raises:
        InputError: The vector has fewer.
    """
    if dimensions is None:
        return whole
    if not 1 <= dimensions <= whole:
        raise InputError(
            f"{dimensions} dimensions; the model has {whole}",
            hint=f"choose a number from 1 to {whole}",
        )
    return dimensions
