"""What `tune` reads step by step: pairs in a shuffled order, laid out so that a text comes once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from idiolect.encoding.pairs import PairTable
from idiolect.encoding.text_reader import EncodingCounts, TextReader
from idiolect.training.objectives.contrastive_losses import Candidates

__all__ = ["EpochSample", "PairBatch", "ShuffledEpochs"]


@dataclass(frozen=True)
class EpochSample:
    """What a step trains on, by number."""

    sources: list[int]
    """Numbers of pairs, or of texts."""
    round: int
    """Which pass over all of them it belongs to."""


class ShuffledEpochs:
    """An endless stream of numbers, each round in an order that follows from seed and round.

    A step lies within one round: the few numbers that would not fill its last step wait for the
    next, in which others will be left.

    Args:
        count: How many numbers there are.
        rows: How many a step takes; all of them where there are fewer.
        seed: Decides the order.
    """

    def __init__(self, count: int, *, rows: int, seed: int = 0) -> None:
        self.count, self.rows, self.seed = count, min(rows, count), seed
        self.steps = count // self.rows
        """Steps a round has."""
        self.done = 0
        self._round, self._order = -1, np.zeros(0, np.int64)

    def take(self) -> EpochSample:
        """Return the numbers of the next step."""
        number, step = divmod(self.done, self.steps)
        if number != self._round:
            self._round = number
            self._order = np.random.default_rng([self.seed, number]).permutation(self.count)
        self.done += 1
        return EpochSample(self._order[step * self.rows : (step + 1) * self.rows].tolist(), number)

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes."""
        return {"steps": self.done}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to where a run stood."""
        self.done = state["steps"]


@dataclass(frozen=True)
class PairBatch:
    """Pairs as a network reads them."""

    queries: list[list[int]]
    """The ids of each query, each once."""
    documents: list[list[int]]
    """The ids of each document and negative, each once: the columns of `candidates`."""
    query: torch.Tensor
    """Which query each pair has. (pairs,)."""
    candidates: Candidates
    """Which documents are what to each pair."""

    @classmethod
    def of(
        cls,
        table: PairTable,
        pairs: Sequence[int],
        reader: TextReader,
        *,
        mined: NDArray[np.int64] | None = None,
        counts: EncodingCounts | None = None,
    ) -> Self:
        """Lay pairs out.

        Args:
            table: The pairs.
            pairs: Which of them.
            reader: Makes ids of texts.
            mined: More negatives of each of them; -1 for none. (pairs, negatives).
            counts: Added to.
        """
        keys = [table.pairs[number] for number in pairs]
        negatives = [list(table.negatives[number]) for number in pairs]
        if mined is not None:
            for own, more in zip(negatives, mined.tolist(), strict=True):
                own += [one for one in more if one >= 0 and one not in own]
        queries = _numbered(query for query, _ in keys)
        documents = _numbered(
            [document for _, document in keys] + [one for own in negatives for one in own]
        )
        most = max(map(len, negatives))
        columns = [[documents[one] for one in own] + [-1] * (most - len(own)) for own in negatives]
        ignored = torch.zeros(len(keys), len(documents), dtype=torch.bool)
        for row, (query, document) in enumerate(keys):
            known = table.right[query] & documents.keys()
            ignored[row, [documents[one] for one in known if one != document]] = True
        candidates = Candidates(
            positive=torch.tensor([documents[document] for _, document in keys]),
            negatives=torch.tensor(columns, dtype=torch.long).view(len(keys), most),
            ignored=ignored,
            scores=_scores([table.scores[number] for number in pairs], 1 + most),
        )
        counts = EncodingCounts() if counts is None else counts
        return cls(
            reader.read([table.queries[one] for one in queries], "query", counts),
            reader.read([table.documents[one] for one in documents], "document", counts),
            torch.tensor([queries[query] for query, _ in keys]),
            candidates,
        )

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.query)

    @property
    def count(self) -> int:
        """Number of pairs: the loss is a sum over them."""
        return len(self.query)

    @property
    def tokens(self) -> int:
        """How many real tokens are read."""
        return sum(map(len, self.queries)) + sum(map(len, self.documents))

    def part(self, rows: slice) -> Self:
        """Return all of it: every pair is told apart from all documents.

        What is divided, among processes and to save memory, is the texts; see `Contrast`.
        """
        return self

    def to(self, device: torch.device) -> Self:
        """Move it to a device."""
        return type(self)(
            self.queries, self.documents, self.query.to(device), self.candidates.to(device)
        )


def _numbered(items: Any) -> dict[int, int]:
    """Number different items in the order they first come. [7, 9, 7] → {7: 0, 9: 1}."""
    return {item: number for number, item in enumerate(dict.fromkeys(items))}


def _scores(scores: Sequence[tuple[float, ...]], width: int) -> torch.Tensor | None:
    """Lay a teacher's scores out, if every pair has some; not a number where there is none."""
    if not all(scores):
        return None
    rows = [list(own) + [torch.nan] * (width - len(own)) for own in scores]
    return torch.tensor(rows)
