"""Documents as words, their counts, and a file of word ids that every epoch reads.

A corpus is read three times: to fingerprint it, to count its words and to write their ids. After
that an epoch reads four bytes per word from a file, which allows millions of words per second.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError
from idiolect.text.files import flush
from idiolect.training.progress import show_progress

__all__ = [
    "WORD_PATTERN",
    "EncodedWords",
    "Splitter",
    "WordCounts",
    "count_words",
    "fingerprint",
    "split_words",
    "write_ids",
]

_MAX_SENTENCE = 1000
"""Maximum words of a sentence; longer documents are split, as in word2vec.c."""

WORD_PATTERN = r"\w+(?:[-'’.]\w+)*"
"""Regular expression of a word, also used by `word_model`."""

_WORD = re.compile(WORD_PATTERN)
_ROOM = 1 << 20
Splitter = Callable[[str], list[str]]
"""Splits a document into words."""


def split_words(document: str) -> list[str]:
    """Split a document into words in lower case, without punctuation.

    >>> split_words("The low-dose arm's p53, 0.5 mg.")
    ['the', 'low-dose', "arm's", 'p53', '0.5', 'mg']
    """
    return _WORD.findall(document.lower())


@dataclass(frozen=True)
class WordCounts:
    """The words of a vocabulary, by decreasing count."""

    words: list[str]
    counts: NDArray[np.int64]
    """Occurrences of each word. (words,)."""
    left_out: int
    """Occurrences of words that are rarer than the minimum count."""

    @classmethod
    def of(cls, counts: Mapping[str, int], min_count: int) -> WordCounts:
        """Keep the words that are frequent enough; equal counts are ordered alphabetically.

        Raises:
            InputError: No two words are frequent enough.
        """
        kept = sorted(
            ((word, count) for word, count in counts.items() if count >= min_count),
            key=lambda entry: (-entry[1], entry[0]),
        )
        if len(kept) < 2:
            found = f"{len(kept)} of {len(counts):,} different words"
            raise InputError(
                f"{found} occur at least {min_count} times, but vectors need at least two words",
                hint="lower min_count, or pass more text",
            )
        total = sum(counts.values())
        numbers = np.array([count for _, count in kept], np.int64)
        return cls([word for word, _ in kept], numbers, total - int(numbers.sum()))


@dataclass(frozen=True)
class EncodedWords:
    """The ids of a corpus on disk."""

    path: Path
    """The file of ids: the vocabulary words, sentence by sentence, four bytes each."""
    bounds: NDArray[np.int64]
    """Start of each sentence, and the end of the last. (sentences + 1,)."""

    @classmethod
    def open(cls, folder: Path) -> EncodedWords:
        """Open what `write_ids` wrote."""
        return cls(folder / "ids.i32", np.load(folder / "bounds.npy", allow_pickle=False))

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def read(self, first: int, last: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the ids of a range of sentences, and their bounds within these ids.

        The file is read, not mapped: pages of a mapped file would stay in memory.
        """
        bounds = self.bounds[first : last + 1]
        start, end = int(bounds[0]), int(bounds[-1])
        ids = np.fromfile(self.path, np.int32, end - start, offset=4 * start)
        return ids, bounds - start

    def jobs(self, words: int) -> list[tuple[int, int]]:
        """Split the sentences into ranges of about this many words: first and last sentence."""
        cuts = np.searchsorted(self.bounds, np.arange(0, self.bounds[-1], words))
        edges = np.unique(np.append(cuts, len(self.bounds) - 1))
        return [(int(a), int(b)) for a, b in itertools.pairwise(edges)]


def fingerprint(documents: Iterable[str]) -> str:
    """Return a hash of all documents in order; a run resumes only with the same text."""
    mark = hashlib.blake2b(digest_size=16)
    with show_progress("reading the corpus") as activity:
        for number, document in enumerate(documents, 1):
            data = document.encode("utf-8", "surrogatepass")
            mark.update(len(data).to_bytes(8, "little") + data)
            if number % 10_000 == 0:
                activity.update(number)
    return mark.hexdigest()


def count_words(documents: Iterable[str], split: Splitter = split_words) -> Counter[str]:
    """Count all words of a corpus."""
    counts: Counter[str] = Counter()
    with show_progress("counting words") as activity:
        read = 0
        for document in documents:
            words = split(document)
            counts.update(words)
            read += len(words)
            if read - activity.done > 200_000:
                activity.update(read)
    return counts


def write_ids(
    documents: Iterable[str], words: list[str], folder: Path, split: Splitter = split_words
) -> EncodedWords:
    """Write the ids of vocabulary words; other words are removed before windows are formed.

    Args:
        documents: The corpus.
        words: The vocabulary.
        folder: Output folder of `ids.i32` and `bounds.npy`.
        split: Splits a document into words.
    """
    places = {word: place for place, word in enumerate(words)}
    bounds = [0]
    with show_progress("encoding words") as activity, (folder / "ids.i32").open("wb") as file:
        for ids in _batches(documents, places, split, bounds):
            file.write(ids.tobytes())
            activity.update(bounds[-1])
    np.save(folder / "bounds.npy", np.array(bounds, np.int64), allow_pickle=False)
    for name in ("ids.i32", "bounds.npy"):
        flush(folder / name)
    return EncodedWords.open(folder)


def _batches(
    documents: Iterable[str], places: dict[str, int], split: Splitter, bounds: list[int]
) -> Iterator[NDArray[Any]]:
    held: list[int] = []
    end = 0
    for document in documents:
        ids = [places[word] for word in split(document) if word in places]
        held.extend(ids)
        for start in range(0, len(ids), _MAX_SENTENCE):
            end += min(_MAX_SENTENCE, len(ids) - start)
            bounds.append(end)
        if len(held) > _ROOM:
            yield np.array(held, np.int32)
            held = []
    yield np.array(held, np.int32)
