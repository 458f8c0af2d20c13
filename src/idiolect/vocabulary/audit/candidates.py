"""Finding candidates: what recurs in a corpus and is more than one token.

Where general text is given, each candidate also says how typical of the domain it is, by the
log-odds of Monroe, Colaresi and Quinn ("Fightin' Words", 2008).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from idiolect.vocabulary.audit.census import encode_forms, take_census
from idiolect.vocabulary.audit.choice import Occurrences
from idiolect.vocabulary.audit.ngrams import UnitStream, cut_units, mine
from idiolect.vocabulary.terms import LeftOut, Terms, objection

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.audit.census import Census, Integers, Statistics
    from idiolect.vocabulary.audit.ngrams import Floats, Level
    from idiolect.vocabulary.terms import TermSource

__all__ = ["Candidate", "FoundCandidates", "find_candidates"]

_PRIOR = 0.01
"""Words the Dirichlet prior of the log-odds counts for, as a share of the words in both texts."""


@dataclass(frozen=True)
class Candidate:
    """A stretch of text that could become one token."""

    form: str
    """The text, with the space before it if any."""
    count: int
    """Occurrences in the corpus."""
    documents: int
    """Documents it occurs in."""
    pieces: tuple[int, ...]
    """Ids it is made of now."""
    saved: int
    """Tokens the corpus would lose if this were one token and nothing else changed."""
    log_odds: float | None
    """Logarithm of the ratio of its odds in the corpus to those in general text."""
    z: float | None
    """The same in standard deviations; above 2 it is no accident."""
    pmi: float | None
    """For a phrase, bits of pointwise mutual information at its weakest space."""
    source: TermSource
    """`glossary` where the user named it, else `corpus`."""

    @property
    def weight(self) -> float:
        """What a token saved by it counts: the chance that a use of it is the domain's, 0 to 1."""
        return 1.0 if self.log_odds is None else float(1 / (1 + np.exp(-self.log_odds)))


@dataclass
class FoundCandidates:
    """Candidates, and what choosing among them takes."""

    statistics: Statistics
    """Of the corpus."""
    general: Statistics | None
    """Of the general text, if there was any."""
    candidates: list[Candidate]
    """By weighted savings, the best first."""
    occurrences: Occurrences
    """Where each candidate occurs."""
    documents: Integers
    """Document of each unit position."""
    asked: list[tuple[str, list[int]]]
    """For each glossary term its candidates."""
    left_out: list[LeftOut]
    """Glossary lines that cannot be or need not be taught, with the reason."""


def find_candidates(
    tokenizer: Tokenizer,
    corpus: Iterable[str],
    general: Iterable[str] | None,
    glossary: Sequence[str],
    min_documents: int | None,
) -> FoundCandidates:
    """Find the candidates of a corpus; see `audit`."""
    return _Finder(tokenizer, corpus, min_documents).finish(general, glossary)


class _Finder:
    """The steps: candidates are numbered as they are met, and put in order last."""

    def __init__(
        self, tokenizer: Tokenizer, corpus: Iterable[str], min_documents: int | None
    ) -> None:
        self.tokenizer = tokenizer
        census = take_census(tokenizer, corpus)
        self.statistics = census.statistics
        self.floor = min_documents or min(max(2, self.statistics.documents // 1000), 100)
        self.stream = UnitStream(census)
        self.ngrams = mine(self.stream, max(2, self.floor // self.stream.scale))
        self.unknown = None if tokenizer.kind == "byte-bpe" else tokenizer.unk_id
        self.forms: list[str] = []
        self.pieces: list[list[int]] = []
        self.pmi: list[float] = []
        self.numbers: dict[object, int] = {}
        """Candidate by its pieces: what is encoded alike can only become one token together."""

    def finish(self, general: Iterable[str] | None, glossary: Sequence[str]) -> FoundCandidates:
        costs = self._costs()
        tables = [self._candidates(level, costs) for level in self.ngrams.levels]
        asked, left_out = self._ask(glossary)
        found = [
            (table[level.labels], level.positions, level.positions + level.length)
            for level, table in zip(self.ngrams.levels, tables, strict=True)
        ]
        wanted = sorted({number for _, numbers in asked for number in numbers})
        found.append(_find(self.stream, {number: self.forms[number] for number in wanted}))
        occurrences = self._occurrences(found, costs)

        documents = np.cumsum(self.stream.numbers == 0, dtype=np.int32) - 1
        spread = _spread(occurrences, documents)
        frequent = spread * self.stream.scale >= self.floor
        frequent[wanted] = True
        counts = np.diff(occurrences.offsets) * self.stream.scale
        saved = occurrences.savings() * self.stream.scale
        odds = None
        beyond = None
        if general is not None:
            elsewhere = take_census(self.tokenizer, general)
            beyond = elsewhere.statistics
            there = self._count_in(elsewhere, tables, wanted)
            odds = _log_odds(counts, self.statistics.words, there, beyond.words)
        weights = np.ones(len(counts)) if odds is None else 1 / (1 + np.exp(-odds[0]))
        order = np.flatnonzero(frequent)
        order = order[np.argsort(-(saved * weights)[order], kind="stable")]
        place = {int(number): i for i, number in enumerate(order)}
        return FoundCandidates(
            statistics=self.statistics,
            general=beyond,
            candidates=[
                Candidate(
                    form=self.forms[number],
                    count=int(counts[number]),
                    documents=int(spread[number]) * self.stream.scale,
                    pieces=tuple(self.pieces[number]),
                    saved=int(saved[number]),
                    log_odds=None if odds is None else float(odds[0][number]),
                    z=None if odds is None else float(odds[1][number]),
                    pmi=self.pmi[number] if np.isfinite(self.pmi[number]) else None,
                    source="glossary" if number in set(wanted) else "corpus",
                )
                for number in order
            ],
            occurrences=occurrences.select(order),
            documents=documents,
            asked=[(term, [place[n] for n in numbers]) for term, numbers in asked],
            left_out=left_out,
        )

    def _cost(self, form: str, ids: Sequence[int]) -> int:
        """Tokens a form costs; what is unknown costs as if it were spelt, since it is lost."""
        if self.unknown is not None and self.unknown in ids:
            return max(len(ids), len(form.strip()))
        return len(ids)

    def _costs(self) -> Integers:
        """Tokens of each frequent unit, by rank."""
        ranked = np.flatnonzero(self.ngrams.ranks)
        units = [self.stream.units[unit] for unit in ranked]
        costs = [
            self._cost(unit, ids)
            for unit, ids in zip(units, encode_forms(self.tokenizer, units), strict=True)
        ]
        return np.array([1, *costs], np.int32)

    def _number(self, form: str, ids: list[int], pmi: float) -> int:
        """Number a candidate; forms that are encoded alike are one."""
        lost = self.unknown is not None and self.unknown in ids
        number = self.numbers.setdefault(form.strip() if lost else tuple(ids), len(self.forms))
        if number == len(self.forms):
            self.forms.append(form)
            self.pieces.append(ids)
            self.pmi.append(pmi)
        return number

    def _candidates(self, level: Level, costs: Integers) -> Integers:
        """Number the terms of a level that are not one token yet: candidate by term, or -1."""
        table = np.full(len(level.keys), -1, np.int32)
        worth = level.terms * self.stream.scale >= self.floor
        if level.length == 1:
            worth &= costs > 1
        terms = np.flatnonzero(worth)
        # The more frequent of two spellings that are encoded alike lends its name to both.
        terms = terms[np.argsort(-level.terms[terms], kind="stable")]
        forms = [self.stream.surface(int(level.first[term]), level.length) for term in terms]
        for term, form, ids in zip(terms, forms, encode_forms(self.tokenizer, forms), strict=True):
            if self._cost(form, ids) > 1 and not objection(form.strip()):
                table[term] = self._number(form, ids, float(level.pmi[term]))
        return table

    def _ask(self, glossary: Sequence[str]) -> tuple[list[tuple[str, list[int]]], list[LeftOut]]:
        """Number the forms of the glossary's terms, and say which need not or cannot be taught."""
        terms = Terms.of(glossary)
        left_out = list(terms.left_out)
        forms = [form for term in terms for form in term.forms]
        encoded = dict(zip(forms, encode_forms(self.tokenizer, forms), strict=True))
        asked = []
        for term in terms:
            broken = [form for form in term.forms if self._cost(form, encoded[form]) > 1]
            if broken:
                numbers = [self._number(form, encoded[form], np.inf) for form in broken]
                asked.append((term.text, list(dict.fromkeys(numbers))))
            else:
                left_out.append(LeftOut(term.text, "already one token"))
        return asked, left_out

    def _occurrences(
        self, found: list[tuple[Integers, Integers, Integers]], costs: Integers
    ) -> Occurrences:
        """Sort what was found by candidate and place, each place once."""
        candidates, begins, ends = (np.concatenate(parts) for parts in zip(*found, strict=True))
        known = candidates >= 0
        size = len(self.stream.numbers)
        keys = candidates[known].astype(np.int64) * size + begins[known]
        keys, first = np.unique(keys, return_index=True)
        bounds = np.arange(len(self.forms) + 1, dtype=np.int64) * size
        return Occurrences(
            costs=costs[self.ngrams.ranks[self.stream.numbers]],
            begins=begins[known][first],
            ends=ends[known][first],
            offsets=np.searchsorted(keys, bounds),
        )

    def _count_in(self, census: Census, tables: list[Integers], wanted: list[int]) -> Integers:
        """Count every candidate in general text."""
        stream = UnitStream(census, like=self.stream)
        counts = np.zeros(len(self.forms), np.int64)
        for table, terms in zip(tables, self.ngrams.count(stream), strict=True):
            np.add.at(counts, table[table >= 0], terms[table >= 0])
        rare = {n: self.forms[n] for n in wanted if not counts[n]}
        np.add.at(counts, _find(stream, rare)[0], 1)
        return counts * stream.scale


def _log_odds(here: Integers, n: int, there: Integers, m: int) -> tuple[Floats, Floats]:
    """Weighted log-odds with an informative Dirichlet prior, and the same over its deviation.

    Args:
        here: counts in a text of `n` words.
        n: words.
        there: counts in another text of `m` words.
        m: words. The prior is the distribution of both texts together.
    """
    prior = _PRIOR * (here + there + 0.5)
    everything = _PRIOR * (n + m)
    one = np.log(here + prior) - np.log(n + everything - here - prior)
    other = np.log(there + prior) - np.log(m + everything - there - prior)
    return one - other, (one - other) / np.sqrt(1 / (here + prior) + 1 / (there + prior))


def _spread(occurrences: Occurrences, documents: Integers) -> Integers:
    """Count the documents in which each candidate occurs."""
    at = documents[occurrences.begins]
    candidates = np.repeat(np.arange(len(occurrences.offsets) - 1), np.diff(occurrences.offsets))
    new = np.append(True, (at[1:] != at[:-1]) | (candidates[1:] != candidates[:-1]))[: len(at)]
    return np.bincount(candidates[new], minlength=len(occurrences.offsets) - 1)


def _find(stream: UnitStream, forms: dict[int, str]) -> tuple[Integers, Integers, Integers]:
    """Find where forms occur, begun and ended where words are: numbers, begins, ends."""
    found: list[tuple[int, Integers, int]] = []
    if forms:
        known = {unit: number for number, unit in enumerate(stream.units)}
        order = np.argsort(stream.numbers, kind="stable")
        ordered = stream.numbers[order]
    for number, form in forms.items():
        units = [known.get(unit, -1) for unit in cut_units(form)]
        if -1 in units:
            continue
        begins = order[slice(*np.searchsorted(ordered, [units[0], units[0] + 1]))]
        begins = begins[begins + len(units) < len(ordered)]
        for step, unit in enumerate(units[1:], 1):
            begins = begins[stream.numbers[begins + step] == unit]
        if form.strip()[0].isalnum():
            begins = begins[stream.starts[begins]]
        if form[-1].isalnum():
            begins = begins[stream.ends[begins + len(units) - 1]]
        found.append((number, begins, len(units)))
    numbers = np.repeat([number for number, _, _ in found], [len(b) for _, b, _ in found])
    begins = np.concatenate([np.zeros(0, np.int64), *(b for _, b, _ in found)])
    lengths = np.repeat([length for _, _, length in found], [len(b) for _, b, _ in found])
    return numbers.astype(np.int32), begins.astype(np.int32), (begins + lengths).astype(np.int32)
