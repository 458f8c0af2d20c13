"""`audit`: how a tokenizer fares on a corpus, and which terms it breaks.

One pass counts every distinct stretch of text; candidate terms are what recurs among them, from
single words to phrases that cross the tokenizer's own borders.

>>> found = audit(tokenizer, Corpus("abstracts.jsonl"), general=Corpus("books/"))  # doctest: +SKIP
>>> found.choose(5000).save("terms.json")  # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from idiolect.errors import InputError
from idiolect.vocabulary.audit.candidates import Candidate, FoundCandidates, find_candidates
from idiolect.vocabulary.forms import see
from idiolect.vocabulary.terms import LeftOut, Term, Terms

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.audit.census import Statistics

__all__ = ["Audit", "Candidate", "TermGroup", "audit"]


@dataclass(frozen=True)
class TermGroup:
    """The spellings of one term: with and without a space, capital, plural."""

    term: str
    """The most frequent spelling, without space around it."""
    candidates: tuple[Candidate, ...]
    """Its spellings, the most useful first."""
    count: int
    documents: int
    saved: int


@dataclass
class Audit:
    """What a tokenizer does to a corpus, and the terms it breaks."""

    tokenizer: Tokenizer
    """The tokenizer that was audited."""
    _found: FoundCandidates = field(repr=False)

    @property
    def statistics(self) -> Statistics:
        """Of the corpus."""
        return self._found.statistics

    @property
    def general(self) -> Statistics | None:
        """Of the general text, if there was any."""
        return self._found.general

    @property
    def candidates(self) -> list[Candidate]:
        """Everything that could become one token, by weighted savings, the best first."""
        return self._found.candidates

    @property
    def left_out(self) -> list[LeftOut]:
        """Glossary lines that cannot be or need not be taught, with the reason."""
        return self._found.left_out

    def choose(self, rows: int, *, least: float | None = None, phrases: bool = True) -> Terms:
        """Choose the forms that save the most tokens, each against the cost of its row.

        Glossary terms come first, whatever they save. The others are taken one by one, always
        the one that saves the most beyond those taken before; a token saved counts by the
        candidate's weight.

        Args:
            rows: how many forms to choose at most: rows the embedding grows by.
            least: the (weighted) tokens a form must still save in the corpus to be worth a row.
                By default 2 a thousand documents, and at least 2.
            phrases: whether to choose terms that cross the borders of the pre-tokenizer too;
                merges and WordPiece entries cannot hold them.

        Raises:
            InputError: a budget or a least saving below 1.
        """
        if least is None:
            least = max(2.0, self.statistics.documents / 500)
        if rows < 1 or least < 1:
            raise InputError(
                f"a budget of {rows} rows and {least:g} tokens a row chooses nothing",
                hint="both must be at least 1",
            )
        left_out = list(self.left_out)
        forced: dict[int, str] = {}
        for term, numbers in self._found.asked:
            if len(forced) + len(set(numbers) - forced.keys()) > rows:
                left_out.append(LeftOut(term, f"no row left in a budget of {rows}"))
            else:
                forced.update(dict.fromkeys(numbers, term))
        weights = np.array([candidate.weight for candidate in self.candidates])
        if not phrases:
            seen = see(self.tokenizer, [candidate.form for candidate in self.candidates])
            weights[[cuts > 1 for _, cuts in seen]] = 0.0
        chosen: dict[str, Term] = {}
        for pick in self._found.occurrences.choose(weights, forced, rows, least):
            candidate = self.candidates[pick.candidate]
            text = forced.get(pick.candidate, candidate.form.strip())
            old = chosen.get(text, Term(text, (), candidate.source))
            forms = (*old.forms, candidate.form)
            chosen[text] = Term(text, forms, old.source, old.saved + pick.saved)
        return Terms(chosen.values(), left_out)

    @cached_property
    def groups(self) -> list[TermGroup]:
        """The candidates by term, spellings together, by what they save, the best first."""
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


def audit(
    tokenizer: Tokenizer,
    corpus: Iterable[str],
    general: Iterable[str] | None = None,
    glossary: Sequence[str] | None = None,
    *,
    min_documents: int | None = None,
) -> Audit:
    """Measure how a tokenizer fares on a corpus, and find the terms it breaks.

    Args:
        tokenizer: the tokenizer to be extended.
        corpus: documents of the domain.
        general: documents of no domain; terms are then weighted by how typical of the domain
            they are.
        glossary: terms that are to be learnt whatever their counts; see `read_glossary`.
        min_documents: documents a term of the corpus must occur in; by default one in a thousand,
            at least 2 and at most 100.

    Raises:
        InputError: the corpus holds no documents.
        ConfigError: the tokenizer's algorithm is unknown.
    """
    found = find_candidates(tokenizer, corpus, general, glossary or (), min_documents)
    return Audit(tokenizer, found)


def _singulars(word: str) -> Iterator[str]:
    if word.endswith("ies"):
        yield f"{word[:-3]}y"
    if word.endswith("es"):
        yield word[:-2]
    if word.endswith("s"):
        yield word[:-1]
