"""Choose which candidates get a row: greedily, by the tokens each one still saves.

Overlapping candidates do not count the same saving twice. Suppose `type 2 diabetes` costs six
tokens, three of them in `diabetes`. After `type 2 diabetes` is selected, `diabetes` saves nothing
inside it, and still two tokens wherever it occurs alone. Therefore every occurrence of every
candidate is kept, and each selection lowers the cost of the text at its occurrences.

Selections can only lower the gain of other candidates. A priority queue of old gains, each
recomputed when it reaches the top, therefore finds the best candidate (lazy greedy, Minoux 1978).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from idiolect.vocabulary.audit.corpus_scan import Integers
    from idiolect.vocabulary.audit.ngrams import Floats

__all__ = ["CandidateOccurrences", "SelectedCandidate"]


@dataclass(frozen=True)
class SelectedCandidate:
    """A selected candidate and the tokens it saves."""

    candidate: int
    saved: int
    """Tokens saved in the corpus, in addition to those of earlier selections."""


@dataclass
class CandidateOccurrences:
    """Where candidates occur in a sequence of units, and the token cost of each unit."""

    costs: Integers
    """Tokens of the unit at each position, shape `(n,)`."""
    begins: Integers
    """First position of each occurrence, grouped by candidate, ascending in each group."""
    ends: Integers
    """Position after each occurrence."""
    offsets: Integers
    """Candidate `c` has the occurrences `offsets[c] : offsets[c + 1]`."""

    def savings(self) -> Integers:
        """Tokens that each candidate would save if it were the only one."""
        sums = np.append(0, np.cumsum(self.costs, dtype=np.int64))
        saved = np.append(0, np.cumsum(sums[self.ends] - sums[self.begins] - 1))
        difference: Integers = saved[self.offsets[1:]] - saved[self.offsets[:-1]]
        return difference

    def reorder(self, order: Integers) -> CandidateOccurrences:
        """Keep the given candidates, in the given order."""
        lengths = np.diff(self.offsets)[order]
        offsets = np.append(0, np.cumsum(lengths))
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[order] - offsets[:-1], lengths)
        return CandidateOccurrences(self.costs, self.begins[places], self.ends[places], offsets)

    def select(
        self, weights: Floats, forced: Iterable[int], max_rows: int, min_saving: float
    ) -> Iterator[SelectedCandidate]:
        """Yield selected candidates, the best first.

        Args:
            weights: weight of a token saved by each candidate, 0 to 1.
            forced: candidates that are selected first, regardless of their saving.
            max_rows: maximum number of selections.
            min_saving: minimum weighted tokens saved by a selection that is not forced.
        """
        costs = self.costs.copy()
        inside = np.zeros(len(costs) + 1, bool)
        selected: set[int] = set()
        for candidate in forced:
            if max_rows <= len(selected):
                return
            selected.add(candidate)
            yield SelectedCandidate(candidate, self._apply(candidate, costs, inside))
        expected = self.savings() * weights
        queue = [(-gain, c) for c, gain in enumerate(expected.tolist()) if gain >= min_saving]
        heapq.heapify(queue)
        while queue and len(selected) < max_rows:
            _, candidate = heapq.heappop(queue)
            if candidate in selected:
                continue
            saved = self._remaining(candidate, costs, inside)[2]
            gain = float(saved * weights[candidate])
            if gain < min_saving:
                continue
            if queue and -queue[0][0] > gain:
                heapq.heappush(queue, (-gain, candidate))
                continue
            selected.add(candidate)
            yield SelectedCandidate(candidate, self._apply(candidate, costs, inside))

    def _remaining(
        self, candidate: int, costs: Integers, inside: Integers
    ) -> tuple[Integers, Integers, int]:
        """Find the occurrences that still save tokens: begins, ends and tokens saved.

        Occurrences that begin or end inside an earlier selection are excluded.
        """
        here = slice(self.offsets[candidate], self.offsets[candidate + 1])
        begins, ends = self.begins[here], self.ends[here]
        free = ~(inside[begins] | inside[ends])
        begins, ends = begins[free], ends[free]
        current = costs[begins].astype(np.int64)
        for step in range(1, int((ends - begins).max(initial=0))):
            current += np.where(begins + step < ends, costs[np.minimum(begins + step, ends)], 0)
        useful = current > 1
        return begins[useful], ends[useful], int(current[useful].sum() - useful.sum())

    def _apply(self, candidate: int, costs: Integers, inside: Integers) -> int:
        """Update costs as if the candidate were one token; return the tokens saved."""
        begins, ends, saved = self._remaining(candidate, costs, inside)
        # "a b a b a" contains "a b a" at two overlapping places, but only one can be a token.
        if len(begins) > 1 and (ends[:-1] > begins[1:]).any():
            last, kept = -1, []
            for i, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
                if begin >= last:
                    kept.append(i)
                    last = end
            begins, ends = begins[kept], ends[kept]
            sums = [int(costs[b:e].sum()) - 1 for b, e in zip(begins, ends, strict=True)]
            saved = sum(sums)
        for step in range(1, int((ends - begins).max(initial=0))):
            covered = (begins + step)[begins + step < ends]
            costs[covered] = 0
            inside[covered] = True
        costs[begins] = 1
        return saved
