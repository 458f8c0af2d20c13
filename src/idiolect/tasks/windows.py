"""Overlapping windows over a text that is longer than a network reads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import ConfigError

__all__ = ["most_context", "windows"]


def windows(count: int, size: int, stride: int) -> list[tuple[int, int]]:
    """Cover `count` tokens with windows of at most `size`.

    >>> windows(10, 6, 2)
    [(0, 6), (4, 10)]

    Args:
        count: Number of tokens.
        size: Tokens of a window.
        stride: Tokens that neighbouring windows share.

    Raises:
        ConfigError: Windows would share all their tokens.
    """
    if not 0 <= stride < size:
        raise ConfigError(
            f"windows of {size} tokens cannot share {stride}",
            hint="choose a smaller stride, or a larger max_length",
        )
    found, start = [(0, min(size, count))], 0
    while found[-1][1] < count:
        start += size - stride
        found.append((start, min(start + size, count)))
    return found


def most_context(found: list[tuple[int, int]], count: int) -> NDArray[np.int64]:
    """Return for each token the window in which it is farthest from the edges (Devlin et al. 2019).

    The ends of the text do not count as edges. Of equal windows, the first is chosen.

    >>> most_context([(0, 6), (4, 10)], 10).tolist()
    [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    """
    places = np.arange(count)
    context = np.full((len(found), count), -1, np.int64)
    for number, (start, end) in enumerate(found):
        before = places - start if start else np.full(count, count)
        after = end - 1 - places if end < count else np.full(count, count)
        inside = (places >= start) & (places < end)
        context[number, inside] = np.minimum(before, after)[inside]
    chosen: NDArray[np.int64] = context.argmax(0)
    return chosen
