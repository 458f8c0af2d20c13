"""Random numbers in compiled code: word2vec's generator, and an alias table to sample words.

word2vec.c samples noise words from a table of 1e8 entries (400 MB). An alias table (Walker 1977)
samples the exact distribution with 8 bytes per word, which fits into the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from idiolect.words.compiled import compiled

__all__ = ["alias_table", "next_random", "sample_word", "uniform"]

_MULTIPLIER, _INCREMENT = np.uint64(25214903917), np.uint64(11)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(16)
_SCALE = np.float32(1 / 65536)


@compiled(inline="always")
def next_random(state: Any) -> Any:
    """Return the next state of word2vec's linear congruential generator. uint64 to uint64."""
    return state * _MULTIPLIER + _INCREMENT


@compiled(inline="always")
def uniform(state: Any) -> Any:
    """Return a number in [0, 1) from a generator state, as word2vec.c does. float32."""
    return np.float32(np.int32(state & np.uint64(0xFFFF))) * _SCALE


@compiled(inline="always")
def sample_word(state: Any, thresholds: Any, aliases: Any) -> Any:
    """Return a word sampled from an alias table with one generator state. int64."""
    bits = state >> _SHIFT  # 48 bits; the generator's lowest bits are the least random
    column = np.int64(((bits & _LOW) * np.uint64(len(thresholds))) >> np.uint64(32))
    # Using the same bits twice would correlate with the column, so they are mixed first.
    mixed = (state ^ (state >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    if (mixed >> np.uint64(32)) < np.uint64(thresholds[column]):
        return column
    return np.int64(aliases[column])


def alias_table(weights: NDArray[Any]) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
    """Return the thresholds and aliases that sample words in proportion to their weights.

    Shape: weights (words,), both results (words,).
    """
    scaled = np.asarray(weights, np.float64) / np.sum(weights) * len(weights)
    aliases = np.arange(len(scaled), dtype=np.int32)
    small = np.flatnonzero(scaled < 1).tolist()
    large = np.flatnonzero(scaled >= 1).tolist()
    values = scaled.tolist()
    while small and large:
        low, high = small.pop(), large[-1]
        aliases[low] = high
        values[high] -= 1 - values[low]
        if values[high] < 1:
            small.append(large.pop())
    for left in (*small, *large):  # left over by rounding
        values[left] = 1.0
    thresholds = np.minimum(np.array(values) * 2**32, 2**32 - 1).astype(np.uint32)
    return thresholds, aliases
