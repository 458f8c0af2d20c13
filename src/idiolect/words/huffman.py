"""Huffman codes of words for hierarchical softmax (Morin and Bengio 2005; Mikolov et al. 2013)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["HuffmanCodes"]


@dataclass(frozen=True)
class HuffmanCodes:
    """The paths of all words from the root, concatenated."""

    starts: NDArray[np.int64]
    """Start of each word's path. (words + 1,)."""
    nodes: NDArray[np.int32]
    """The inner nodes on the paths, 0 to words - 2; the root is words - 2."""
    bits: NDArray[np.uint8]
    """The branch taken at each node."""

    @classmethod
    def of(cls, counts: NDArray[Any]) -> HuffmanCodes:
        """Build the tree as word2vec.c does; with equal counts, an inner node is taken first.

        Args:
            counts: Counts in decreasing order. (words,).
        """
        words = len(counts)
        weights = [int(count) for count in counts]
        parents, turns = [0] * (2 * words - 1), [0] * (2 * words - 1)
        leaf, inner = words - 1, words
        for node in range(words, 2 * words - 1):
            weight = 0
            for turn in (0, 1):
                if leaf >= 0 and (inner >= node or weights[leaf] < weights[inner]):
                    child, leaf = leaf, leaf - 1
                else:
                    child, inner = inner, inner + 1
                weight += weights[child]
                parents[child], turns[child] = node, turn
            weights.append(weight)
        starts, nodes, bits = [0], [], []
        for word in range(words):
            path, node = [], word
            while node != 2 * words - 2:
                path.append((parents[node] - words, turns[node]))
                node = parents[node]
            for parent, turn in reversed(path):
                nodes.append(parent)
                bits.append(turn)
            starts.append(len(nodes))
        return cls(np.array(starts, np.int64), np.array(nodes, np.int32), np.array(bits, np.uint8))
