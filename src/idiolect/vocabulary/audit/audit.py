"""`audit`: measure a tokenizer on a corpus, and find the terms it splits into many tokens.

Candidate terms are recurring words, codes and phrases, including phrases that the pre-tokenizer
always splits.

>>> report = audit(tokenizer, Corpus("abstracts.jsonl"), general=Corpus("books/"))  # doctest: +SKIP
>>> report.choose(5000).save("terms.json")  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from idiolect.errors import InputError
from idiolect.text.arguments import checked, list_of_texts, load_if_named
from idiolect.text.corpus import documents_of
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.audit.candidates import Candidate, CandidateSet, find_candidates
from idiolect.vocabulary.audit.term_choice import TermChoice
from idiolect.vocabulary.extend.entries import can_keep_phrases
from idiolect.vocabulary.extend.plan import choose_method
from idiolect.vocabulary.forms import pretokenize_forms
from idiolect.vocabulary.terms import RejectedTerm, Terms

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from idiolect.vocabulary.audit.corpus_scan import CorpusScan
    from idiolect.vocabulary.audit.corpus_statistics import CorpusStatistics

__all__ = ["Audit", "Candidate", "TermGroup", "audit", "audit_scans"]


@dataclass(frozen=True)
class TermGroup:
    """The spellings of one term: with and without a leading space, capitalized, plural."""

    term: str
    """The most frequent spelling, without surrounding space."""
    candidates: tuple[Candidate, ...]
    """Its spellings, most tokens saved first."""
    count: int
    """Occurrences of all spellings."""
    documents: int
    """Documents that contain any spelling."""
    saved: int
    """Tokens saved if each spelling were one token."""


@dataclass
class Audit:
    """Statistics of a tokenizer on a corpus, and the terms that could be added to it."""

    tokenizer: Tokenizer
    """The audited tokenizer."""
    _found: CandidateSet = field(repr=False)
    _general: Iterable[str] | None = field(repr=False)

    @property
    def statistics(self) -> CorpusStatistics:
        """Statistics of the corpus."""
        return self._found.statistics

    @property
    def general(self) -> CorpusStatistics | None:
        """Statistics of the general text, if one was given."""
        return self._found.general

    @property
    def candidates(self) -> list[Candidate]:
        """All strings that could become one token, by weighted tokens saved, best first."""
        return self._found.candidates

    @property
    def rejected(self) -> list[RejectedTerm]:
        """Glossary terms that cannot or need not be added, with the reason."""
        return self._found.rejected

    @checked
    def choose(
        self,
        max_rows: int,
        *,
        method: str | None = None,
        min_saving: float | None = None,
        phrases: bool = True,
    ) -> Terms:
        """Choose the forms that save the most tokens, among those that can be added.

        Glossary terms come first, regardless of their saving. Further forms are selected
        greedily by the tokens they save in addition to the forms selected before, weighted by
        `Candidate.weight`. The selection is planned as `extend` would add it, so every row exists,
        and `Terms.saved` is what `extend` measures on the same text.

        Args:
            max_rows: Maximum number of new ids, each of which adds a row to the embedding. With
                `merges`, this includes intermediate tokens.
            method: How the terms will be added; by default the first method that the kind of
                tokenizer supports. See `extend`, which uses the same one by default.
            min_saving: Minimum weighted tokens a form must save in the corpus to be selected.
                By default 2 per thousand documents, and at least 2.
            phrases: Whether to include terms that the pre-tokenizer splits. Merges and WordPiece
                entries cannot represent them.

        Raises:
            InputError: `max_rows` or `min_saving` is below 1, or the method is unknown.
            ConfigError: This kind of tokenizer cannot be extended.
        """
        if min_saving is None:
            min_saving = max(2.0, self.statistics.documents / 500)
        if max_rows < 1 or min_saving < 1:
            raise InputError(
                f"no term can be chosen with {max_rows} rows and a minimum saving of "
                f"{min_saving:g}",
                hint="both must be at least 1",
            )
        method = choose_method(self.tokenizer, method)
        rejected = list(self.rejected)
        forced: dict[int, str] = {}
        for term, numbers in self._found.glossary:
            if len(forced) + len(set(numbers) - forced.keys()) > max_rows:
                rejected.append(RejectedTerm(term, f"no row left in a budget of {max_rows}"))
            else:
                forced.update(dict.fromkeys(numbers, term))
        weights = np.array([candidate.weight for candidate in self.candidates])
        if not phrases or not can_keep_phrases(self.tokenizer, method):
            pretokenized = pretokenize_forms(
                self.tokenizer, [candidate.form for candidate in self.candidates]
            )
            weights[[count > 1 for _, count in pretokenized]] = 0.0
        choice = TermChoice(
            self.tokenizer, self._found, method, weights, max_rows, min_saving, self._general
        )
        chosen = choice.choose(forced)
        return Terms(chosen, [*rejected, *chosen.rejected], method)

    @cached_property
    def groups(self) -> list[TermGroup]:
        """The candidates grouped by term, most tokens saved first."""
        members: dict[str, list[int]] = {}
        for number, candidate in enumerate(self.candidates):
            members.setdefault(candidate.form.strip().casefold(), []).append(number)
        for key in sorted(members, key=len, reverse=True):
            singular = next((s for s in _singulars(key) if s in members), None)
            if singular:
                members[singular] += members.pop(key)
        groups = [self._group(numbers) for numbers in members.values()]
        return sorted(groups, key=lambda group: -group.saved)

    def _group(self, numbers: list[int]) -> TermGroup:
        candidates = sorted((self.candidates[n] for n in numbers), key=lambda c: -c.saved)
        offsets, begins = self._found.occurrences.offsets, self._found.occurrences.begins
        places = np.concatenate([begins[offsets[n] : offsets[n + 1]] for n in numbers])
        return TermGroup(
            max(candidates, key=lambda c: c.count).form.strip(),
            tuple(candidates),
            sum(c.count for c in candidates),
            len(np.unique(self._found.documents[places])),
            sum(c.saved for c in candidates),
        )


@checked
def audit(
    tokenizer: Tokenizer,
    corpus: Iterable[str],
    general: Iterable[str] | None = None,
    glossary: Sequence[str] | None = None,
    *,
    min_documents: int | None = None,
) -> Audit:
    """Measure a tokenizer on a corpus, and find the terms it splits into many tokens.

    Args:
        tokenizer: The tokenizer to be extended.
        corpus: Documents of the domain.
        general: Documents of general text. If given, each candidate is weighted by how typical
            of the domain it is.
        glossary: Terms to add regardless of their counts; see `read_glossary`.
        min_documents: Minimum number of documents that contain a candidate. By default one in a
            thousand, at least 2 and at most 100.

    Raises:
        InputError: The corpus has no documents.
        ConfigError: The tokenizer's algorithm is unknown.
    """
    tokenizer = load_if_named(tokenizer, Tokenizer, "tokenizer")
    corpus = documents_of(corpus, "corpus")
    general = None if general is None else documents_of(general, "general")
    glossary = list_of_texts(() if glossary is None else glossary, "glossary")
    found = find_candidates(tokenizer, corpus, general, glossary, min_documents)
    return Audit(tokenizer, found, None if isinstance(general, Iterator) else general)


def audit_scans(
    tokenizer: Tokenizer,
    corpus: CorpusScan,
    general: CorpusScan | None,
    glossary: Sequence[str],
    *,
    general_texts: Iterable[str] | None,
) -> Audit:
    """Audit a corpus that has already been scanned, for example in parts; see `audit`.

    Args:
        tokenizer: The tokenizer of the scans.
        corpus: The scan of the corpus.
        general: The scan of the general text.
        glossary: As in `audit`.
        general_texts: The documents of the general text, which `Audit.choose` reads again to choose
            the intermediate tokens of `merges`.
    """
    found = find_candidates(tokenizer, corpus, general, glossary, None)
    return Audit(tokenizer, found, general_texts)


def _singulars(word: str) -> Iterator[str]:
    if word.endswith("ies"):
        yield f"{word[:-3]}y"
    if word.endswith("es"):
        yield word[:-2]
    if word.endswith("s"):
        yield word[:-1]
