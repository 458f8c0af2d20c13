"""Find candidate terms: strings that recur in a corpus and are encoded as several tokens.

If general text is given, each candidate also gets the log-odds ratio of Monroe, Colaresi and Quinn
("Fightin' Words", 2008), which measures how typical of the domain it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from idiolect.vocabulary.audit.corpus_scan import CorpusScan, scan_corpus
from idiolect.vocabulary.audit.greedy_selection import CandidateOccurrences
from idiolect.vocabulary.audit.ngrams import UnitStream, mine_ngrams, split_units
from idiolect.vocabulary.forms import encode_forms
from idiolect.vocabulary.terms import RejectedTerm, Terms, rejection_reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.audit.corpus_scan import Integers
    from idiolect.vocabulary.audit.corpus_statistics import CorpusStatistics
    from idiolect.vocabulary.audit.ngrams import Floats, NgramLevel
    from idiolect.vocabulary.terms import TermSource

__all__ = ["Candidate", "CandidateSet", "find_candidates"]

_PRIOR = 0.01
"""Size of the Dirichlet prior of the log-odds, as a fraction of the words in both texts."""


@dataclass(frozen=True)
class Candidate:
    """A string that could become one token."""

    form: str
    """The string, including a leading space if there is one."""
    count: int
    """Occurrences in the corpus."""
    documents: int
    """Documents that contain it."""
    pieces: tuple[int, ...]
    """Ids that encode it now."""
    saved: int
    """Tokens saved in the corpus if only this string became one token."""
    log_odds: float | None
    """Log-odds ratio of corpus to general text; None without general text."""
    z: float | None
    """Log-odds ratio in standard deviations; above 2 it is significant."""
    pmi: float | None
    """Pointwise mutual information in bits at the weakest space of a phrase, otherwise None."""
    source: TermSource
    """`glossary` if the glossary lists it, otherwise `corpus`."""

    @property
    def weight(self) -> float:
        """Weight of a token it saves: the probability that a use of it is in-domain, 0 to 1."""
        return 1.0 if self.log_odds is None else float(1 / (1 + np.exp(-self.log_odds)))


@dataclass
class CandidateSet:
    """The candidates of a corpus and where they occur."""

    statistics: CorpusStatistics
    """Statistics of the corpus."""
    general: CorpusStatistics | None
    """Statistics of the general text, if one was given."""
    candidates: list[Candidate]
    """By weighted tokens saved, best first."""
    occurrences: CandidateOccurrences
    """Where each candidate occurs."""
    documents: Integers
    """Document number of each position in the unit stream."""
    scan: CorpusScan
    """The scanned corpus."""
    chunk_starts: Integers
    """As `UnitStream.chunk_starts`."""
    glossary: list[tuple[str, list[int]]]
    """Each glossary term with the indices of its candidates."""
    rejected: list[RejectedTerm]
    """Glossary terms that cannot or need not be added, with the reason."""


def find_candidates(
    tokenizer: Tokenizer,
    corpus: Iterable[str] | CorpusScan,
    general: Iterable[str] | CorpusScan | None,
    glossary: Sequence[str],
    min_documents: int | None,
) -> CandidateSet:
    """Find the candidates of a corpus; see `audit`."""
    return _CandidateFinder(tokenizer, corpus, min_documents).find(general, glossary)


class _CandidateFinder:
    """Collects candidates. They are numbered in the order of discovery and sorted at the end."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        corpus: Iterable[str] | CorpusScan,
        min_documents: int | None,
    ) -> None:
        self.tokenizer = tokenizer
        self.scan = _scanned(tokenizer, corpus)
        self.statistics = self.scan.statistics
        self.min_documents = min_documents or min(max(2, self.statistics.documents // 1000), 100)
        self.stream = UnitStream(self.scan)
        min_count = max(2, self.min_documents // self.stream.scale)
        self.ngrams = mine_ngrams(self.stream, min_count)
        self.unknown_id = None if tokenizer.kind == "byte-bpe" else tokenizer.unk_token_id
        self.forms: list[str] = []
        self.pieces: list[list[int]] = []
        self.pmi: list[float] = []
        self.numbers: dict[object, int] = {}
        """Candidate number by its pieces: forms with the same encoding share one token."""

    def find(
        self, general: Iterable[str] | CorpusScan | None, glossary: Sequence[str]
    ) -> CandidateSet:
        costs = self._unit_costs()
        tables = [self._add_level(level, costs) for level in self.ngrams.levels]
        glossary_candidates, rejected = self._add_glossary(glossary)
        found = [
            (table[level.labels], level.positions, level.positions + level.length)
            for level, table in zip(self.ngrams.levels, tables, strict=True)
        ]
        requested = sorted({number for _, numbers in glossary_candidates for number in numbers})
        found.append(
            _find_occurrences(self.stream, {number: self.forms[number] for number in requested})
        )
        occurrences = self._occurrences(found, costs)

        documents = np.cumsum(self.stream.numbers == 0, dtype=np.int32) - 1
        document_counts = _document_counts(occurrences, documents)
        frequent = document_counts * self.stream.scale >= self.min_documents
        frequent[requested] = True
        counts = np.diff(occurrences.offsets) * self.stream.scale
        saved = occurrences.savings() * self.stream.scale
        odds = None
        general_statistics = None
        if general is not None:
            general_scan = _scanned(self.tokenizer, general)
            general_statistics = general_scan.statistics
            general_counts = self._count_in(general_scan, tables, requested)
            odds = _log_odds(
                counts, self.statistics.words, general_counts, general_statistics.words
            )
        weights = np.ones(len(counts)) if odds is None else 1 / (1 + np.exp(-odds[0]))
        order = np.flatnonzero(frequent)
        order = order[np.argsort(-(saved * weights)[order], kind="stable")]
        rank = {int(number): i for i, number in enumerate(order)}
        return CandidateSet(
            statistics=self.statistics,
            general=general_statistics,
            candidates=[
                Candidate(
                    form=self.forms[number],
                    count=int(counts[number]),
                    documents=int(document_counts[number]) * self.stream.scale,
                    pieces=tuple(self.pieces[number]),
                    saved=int(saved[number]),
                    log_odds=None if odds is None else float(odds[0][number]),
                    z=None if odds is None else float(odds[1][number]),
                    pmi=self.pmi[number] if np.isfinite(self.pmi[number]) else None,
                    source="glossary" if number in set(requested) else "corpus",
                )
                for number in order
            ],
            occurrences=occurrences.reorder(order),
            documents=documents,
            scan=self.scan,
            chunk_starts=self.stream.chunk_starts,
            glossary=[(term, [rank[n] for n in numbers]) for term, numbers in glossary_candidates],
            rejected=rejected,
        )

    def _token_cost(self, form: str, ids: Sequence[int]) -> int:
        """Return the token cost of a form.

        A form with an unknown token costs one token per character, because its text is lost.
        """
        if self.unknown_id is not None and self.unknown_id in ids:
            return max(len(ids), len(form.strip()))
        return len(ids)

    def _unit_costs(self) -> Integers:
        """Return the token cost of each frequent unit, by rank."""
        ranked = np.flatnonzero(self.ngrams.ranks)
        units = [self.stream.units[unit] for unit in ranked]
        costs = [
            self._token_cost(unit, ids)
            for unit, ids in zip(units, encode_forms(self.tokenizer, units), strict=True)
        ]
        return np.array([1, *costs], np.int32)

    def _add(self, form: str, ids: list[int], pmi: float) -> int:
        """Add a candidate and return its number; forms with the same encoding share a number."""
        has_unknown = self.unknown_id is not None and self.unknown_id in ids
        key = form.strip() if has_unknown else tuple(ids)
        number = self.numbers.setdefault(key, len(self.forms))
        if number == len(self.forms):
            self.forms.append(form)
            self.pieces.append(ids)
            self.pmi.append(pmi)
        return number

    def _add_level(self, level: NgramLevel, costs: Integers) -> Integers:
        """Add the n-grams of a level that are several tokens.

        Returns:
            The candidate number of each n-gram, or -1.
        """
        table = np.full(len(level.keys), -1, np.int32)
        eligible = level.terms * self.stream.scale >= self.min_documents
        if level.length == 1:
            eligible &= costs > 1
        terms = np.flatnonzero(eligible)
        # Of several spellings with the same encoding, the most frequent names the candidate.
        terms = terms[np.argsort(-level.terms[terms], kind="stable")]
        forms = [self.stream.text_at(int(level.first[term]), level.length) for term in terms]
        for term, form, ids in zip(terms, forms, encode_forms(self.tokenizer, forms), strict=True):
            if self._token_cost(form, ids) > 1 and not rejection_reason(form.strip()):
                table[term] = self._add(form, ids, float(level.pmi[term]))
        return table

    def _add_glossary(
        self, glossary: Sequence[str]
    ) -> tuple[list[tuple[str, list[int]]], list[RejectedTerm]]:
        """Add the forms of the glossary terms as candidates.

        Returns:
            Each term with its candidate numbers, and the rejected terms.
        """
        terms = Terms.of(glossary)
        rejected = list(terms.rejected)
        forms = [form for term in terms for form in term.forms]
        encoded = dict(zip(forms, encode_forms(self.tokenizer, forms), strict=True))
        accepted = []
        for term in terms:
            split = [form for form in term.forms if self._token_cost(form, encoded[form]) > 1]
            if split:
                numbers = [self._add(form, encoded[form], np.inf) for form in split]
                accepted.append((term.text, list(dict.fromkeys(numbers))))
            else:
                rejected.append(RejectedTerm(term.text, "already one token"))
        return accepted, rejected

    def _occurrences(
        self, found: list[tuple[Integers, Integers, Integers]], costs: Integers
    ) -> CandidateOccurrences:
        """Sort occurrences by candidate and position, without duplicates."""
        candidates, begins, ends = (np.concatenate(parts) for parts in zip(*found, strict=True))
        known = candidates >= 0
        size = len(self.stream.numbers)
        keys = candidates[known].astype(np.int64) * size + begins[known]
        keys, first = np.unique(keys, return_index=True)
        bounds = np.arange(len(self.forms) + 1, dtype=np.int64) * size
        return CandidateOccurrences(
            costs=costs[self.ngrams.ranks[self.stream.numbers]],
            begins=begins[known][first],
            ends=ends[known][first],
            offsets=np.searchsorted(keys, bounds),
        )

    def _count_in(
        self, general: CorpusScan, tables: list[Integers], requested: list[int]
    ) -> Integers:
        """Count every candidate in general text."""
        stream = UnitStream(general, numbering=self.stream)
        counts = np.zeros(len(self.forms), np.int64)
        for table, terms in zip(tables, self.ngrams.count(stream), strict=True):
            np.add.at(counts, table[table >= 0], terms[table >= 0])
        # A glossary term that is rare in the corpus is not among the mined n-grams.
        rare = {n: self.forms[n] for n in requested if not counts[n]}
        np.add.at(counts, _find_occurrences(stream, rare)[0], 1)
        return counts * stream.scale


def _scanned(tokenizer: Tokenizer, corpus: Iterable[str] | CorpusScan) -> CorpusScan:
    return corpus if isinstance(corpus, CorpusScan) else scan_corpus(tokenizer, corpus)


def _log_odds(
    domain: Integers, domain_words: int, general: Integers, general_words: int
) -> tuple[Floats, Floats]:
    """Compute log-odds ratios with an informative Dirichlet prior, and their z-scores.

    The prior is proportional to the counts in both texts together.

    Args:
        domain: Counts in the domain text.
        domain_words: Words of the domain text.
        general: Counts in the general text.
        general_words: Words of the general text.
    """
    # In a text that writes no spaces, such as Chinese, a term may be more frequent than words are.
    domain_words = max(domain_words, 1 + int(domain.max(initial=0)))
    general_words = max(general_words, 1 + int(general.max(initial=0)))
    prior = _PRIOR * (domain + general + 0.5)
    prior_total = _PRIOR * (domain_words + general_words)
    domain_odds = np.log(domain + prior) - np.log(domain_words + prior_total - domain - prior)
    general_odds = np.log(general + prior) - np.log(general_words + prior_total - general - prior)
    ratio = domain_odds - general_odds
    return ratio, ratio / np.sqrt(1 / (domain + prior) + 1 / (general + prior))


def _document_counts(occurrences: CandidateOccurrences, documents: Integers) -> Integers:
    """Count the documents that contain each candidate."""
    at = documents[occurrences.begins]
    candidates = np.repeat(np.arange(len(occurrences.offsets) - 1), np.diff(occurrences.offsets))
    new = np.append(True, (at[1:] != at[:-1]) | (candidates[1:] != candidates[:-1]))[: len(at)]
    return np.bincount(candidates[new], minlength=len(occurrences.offsets) - 1)


def _find_occurrences(
    stream: UnitStream, forms: dict[int, str]
) -> tuple[Integers, Integers, Integers]:
    """Find where forms occur as whole words: candidate numbers, begins and ends."""
    found: list[tuple[int, Integers, int]] = []
    if forms:
        known = {unit: number for number, unit in enumerate(stream.units)}
        order = np.argsort(stream.numbers, kind="stable")
        ordered = stream.numbers[order]
    for number, form in forms.items():
        units = [known.get(unit, -1) for unit in split_units(form)]
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
