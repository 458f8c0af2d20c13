"""Words, codes and phrases that recur: n-grams of *units*, counted level by level.

A unit is a run of letters, a run of digits or one symbol, each with the space before it: the
places where some tokenizer may cut. A term is then any n-gram of units that begins and ends
where a word does, so `HbA1c` (`HbA`, `1`, `c`), `XR-2000B` and `type 2 diabetes` are found the
same way as `diabetes`. An n-gram is frequent only if both (n-1)-grams in it are (Agrawal and
Srikant 1994), so each level looks only where the one before found something.

>>> cut_units("(type 2 XR-2000B)")
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

from idiolect.vocabulary.audit.census import START

if TYPE_CHECKING:
    from idiolect.vocabulary.audit.census import Census, Integers

__all__ = ["Booleans", "Floats", "Level", "Ngrams", "UnitStream", "cut_units", "mine"]

Booleans = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_UNIT = regex.compile(r" ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}\0]|\s+(?=\s)|[\s\0]")
_IS_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]$")
_JOINERS = frozenset("-‐‑'’./+&_@#·")
_WORD, _SPACED, _JOINER, _SIGN = 1, 2, 4, 8

_LONGEST = 8
"""The most units in a term."""
_COHESION = 0.4
"""The least normalised pointwise mutual information of two words side by side in a phrase: 0 for
words that meet by chance, 1 for words that never part. `of the` has 0.3, `type 2` twice that."""
_BUCKETS = 22
"""Bits of the hash by which pairs that are surely too rare are left out before sorting."""


def cut_units(text: str) -> list[str]:
    """Cut a text into units; joined they give the text."""
    return list(_UNIT.findall(text))


class UnitStream:
    """The documents of a census as a sequence of unit numbers.

    Args:
        census: the pass over the corpus.
        like: take the unit numbers of this stream; units it lacks get the number 0.
    """

    units: list[str]
    """Unit of each number; number 0 stands before every document and after the last."""
    numbers: Integers
    """The sequence, `int32`."""
    scale: int
    """The corpus holds about this many times what the sequence does."""
    starts: Booleans
    """Whether a word begins at each position of the sequence."""
    ends: Booleans
    """Whether a word ends there."""
    links: Booleans
    """Whether a term that holds the position may hold the next one too."""

    def __init__(self, census: Census, like: UnitStream | None = None) -> None:
        found = _UNIT.findall("\0".join(census.chunks))
        same = like.units if like else [START]
        known: dict[str, int] = defaultdict(count(len(same)).__next__, {"\0": -1})
        known |= {unit: number for number, unit in enumerate(same)}
        flat = np.fromiter(map(known.__getitem__, found), np.int32, len(found))
        self.units = list(known)[1:]
        # Chunk number c is flat[borders[c] + 1 : borders[c + 1]].
        borders = np.concatenate([[-1], np.flatnonzero(flat == -1), [len(flat)]])
        lengths = (np.diff(borders) - 1)[census.stream].astype(np.int32)
        shift = (borders[:-1] + 1)[census.stream] - (np.cumsum(lengths) - lengths)
        places = np.repeat(shift.astype(np.int32), lengths)
        places += np.arange(len(places), dtype=np.int32)
        self.numbers = np.append(flat[places], np.int32(0))
        self.scale = census.stride

        traits = np.fromiter(map(_traits, self.units), np.int8, len(self.units))[self.numbers]
        after = np.append(traits[1:], np.int8(0))
        word, spaced = (traits & _WORD) > 0, (traits & _SPACED) > 0
        next_word, next_spaced = (after & _WORD) > 0, (after & _SPACED) > 0
        self.starts = word & (spaced | ~np.append(False, word[:-1]))
        self.ends = word & ~(next_word & ~next_spaced)
        # ® and ™ also join what a space separates; a full stop or a hyphen does not.
        joins = ((traits & _JOINER) > 0) & next_word & (~next_spaced | ((traits & _SIGN) > 0))
        self.links = (word & (next_word | ((after & _JOINER) > 0))) | joins
        if like:
            self.units = like.units
            self.numbers[self.numbers >= len(like.units)] = 0

    def surface(self, position: int, length: int) -> str:
        """Text of the n-gram of `length` units at a position."""
        return "".join(map(self.units.__getitem__, self.numbers[position : position + length]))


@dataclass
class Level:
    """The frequent n-grams of one length; number 0 stands for none."""

    length: int
    keys: Integers
    """Number of the first n-1 units × base + number of the last one; ascending."""
    terms: Integers
    """How often each occurs as a term: begun and ended where a word is."""
    pmi: Floats
    """Pointwise mutual information in bits of the two words at its weakest space (Church and
    Hanks 1990); infinite where it has no space."""
    first: Integers
    """A position where it occurs."""
    positions: Integers
    """Where terms of this length occur, ascending."""
    labels: Integers
    """Which term occurs at each of the positions."""


@dataclass
class Ngrams:
    """The frequent n-grams of a stream."""

    levels: list[Level]
    """By length, from 1."""
    ranks: Integers
    """Number of each unit among the frequent ones, 0 for the others."""
    base: int
    """One more than the number of frequent units."""

    def count(self, stream: UnitStream) -> list[Integers]:
        """Count the same n-grams as terms of another stream with the same unit numbers.

        Returns:
            For each level the counts, as `Level.terms`.
        """
        ranks = self.ranks[stream.numbers]
        labels: Integers = ranks
        positions: Integers = np.flatnonzero(ranks).astype(np.int32)
        counts: list[Integers] = []
        for level in self.levels:
            if level.length > 1:
                positions, keys = _keys(stream, labels, positions, ranks, level.length, self.base)
                labels, positions = _label(level.keys, keys, positions, len(ranks))
            term = stream.starts[positions] & stream.ends[positions + (level.length - 1)]
            counts.append(np.bincount(labels[positions[term]], minlength=len(level.keys)))
        return counts


def mine(stream: UnitStream, floor: int) -> Ngrams:
    """Find the n-grams that occur at least `floor` times in the stream."""
    totals = np.bincount(stream.numbers, minlength=len(stream.units))
    frequent = totals >= floor
    frequent[0] = False
    ranks = np.where(frequent, np.cumsum(frequent), 0).astype(np.int32)
    base = int(frequent.sum()) + 1
    dense = ranks[stream.numbers]
    unit_counts = np.append(1, totals[frequent])
    spaced = np.append(
        False, [unit[:1] == " " for unit in np.array(stream.units, object)[frequent]]
    )

    levels: list[Level] = []
    labels: Integers = dense
    positions: Integers = np.flatnonzero((dense > 0) & (stream.links | stream.ends)).astype(
        np.int32
    )
    known: Integers = np.arange(base)
    pmi: Floats = np.full(base, np.inf)
    for length in range(1, _LONGEST + 1):
        if length > 1:
            before = labels
            positions, keys = _keys(stream, labels, positions, dense, length, base)
            if length == 2:
                bond = _Bond(unit_counts, spaced, int((stream.starts | stream.ends).sum()))
                least = np.maximum(bond.least(dense[positions], dense[positions + 1]), floor)
                possible = _crowded(keys, least)
                positions, keys = positions[possible], keys[possible]
            known, counts = _repeated(keys, floor)
            if length == 2:
                enough = counts >= bond.least(known // base, known % base)
                enough[0] = True
                known, counts = known[enough], counts[enough]
            labels, positions = _label(known, keys, positions, len(dense))
        if not len(positions):
            break
        numbers = labels[positions]
        first = np.zeros(len(known), np.int64)
        first[numbers] = positions
        if length == 2:
            pmi = bond.pmi(known // base, known % base, counts)
        elif length > 2:
            pmi = np.minimum(pmi[before[first]], pmi[before[first + 1]])
        term = stream.starts[positions] & stream.ends[positions + (length - 1)]
        terms = np.bincount(numbers[term], minlength=len(known))
        levels.append(Level(length, known, terms, pmi, first, positions[term], numbers[term]))
    return Ngrams(levels, ranks, base)


class _Bond:
    """How much oftener than by chance two units stand side by side."""

    def __init__(self, counts: Integers, spaced: Booleans, words: int) -> None:
        self.logs = np.log2(counts)
        self.spaced = spaced
        self.total = float(np.log2(max(words, 1)))

    def least(self, left: Integers, right: Integers) -> Floats:
        """Count from which on pairs are cohesive; 0 where no space separates the two."""
        # log(c·N / (l·r)) ≥ cohesion · log(N / c), solved for c
        chance = self.logs[left] + self.logs[right] - (1 - _COHESION) * self.total
        return np.where(self.spaced[right], np.exp2(chance / (1 + _COHESION)), 0.0)

    def pmi(self, left: Integers, right: Integers, counts: Integers) -> Floats:
        """Pointwise mutual information in bits; infinite where no space separates the two."""
        bits = np.log2(np.maximum(counts, 1)) + self.total - self.logs[left] - self.logs[right]
        return np.where(self.spaced[right], bits, np.inf)


def _keys(
    stream: UnitStream,
    labels: Integers,
    positions: Integers,
    ranks: Integers,
    length: int,
    base: int,
) -> tuple[Integers, Integers]:
    """Find where an n-gram may stand, and the key of each place.

    Both its (n-1)-grams must be known there, and its last two units linked. The last position of
    a stream holds a mark, never a unit, so every position has one after it.
    """
    possible = stream.links[positions + (length - 2)] & (labels[positions + 1] > 0)
    positions = positions[possible]
    keys = labels[positions].astype(np.int64) * base + ranks[positions + (length - 1)]
    return positions, keys


def _crowded(keys: Integers, least: Floats) -> Booleans:
    """Leave out keys that surely occur too rarely: hashed together with others even."""
    spread = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    buckets = (spread >> np.uint64(64 - _BUCKETS)).astype(np.int64)
    return np.bincount(buckets, minlength=1 << _BUCKETS)[buckets] >= least


def _repeated(keys: Integers, floor: int) -> tuple[Integers, Integers]:
    """List the keys that occur often enough, ascending, after one that never occurs; and counts."""
    ordered = np.sort(keys)
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
    counts = np.diff(np.append(starts, len(ordered)))
    kept = counts >= floor
    return np.append(-1, ordered[starts[kept]]), np.append(0, counts[kept])


def _label(
    known: Integers, keys: Integers, positions: Integers, size: int
) -> tuple[Integers, Integers]:
    """Write the number of each known key at its position; return that and the positions left."""
    numbers = np.searchsorted(known, keys).astype(np.int32)
    numbers[numbers == len(known)] = 0
    found = known[numbers] == keys
    labels = np.zeros(size, np.int32)
    labels[positions[found]] = numbers[found]
    return labels, positions[found]


def _traits(unit: str) -> int:
    spaced = _SPACED if unit[:1] == " " else 0
    if _IS_WORD.search(unit):
        return _WORD | spaced
    if unit in _JOINERS:
        return _JOINER
    return _JOINER | _SIGN if len(unit) == 1 and unicodedata.category(unit) == "So" else spaced
