"""Phrases: join words that co-occur more often than by chance into one word.

Mikolov et al. 2013, arXiv 1310.4546. A pair (a, b) is joined as `a_b` if

    (count(a b) - min_count) / (count(a) · count(b)) · words > threshold

Each pass may join the results of the previous one, so two passes find phrases of up to four words.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from idiolect.training.progress import show_progress
from idiolect.words.word_stream import Splitter, split_words

__all__ = ["Phrases"]

_MAX_PAIRS = 20_000_000
"""Maximum distinct pairs in memory; beyond that the rarest are dropped, as in word2phrase."""


@dataclass(frozen=True)
class Phrases:
    """The joined pairs of each pass."""

    passes: list[set[tuple[str, str]]]

    @classmethod
    def learn(
        cls,
        documents: Iterable[str],
        *,
        passes: int = 1,
        min_count: int = 5,
        threshold: float = 100.0,
        split: Splitter = split_words,
    ) -> Phrases:
        """Learn phrases from a corpus, which is read once per pass."""
        found = cls([])
        for number in range(passes):
            words: Counter[str] = Counter()
            pairs: Counter[tuple[str, str]] = Counter()
            total, least = 0, 1
            with show_progress(f"finding phrases, pass {number + 1} of {passes}") as activity:
                for document in documents:
                    joined = found.join(split(document))
                    words.update(joined)
                    pairs.update(itertools.pairwise(joined))
                    total += len(joined)
                    if len(pairs) > _MAX_PAIRS:
                        least += 1
                        pairs = Counter({p: c for p, c in pairs.items() if c >= least})
                    if total - activity.done > 200_000:
                        activity.update(total)
            found.passes.append(
                {
                    (a, b)
                    for (a, b), count in pairs.items()
                    if (count - min_count) / (words[a] * words[b]) * total > threshold
                }
            )
        return found

    def join(self, words: list[str]) -> list[str]:
        """Join phrases from left to right, pass by pass."""
        for pairs in self.passes:
            joined: list[str] = []
            place = 0
            while place < len(words):
                if place + 1 < len(words) and (words[place], words[place + 1]) in pairs:
                    joined.append(f"{words[place]}_{words[place + 1]}")
                    place += 2
                else:
                    joined.append(words[place])
                    place += 1
            words = joined
        return words
