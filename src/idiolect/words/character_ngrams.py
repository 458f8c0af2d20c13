"""Character n-grams of words, hashed to rows, as in fastText.

Bojanowski et al. 2017, "Enriching word vectors with subword information", arXiv 1607.04606. An
out-of-vocabulary word also has a vector: the mean of its n-grams' rows.

>>> NgramRows(3, 3, 100).ngrams("who")
['<wh', 'who', 'ho>']
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NgramRows"]


@dataclass(frozen=True)
class NgramRows:
    """Settings of n-grams, and how they are mapped to rows."""

    min_n: int
    max_n: int
    buckets: int

    def ngrams(self, word: str) -> list[str]:
        """Return the n-grams of a word between `<` and `>`, without lone brackets."""
        marked = f"<{word}>"
        return [
            marked[start : start + length]
            for start in range(len(marked))
            for length in range(self.min_n, self.max_n + 1)
            if start + length <= len(marked)
            and not (length == 1 and (start == 0 or start == len(marked) - 1))
        ]

    def hashes(self, word: str) -> list[int]:
        """Return the bucket of each n-gram: fastText's 32-bit FNV-1a of signed bytes."""
        found = []
        for ngram in self.ngrams(word):
            value = 2166136261
            for byte in ngram.encode("utf-8", "surrogatepass"):
                signed = byte | 0xFFFFFF00 if byte > 127 else byte
                value = ((value ^ signed) * 16777619) & 0xFFFFFFFF
            found.append(value % self.buckets)
        return found

    def parts_of(self, words: list[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the rows of all words (each one's own first), concatenated, and their starts."""
        parts: list[int] = []
        starts = [0]
        for row, word in enumerate(words):
            parts.append(row)
            parts.extend(len(words) + bucket for bucket in self.hashes(word))
            starts.append(len(parts))
        return np.array(parts, np.int32), np.array(starts, np.int64)

    def vector_of(self, word: str, table: NDArray[Any]) -> NDArray[np.float32] | None:
        """Return the mean of an unknown word's bucket rows; None without n-grams."""
        rows = self.hashes(word)
        return table[rows].mean(0, dtype=np.float32) if rows else None
