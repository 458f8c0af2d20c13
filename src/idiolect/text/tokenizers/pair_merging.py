"""Merge frequent pairs in counted words: the core of BPE training, from any vocabulary.

Counts are exact after every merge. A merge changes only the words that contain its pair, which an
index finds. The heap of pairs is corrected lazily, when an entry comes to the top (Sennrich et al.
2016, arXiv:1508.07909). Among equal counts the pair of smaller ids comes first, as in the trainers
of the `tokenizers` library, so that merges can be compared.

>>> words = Words({(1, 2, 3): 5, (2, 3): 4})
>>> words.best(), words.merge((2, 3), 4), words.best()
(((2, 3), 9), None, ((1, 4), 5))
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["TokenPair", "Words", "learn_pieces"]

TokenPair = tuple[int, int]


class Words:
    """Words as lists of ids, each with a count; pairs of neighbouring ids can be merged."""

    uses: Counter[int]
    """Current number of occurrences of each id."""

    def __init__(self, counts: Mapping[tuple[int, ...], int]) -> None:
        self._words: list[Sequence[int]] = []
        self._counts: list[int] = []
        self._pairs: dict[TokenPair, int] = defaultdict(int)
        self._places: dict[TokenPair, set[int]] = defaultdict(set)
        self._refused: set[TokenPair] = set()
        self.uses = Counter()
        for word, count in counts.items():
            for id_ in word:
                self.uses[id_] += count
            if len(word) < 2:
                continue
            for pair in _neighbours(word):
                self._pairs[pair] += count
                self._places[pair].add(len(self._words))
            self._words.append(word)
            self._counts.append(count)
        self._heap = [(-count, pair) for pair, count in self._pairs.items()]
        heapq.heapify(self._heap)

    def best(self) -> tuple[TokenPair, int] | None:
        """Return the most frequent pair and its count; None if no pair is left."""
        while self._heap:
            known, pair = self._heap[0]
            count = 0 if pair in self._refused else self._pairs.get(pair, 0)
            if count == -known and count > 0:
                return pair, count
            if count > 0:
                heapq.heapreplace(self._heap, (-count, pair))
            else:
                heapq.heappop(self._heap)
        return None

    def refuse(self, pair: TokenPair) -> None:
        """Never return a pair from `best` again."""
        self._refused.add(pair)

    def merge(self, pair: TokenPair, into: int) -> None:
        """Replace a pair by one id everywhere, from left to right."""
        changed: set[TokenPair] = set()
        for place in self._places.pop(pair, ()):
            word, count = self._words[place], self._counts[place]
            merged = _replace(word, pair, into)
            gone = len(word) - len(merged)
            if not gone:
                continue
            for old in _neighbours(word):
                self._pairs[old] -= count
            for new in _neighbours(merged):
                self._pairs[new] += count
                if into in new:
                    self._places[new].add(place)
                    changed.add(new)
            for id_, lost in ((pair[0], gone), (pair[1], gone), (into, -gone)):
                self.uses[id_] -= lost * count
            self._words[place] = merged
        for new in changed:
            heapq.heappush(self._heap, (-self._pairs[new], new))
        self._pairs.pop(pair, None)


def learn_pieces(
    words: Words,
    vocab: Mapping[str, int],
    max_pieces: int,
    *,
    prefix: str = "",
    drop_unused: bool = False,
    progress: Callable[[int], None] = lambda learned: None,
) -> tuple[list[str], list[tuple[str, str]]]:
    """Merge the most frequent pairs until there are enough new pieces.

    A pair that would form an existing piece is not merged: the model encodes this text as two
    pieces, and older merges may use that piece.

    Args:
        words: merged in place; new ids begin after the largest of the vocabulary.
        vocab: the existing pieces and their ids.
        max_pieces: number of pieces to learn; fewer if no pairs are left.
        prefix: marks pieces that continue a word, such as `##`; the right part loses it.
        drop_unused: omit pieces that no longer occur, such as parts of a longer one, and learn
            others instead.
        progress: called from time to time with the number of learned pieces.

    Returns:
        The pieces, in the order learned, and the merged pairs.
    """
    names = {id_: token for token, id_ in vocab.items()}
    first = max(names, default=-1) + 1
    pieces: dict[str, int] = {}
    merges = []
    unused: set[int] = set()
    while len(pieces) - len(unused) < max_pieces and (found := words.best()) is not None:
        pair, _ = found
        left, right = names[pair[0]], names[pair[1]]
        piece = left + right.removeprefix(prefix)
        if piece in vocab:
            words.refuse(pair)
            continue
        id_ = pieces.setdefault(piece, first + len(pieces))
        names[id_] = piece
        words.merge(pair, id_)
        merges.append((left, right))
        if drop_unused:
            unused.discard(id_)
            unused.update(part for part in pair if part >= first and not words.uses[part])
        if len(merges) % 100 == 0:
            progress(len(pieces) - len(unused))
    progress(len(pieces) - len(unused))
    return [piece for piece, id_ in pieces.items() if id_ not in unused], merges


def _neighbours(word: Sequence[int]) -> Iterator[TokenPair]:
    return pairwise(word)


def _replace(word: Sequence[int], pair: TokenPair, into: int) -> list[int]:
    merged = []
    at, last = 0, len(word) - 1
    while at <= last:
        if at < last and word[at] == pair[0] and word[at + 1] == pair[1]:
            merged.append(into)
            at += 2
        else:
            merged.append(word[at])
            at += 1
    return merged
