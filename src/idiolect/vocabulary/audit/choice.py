"""Which candidates to give a row: greedy by what each still saves, overlaps told apart.

A token saved once is not saved again. When `type 2 diabetes` is taken, the `diabetes` inside it
saves nothing any more, and the one elsewhere all it did. So the candidates' occurrences are kept,
and each pick rewrites what the text at its places costs. The gain of a candidate only falls by
the picks of others, so a queue of old gains, checked when they come up, finds the best one
(lazy greedy, Minoux 1978).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from idiolect.vocabulary.audit.census import Integers
    from idiolect.vocabulary.audit.ngrams import Floats

__all__ = ["Occurrences", "Pick"]


@dataclass(frozen=True)
class Pick:
    """A candidate taken, and what it saved when it was."""

    candidate: int
    saved: int
    """Tokens saved in the text beyond what earlier picks saved."""


@dataclass
class Occurrences:
    """Where candidates occur in a sequence of units, and what each unit costs in tokens."""

    costs: Integers
    """Tokens of the unit at each position, shape `(n,)`."""
    begins: Integers
    """Where each occurrence begins; those of a candidate side by side, ascending."""
    ends: Integers
    """The position after each occurrence."""
    offsets: Integers
    """Candidate `c` has the occurrences `offsets[c] : offsets[c + 1]`."""

    def savings(self) -> Integers:
        """Tokens each candidate would save if it were the only one."""
        sums = np.append(0, np.cumsum(self.costs, dtype=np.int64))
        saved = np.append(0, np.cumsum(sums[self.ends] - sums[self.begins] - 1))
        difference: Integers = saved[self.offsets[1:]] - saved[self.offsets[:-1]]
        return difference

    def select(self, order: Integers) -> Occurrences:
        """Keep these candidates, in this order."""
        lengths = np.diff(self.offsets)[order]
        offsets = np.append(0, np.cumsum(lengths))
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[order] - offsets[:-1], lengths)
        return Occurrences(self.costs, self.begins[places], self.ends[places], offsets)

    def choose(
        self, weights: Floats, forced: Iterable[int], rows: int, least: float
    ) -> Iterator[Pick]:
        """Yield picks, the best first.

        Args:
            weights: what a token saved by each candidate counts, 0 to 1.
            forced: candidates taken before all others, whatever they save.
            rows: how many to pick at most.
            least: the weighted tokens a pick must save to be worth its row; `forced` ones need
                not.
        """
        costs = self.costs.copy()
        inside = np.zeros(len(costs) + 1, bool)
        taken: set[int] = set()
        for candidate in forced:
            if rows <= len(taken):
                return
            taken.add(candidate)
            yield Pick(candidate, self._take(candidate, costs, inside))
        expected = self.savings() * weights
        queue = [(-gain, c) for c, gain in enumerate(expected.tolist()) if gain >= least]
        heapq.heapify(queue)
        while queue and len(taken) < rows:
            _, candidate = heapq.heappop(queue)
            if candidate in taken:
                continue
            saved = self._open(candidate, costs, inside)[2]
            gain = float(saved * weights[candidate])
            if gain < least:
                continue
            if queue and -queue[0][0] > gain:
                heapq.heappush(queue, (-gain, candidate))
                continue
            taken.add(candidate)
            yield Pick(candidate, self._take(candidate, costs, inside))

    def _open(
        self, candidate: int, costs: Integers, inside: Integers
    ) -> tuple[Integers, Integers, int]:
        """Find the occurrences that still save something: begins, ends, tokens saved.

        An occurrence is closed where it would begin or end inside an earlier pick.
        """
        here = slice(self.offsets[candidate], self.offsets[candidate + 1])
        begins, ends = self.begins[here], self.ends[here]
        free = ~(inside[begins] | inside[ends])
        begins, ends = begins[free], ends[free]
        now = costs[begins].astype(np.int64)
        for step in range(1, int((ends - begins).max(initial=0))):
            now += np.where(begins + step < ends, costs[np.minimum(begins + step, ends)], 0)
        useful = now > 1
        return begins[useful], ends[useful], int(now[useful].sum() - useful.sum())

    def _take(self, candidate: int, costs: Integers, inside: Integers) -> int:
        begins, ends, saved = self._open(candidate, costs, inside)
        # "a b a b a" holds "a b a" once, though it begins at two places.
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
