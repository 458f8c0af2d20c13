"""Mine frequent words, codes and phrases: n-grams of *units*, counted level by level.

A unit is a run of letters, a run of digits or one symbol, including a leading space. A term is an
n-gram of units that begins and ends at word boundaries. So `HbA1c` (`HbA`, `1`, `c`), `XR-2000B`
and `type 2 diabetes` are found in the same way as `diabetes`. An n-gram can only be frequent if
both of its (n-1)-grams are (Apriori, Agrawal and Srikant 1994), so each level only examines
positions that are frequent in the previous one.

>>> split_units("(type 2 XR-2000B)")
['(', 'type', ' 2', ' XR', '-', '2000', 'B', ')']
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import regex

from idiolect.vocabulary.audit.corpus_scan import DOCUMENT_START

if TYPE_CHECKING:
    from idiolect.vocabulary.audit.corpus_scan import CorpusScan, Integers

__all__ = [
    "Booleans",
    "Floats",
    "NgramLevel",
    "Ngrams",
    "UnitStream",
    "mine_ngrams",
    "split_units",
]

Booleans = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_UNIT = regex.compile(r" ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}\0]|\s+(?=\s)|[\s\0]")
_IS_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]$")
_JOINERS = frozenset("-‐‑'’./+&_@#·")
_WORD, _SPACED, _JOINER, _SYMBOL = 1, 2, 4, 8
"""Flags of a unit: letters or digits, leading space, joins two words, `®` or `™`-like symbol."""

_MAX_UNITS = 8
"""Maximum number of units in a term."""
_MIN_NPMI = 0.4
"""Minimum normalized pointwise mutual information of adjacent words in a phrase: 0 if they are
independent, 1 if they always occur together. `of the` has 0.3, `type 2` 0.6."""
_HASH_BITS = 22
"""Bits of the hash that filters out rare pairs before sorting."""


def split_units(text: str) -> list[str]:
    """Split a text into units. Their concatenation is the text."""
    return list(_UNIT.findall(text))


class UnitStream:
    """The documents of a corpus as a sequence of unit numbers.

    Args:
        scan: the scanned corpus.
        numbering: a stream to take the unit numbers from. Units that it lacks get the number 0.
    """

    units: list[str]
    """Unit of each number. Number 0 precedes every document and follows the last one."""
    numbers: Integers
    """The sequence, `int32`."""
    scale: int
    """The corpus is about this many times as long as the sequence."""
    starts: Booleans
    """Whether a word begins at each position."""
    ends: Booleans
    """Whether a word ends at each position."""
    links: Booleans
    """Whether a term may continue from each position to the next."""
    chunk_starts: Integers
    """Position of the first unit of each chunk of the scan's stream, `int32`."""

    def __init__(self, scan: CorpusScan, numbering: UnitStream | None = None) -> None:
        found = _UNIT.findall("\0".join(scan.chunks))
        first_units = numbering.units if numbering else [DOCUMENT_START]
        known: dict[str, int] = defaultdict(count(len(first_units)).__next__, {"\0": -1})
        known |= {unit: number for number, unit in enumerate(first_units)}
        flat = np.fromiter(map(known.__getitem__, found), np.int32, len(found))
        self.units = list(known)[1:]
        # Chunk number c is flat[boundaries[c] + 1 : boundaries[c + 1]].
        boundaries = np.concatenate([[-1], np.flatnonzero(flat == -1), [len(flat)]])
        lengths = (np.diff(boundaries) - 1)[scan.stream].astype(np.int32)
        self.chunk_starts = (np.cumsum(lengths) - lengths).astype(np.int32)
        shift = (boundaries[:-1] + 1)[scan.stream] - self.chunk_starts
        places = np.repeat(shift.astype(np.int32), lengths)
        places += np.arange(len(places), dtype=np.int32)
        self.numbers = np.append(flat[places], np.int32(0))
        self.scale = scan.stride

        flags = np.fromiter(map(_unit_flags, self.units), np.int8, len(self.units))[self.numbers]
        after = np.append(flags[1:], np.int8(0))
        word, spaced = (flags & _WORD) > 0, (flags & _SPACED) > 0
        next_word, next_spaced = (after & _WORD) > 0, (after & _SPACED) > 0
        self.starts = word & (spaced | ~np.append(False, word[:-1]))
        self.ends = word & ~(next_word & ~next_spaced)
        # ® and ™ also join words across a space; a full stop or a hyphen does not.
        joins = ((flags & _JOINER) > 0) & next_word & (~next_spaced | ((flags & _SYMBOL) > 0))
        self.links = (word & (next_word | ((after & _JOINER) > 0))) | joins
        if numbering:
            self.units = numbering.units
            self.numbers[self.numbers >= len(numbering.units)] = 0

    def text_at(self, position: int, length: int) -> str:
        """Return the text of the `length` units from a position."""
        return "".join(map(self.units.__getitem__, self.numbers[position : position + length]))


@dataclass
class NgramLevel:
    """The frequent n-grams of one length, numbered from 1; number 0 means none."""

    length: int
    keys: Integers
    """Number of the first n-1 units × base + number of the last unit; ascending."""
    terms: Integers
    """Number of occurrences as a term, between word boundaries."""
    pmi: Floats
    """Pointwise mutual information in bits of the words around the weakest space (Church and
    Hanks 1990); infinite without a space."""
    first: Integers
    """The position of one occurrence."""
    positions: Integers
    """Positions where terms of this length occur, ascending."""
    labels: Integers
    """Number of the term at each of the positions."""


@dataclass
class Ngrams:
    """The frequent n-grams of a stream."""

    levels: list[NgramLevel]
    """By length, from 1."""
    ranks: Integers
    """Rank of each unit among the frequent ones, from 1; 0 for the others."""
    base: int
    """One more than the number of frequent units."""

    def count(self, stream: UnitStream) -> list[Integers]:
        """Count the same n-grams in another stream with the same unit numbers.

        Returns:
            The counts of each level, as in `NgramLevel.terms`.
        """
        ranks = self.ranks[stream.numbers]
        labels: Integers = ranks
        positions: Integers = np.flatnonzero(ranks).astype(np.int32)
        counts: list[Integers] = []
        for level in self.levels:
            if level.length > 1:
                positions, keys = _candidate_keys(
                    stream, labels, positions, ranks, level.length, self.base
                )
                labels, positions = _assign_labels(level.keys, keys, positions, len(ranks))
            term = stream.starts[positions] & stream.ends[positions + (level.length - 1)]
            counts.append(np.bincount(labels[positions[term]], minlength=len(level.keys)))
        return counts


def mine_ngrams(stream: UnitStream, min_count: int) -> Ngrams:
    """Find the n-grams that occur at least `min_count` times in the stream."""
    totals = np.bincount(stream.numbers, minlength=len(stream.units))
    frequent = totals >= min_count
    frequent[0] = False
    ranks = np.where(frequent, np.cumsum(frequent), 0).astype(np.int32)
    base = int(frequent.sum()) + 1
    dense = ranks[stream.numbers]
    unit_counts = np.append(1, totals[frequent])
    spaced = np.append(
        False, [unit[:1] == " " for unit in np.array(stream.units, object)[frequent]]
    )

    levels: list[NgramLevel] = []
    labels: Integers = dense
    positions: Integers = np.flatnonzero((dense > 0) & (stream.links | stream.ends)).astype(
        np.int32
    )
    known: Integers = np.arange(base)
    pmi: Floats = np.full(base, np.inf)
    for length in range(1, _MAX_UNITS + 1):
        if length > 1:
            before = labels
            positions, keys = _candidate_keys(stream, labels, positions, dense, length, base)
            if length == 2:
                words = int((stream.starts | stream.ends).sum())
                association = _Association(unit_counts, spaced, words)
                cohesive = association.min_count(dense[positions], dense[positions + 1])
                possible = _may_be_frequent(keys, np.maximum(cohesive, min_count))
                positions, keys = positions[possible], keys[possible]
            known, counts = _frequent_keys(keys, min_count)
            if length == 2:
                enough = counts >= association.min_count(known // base, known % base)
                enough[0] = True
                known, counts = known[enough], counts[enough]
            labels, positions = _assign_labels(known, keys, positions, len(dense))
        if not len(positions):
            break
        numbers = labels[positions]
        first = np.zeros(len(known), np.int64)
        first[numbers] = positions
        if length == 2:
            pmi = association.pmi(known // base, known % base, counts)
        elif length > 2:
            pmi = np.minimum(pmi[before[first]], pmi[before[first + 1]])
        term = stream.starts[positions] & stream.ends[positions + (length - 1)]
        terms = np.bincount(numbers[term], minlength=len(known))
        levels.append(NgramLevel(length, known, terms, pmi, first, positions[term], numbers[term]))
    return Ngrams(levels, ranks, base)


class _Association:
    """Association of adjacent units, by normalized pointwise mutual information."""

    def __init__(self, counts: Integers, spaced: Booleans, words: int) -> None:
        self.logs = np.log2(counts)
        self.spaced = spaced
        self.total = float(np.log2(max(words, 1)))

    def min_count(self, left: Integers, right: Integers) -> Floats:
        """Return the smallest count of cohesive pairs; 0 without a space between the units."""
        # log(c·N / (l·r)) ≥ npmi · log(N / c), solved for c
        log_count = self.logs[left] + self.logs[right] - (1 - _MIN_NPMI) * self.total
        return np.where(self.spaced[right], np.exp2(log_count / (1 + _MIN_NPMI)), 0.0)

    def pmi(self, left: Integers, right: Integers, counts: Integers) -> Floats:
        """Return pointwise mutual information in bits; infinite without a space."""
        bits = np.log2(np.maximum(counts, 1)) + self.total - self.logs[left] - self.logs[right]
        return np.where(self.spaced[right], bits, np.inf)


def _candidate_keys(
    stream: UnitStream,
    labels: Integers,
    positions: Integers,
    ranks: Integers,
    length: int,
    base: int,
) -> tuple[Integers, Integers]:
    """Find positions where a frequent n-gram is possible, and the key of each.

    Both (n-1)-grams must be frequent there, and the last two units linked. The last position of a
    stream is a marker, not a unit, so every other position has a successor.
    """
    possible = stream.links[positions + (length - 2)] & (labels[positions + 1] > 0)
    positions = positions[possible]
    keys = labels[positions].astype(np.int64) * base + ranks[positions + (length - 1)]
    return positions, keys


def _may_be_frequent(keys: Integers, min_counts: Floats) -> Booleans:
    """Filter out rare keys: keys that share a hash bucket are together still too few."""
    spread = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    buckets = (spread >> np.uint64(64 - _HASH_BITS)).astype(np.int64)
    return np.bincount(buckets, minlength=1 << _HASH_BITS)[buckets] >= min_counts


def _frequent_keys(keys: Integers, min_count: int) -> tuple[Integers, Integers]:
    """Return the distinct frequent keys, ascending, and their counts; entry 0 is a placeholder."""
    ordered = np.sort(keys)
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
    counts = np.diff(np.append(starts, len(ordered)))
    kept = counts >= min_count
    return np.append(-1, ordered[starts[kept]]), np.append(0, counts[kept])


def _assign_labels(
    known: Integers, keys: Integers, positions: Integers, size: int
) -> tuple[Integers, Integers]:
    """Return the number of the known key at every position, and the positions that have one."""
    numbers = np.searchsorted(known, keys).astype(np.int32)
    numbers[numbers == len(known)] = 0
    found = known[numbers] == keys
    labels = np.zeros(size, np.int32)
    labels[positions[found]] = numbers[found]
    return labels, positions[found]


def _unit_flags(unit: str) -> int:
    spaced = _SPACED if unit[:1] == " " else 0
    if _IS_WORD.search(unit):
        return _WORD | spaced
    if unit in _JOINERS:
        return _JOINER
    return _JOINER | _SYMBOL if len(unit) == 1 and unicodedata.category(unit) == "So" else spaced
