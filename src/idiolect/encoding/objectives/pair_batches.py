"""Batches of query-document pairs in which each distinct text is encoded once."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from idiolect.encoding.pairs import PairTable
from idiolect.encoding.text_reader import EncodingCounts, TextReader
from idiolect.training.objectives.contrastive_losses import Candidates

__all__ = ["PairBatch", "PairReader"]

_KEPT_TOKENS = 1 << 25
"""Tokens whose ids are kept in memory: 128 MiB."""


class PairReader:
    """Tokenizes the texts of a table, and caches up to `kept_tokens` ids for later epochs.

    Args:
        table: The pairs.
        reader: Converts texts to ids.
        kept_tokens: Maximum number of cached ids.
    """

    def __init__(
        self, table: PairTable, reader: TextReader, *, kept_tokens: int = _KEPT_TOKENS
    ) -> None:
        self._texts: dict[str, Sequence[str]] = {
            "query": table.queries,
            "document": table.documents,
        }
        self._reader, self._room = reader, kept_tokens
        self._kept: dict[str, dict[int, array[int]]] = {kind: {} for kind in self._texts}
        self.counts = EncodingCounts()
        """Numbers of texts and tokens read; a cached text counts once."""

    def read(self, kind: Literal["query", "document"], numbers: Sequence[int]) -> list[array[int]]:
        """Return the ids of the texts with the given indices."""
        texts, kept = self._texts[kind], self._kept[kind]
        fresh = [number for number in numbers if number not in kept]
        read = self._reader.read([texts[number] for number in fresh], kind, self.counts)
        rows = {number: array("i", row) for number, row in zip(fresh, read, strict=True)}
        found = [rows.get(number) or kept.get(number, array("i")) for number in numbers]
        size = sum(map(len, rows.values()))
        if size <= self._room:
            kept.update(rows)
            self._room -= size
        return found


@dataclass(frozen=True)
class PairBatch:
    """Pairs as token ids.

    Every query is compared with all documents, so a batch cannot be split between processes. Each
    process encodes its share of the texts instead.
    """

    queries: Sequence[Sequence[int]]
    """The ids of each distinct query."""
    documents: Sequence[Sequence[int]]
    """The ids of each distinct document and negative: the columns of `candidates`."""
    query: torch.Tensor
    """Index into `queries` for each pair. (pairs,), int64."""
    candidates: Candidates
    """Positive, negative and ignored documents of each pair."""

    @classmethod
    def of(
        cls,
        table: PairTable,
        pairs: Sequence[int],
        reader: PairReader,
        *,
        mined: NDArray[np.int64] | None = None,
    ) -> Self:
        """Make a batch of some pairs of a table.

        Args:
            table: The pairs.
            pairs: The indices of the pairs.
            reader: Reads the texts of the table.
            mined: Additional negatives of each pair, padded with -1. (pairs, negatives).
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
        maximum = max(map(len, negatives))
        columns = [
            [documents[one] for one in own] + [-1] * (maximum - len(own)) for own in negatives
        ]
        ignored = torch.zeros(len(keys), len(documents), dtype=torch.bool)
        for row, (query, document) in enumerate(keys):
            others = (table.right[query] & documents.keys()) - {document}
            if others:
                ignored[row, [documents[one] for one in others]] = True
        candidates = Candidates(
            positive=torch.tensor([documents[document] for _, document in keys]),
            negatives=torch.tensor(columns, dtype=torch.long).view(len(keys), maximum),
            ignored=ignored,
            scores=_scores([table.scores[number] for number in pairs], 1 + maximum),
        )
        return cls(
            reader.read("query", list(queries)),
            reader.read("document", list(documents)),
            torch.tensor([queries[query] for query, _ in keys]),
            candidates,
        )

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.query)

    @property
    def count(self) -> int:
        """Number of pairs, over which the loss is a sum."""
        return len(self.query)

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return sum(map(len, self.queries)) + sum(map(len, self.documents))

    def to(self, device: torch.device) -> Self:
        """Move the batch to a device."""
        return type(self)(
            self.queries, self.documents, self.query.to(device), self.candidates.to(device)
        )


def _numbered(items: Any) -> dict[int, int]:
    """Number distinct items in order of appearance. [7, 9, 7] → {7: 0, 9: 1}."""
    return {item: number for number, item in enumerate(dict.fromkeys(items))}


def _scores(scores: Sequence[tuple[float, ...]], width: int) -> torch.Tensor | None:
    """Return a teacher's scores as a matrix if every pair has some; missing ones are NaN."""
    if not all(scores):
        return None
    rows = [list(own) + [torch.nan] * (width - len(own)) for own in scores]
    return torch.tensor(rows)
