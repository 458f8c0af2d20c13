"""Input of a cross-encoder: a batch of text pairs, each in one sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

__all__ = ["TextPairBatch"]


@dataclass(frozen=True)
class TextPairBatch:
    """A padded batch of text pairs."""

    input_ids: Tensor
    """Token ids. (pairs, longest), int64."""
    attention_mask: Tensor
    """1 for text, 0 for padding. (pairs, longest)."""
    token_type_ids: Tensor
    """The segment of each token. (pairs, longest)."""
    labels: Tensor
    """Relevance labels. (pairs,)."""
    sizes: tuple[int, ...]
    """Number of pairs of each group."""

    @classmethod
    def of(
        cls,
        rows: Sequence[tuple[list[int], list[int]]],
        pad_id: int,
        labels: Sequence[float] = (),
        sizes: Sequence[int] = (),
    ) -> Self:
        """Pad rows of ids and segment types."""
        shape = (len(rows), max(len(ids) for ids, _ in rows))
        grids = np.full(shape, pad_id), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, (own, kinds) in enumerate(rows):
            for grid, values in zip(grids, (own, 1, kinds), strict=True):
                grid[row, : len(own)] = values
        ids, mask, types = map(torch.from_numpy, grids)
        return cls(ids, mask, types, torch.tensor(labels), tuple(sizes))

    def __len__(self) -> int:
        """Number of groups."""
        return len(self.sizes)

    @property
    def count(self) -> int:
        """Number of groups: the loss is a sum over them."""
        return len(self.sizes)

    @property
    def tokens(self) -> int:
        """Number of tokens without padding."""
        return int(self.attention_mask.sum())

    @property
    def _grids(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.input_ids, self.attention_mask, self.token_type_ids

    def part(self, rows: slice) -> Self:
        """Return a slice of the groups."""
        ends = np.cumsum((0, *self.sizes))
        first, last, _ = rows.indices(len(self.sizes))
        own = slice(int(ends[first]), int(ends[max(first, last)]))
        longest = int(self.attention_mask[own].sum(1).max()) if own.stop > own.start else 0
        ids, mask, types = (grid[own, :longest] for grid in self._grids)
        return type(self)(ids, mask, types, self.labels[own], self.sizes[rows])

    def to(self, device: torch.device) -> Self:
        """Move it to a device."""
        ids, mask, types = (grid.to(device) for grid in self._grids)
        return type(self)(ids, mask, types, self.labels.to(device), self.sizes)
