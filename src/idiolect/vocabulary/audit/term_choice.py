"""Choose terms that can be added, and measure what they save.

The candidates that save the most tokens are selected and planned as `extend` would add them. Those
that cannot be added are replaced by others, until the budget of rows is spent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from idiolect.vocabulary.audit.measured_uses import chunk_runs, measure_uses
from idiolect.vocabulary.extend.plan import plan_extension
from idiolect.vocabulary.forms import prepare_forms
from idiolect.vocabulary.terms import RejectedTerm, Term, Terms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.audit.candidates import CandidateSet
    from idiolect.vocabulary.audit.ngrams import Floats
    from idiolect.vocabulary.extend.plan import ExtensionPlan

__all__ = ["TermChoice"]

_MAX_ROUNDS = 12
"""Maximum number of selection rounds; each excludes the candidates that failed in earlier ones."""


@dataclass(frozen=True)
class TermChoice:
    """The settings of a choice."""

    tokenizer: Tokenizer
    found: CandidateSet
    method: str
    weights: Floats
    """Weight of a token saved by each candidate, 0 to 1; 0 for one that must not be chosen."""
    max_rows: int
    min_saving: float
    general: Iterable[str] | None
    """As in `plan_extension`."""

    def choose(self, forced: Mapping[int, str]) -> Terms:
        """Choose terms.

        Args:
            forced: candidate numbers to choose first, each with the glossary term it is a form of.

        Returns:
            The terms, with the tokens that they save together, and the forced ones that cannot be
            added.
        """
        weights = self.weights.copy()
        required = dict(forced)
        rejected: list[RejectedTerm] = []
        for attempt in range(_MAX_ROUNDS):
            picks = [
                one.candidate
                for one in self.found.occurrences.select(
                    weights, required, self.max_rows, self.min_saving
                )
            ]
            plan, reasons = self._plan(picks)
            saved, unused = self._measure(plan, picks)
            added = {form.text for form in plan.forms}
            by_text = {self.found.candidates[number].form: number for number in picks}
            failed = {by_text[t]: reason for t, reason in reasons.items() if t in by_text}
            failed |= {
                by_text[text]: "occurs in text that changes beyond the terms" for text in unused
            }
            full = len(plan.draft.added) >= self.max_rows and not unused
            if not failed or full or attempt == _MAX_ROUNDS - 1:
                break
            weights[list(failed)] = 0.0
            for number in failed.keys() & required.keys():
                rejected.append(RejectedTerm(required.pop(number), failed[number]))
        rejected += [
            RejectedTerm(required[n], reason) for n, reason in failed.items() if n in required
        ]
        return Terms(self._terms(picks, required, added, saved), rejected, self.method)

    def _plan(self, picks: list[int]) -> tuple[ExtensionPlan, dict[str, str]]:
        candidates = [self.found.candidates[number] for number in picks]
        terms = Terms(Term(one.form.strip(), (one.form,)) for one in candidates)
        forms, refused, _ = prepare_forms(self.tokenizer, terms)
        plan = plan_extension(
            self.tokenizer, forms, self.method, general=self.general, max_rows=self.max_rows
        )
        reasons = {form.text: form.reason for form in (*refused, *plan.refused)}
        planned = {form.text for form in plan.forms}
        same = {f: "identical to another form" for t in terms for f in t.forms if f not in planned}
        return plan, same | reasons

    def _measure(self, plan: ExtensionPlan, picks: list[int]) -> tuple[dict[str, int], set[str]]:
        """Return the tokens saved by each form, and the forms that change other text."""
        occurrences = self.found.occurrences
        places = np.concatenate(
            [
                np.zeros(0, np.int64),
                *(np.arange(*occurrences.offsets[[number, number + 1]]) for number in picks),
            ]
        )
        # Where any white space counts as one space, a phrase may contain a line break.
        collapses = self.tokenizer.encode("a \n b") == self.tokenizer.encode("a b")
        texts, counts = chunk_runs(
            self.found.scan,
            self.found.chunk_starts,
            occurrences.begins[places],
            occurrences.ends[places],
            whole=collapses or not self.found.scan.additive,
        )
        added = plan.draft.added
        uses, causes = measure_uses(self.tokenizer, plan.draft, texts, counts)
        saved: dict[str, int] = {}
        spans = {token.pieces: token.text for token in added if token.kind != "part"}
        for token, count in zip(added, uses.tolist(), strict=True):
            text = token.text
            if token.kind == "part":  # a use of it saves tokens, thanks to the term it is for
                text = next(t for p, t in spans.items() if _contains(p, token.pieces))
            tokens = count * (len(token.pieces) - 1) * self.found.scan.stride
            saved[text] = saved.get(text, 0) + tokens
        return saved, {token.text for token in added if token.id in causes}

    def _terms(
        self, picks: list[int], forced: Mapping[int, str], added: set[str], saved: Mapping[str, int]
    ) -> list[Term]:
        chosen: dict[str, Term] = {}
        for number in picks:
            candidate = self.found.candidates[number]
            if candidate.form not in added:
                continue
            text = forced.get(number, candidate.form.strip())
            previous = chosen.get(text, Term(text, (), candidate.source))
            forms = (*previous.forms, candidate.form)
            tokens = previous.saved + saved.get(candidate.form, 0)
            chosen[text] = Term(text, forms, previous.source, tokens)
        return list(chosen.values())


def _contains(pieces: tuple[int, ...], part: tuple[int, ...]) -> bool:
    return any(pieces[i : i + len(part)] == part for i in range(len(pieces)))
