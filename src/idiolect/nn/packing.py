"""Batches without padding: real tokens in one long row, and where each document stands in it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from idiolect.nn.attention import Span

__all__ = ["Packing", "places_and_documents"]


def places_and_documents(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Number each token within its document.

    >>> places_and_documents(torch.tensor([[0, 1, 1, 2, 2, 2]]))
    (tensor([[0, 0, 1, 0, 1, 2]]), tensor([[0, 1, 1, 2, 2, 2]]))

    Shape: mask (batch, length), result two of (batch, length), int64.

    Args:
        mask: 0 for padding, else the number of the token's document; numbers ascend along a row. A
            boolean mask is one document a row.
    """
    documents = mask.long()
    real = documents > 0
    count = real.long().cumsum(-1)
    before = nn.functional.pad(documents.cummax(-1).values, (1, 0))[:, :-1]
    start = torch.where(documents > before, count - 1, 0).cummax(-1).values
    return (count - 1 - start).clamp(min=0), documents


@dataclass(frozen=True)
class Packing:
    """Where the real tokens of a grid stand, and which runs of them are documents."""

    index: Tensor
    """Place of each real token in the flattened grid. (tokens,)."""
    shape: torch.Size
    """Of the grid: (batch, length)."""
    spans: list[Span]
    """First token of each document, and the one after its last."""
    places: Tensor
    """Number of each token within its document. (tokens,)."""

    @classmethod
    def of(cls, mask: Tensor) -> Packing:
        """Read a mask as `places_and_documents` does."""
        places, documents = places_and_documents(mask)
        flat = documents.flatten()
        index = flat.nonzero().squeeze(-1)
        places = places.flatten()[index]
        starts = [*(places == 0).nonzero().squeeze(-1).tolist(), len(index)]
        return cls(index, mask.shape, list(pairwise(starts)), places)

    def pack(self, grid: Tensor) -> Tensor:
        """Drop the padding. Shape: (batch, length, …) to (tokens, …)."""
        return grid.flatten(0, 1)[self.index]

    def unpack(self, packed: Tensor) -> Tensor:
        """Put it back, as zeros. Shape: (tokens, width) to (batch, length, width)."""
        grid = packed.new_zeros(self.shape.numel(), packed.shape[-1])
        grid = grid.index_copy(0, self.index, packed)
        return grid.view(*self.shape, packed.shape[-1])

    @property
    def longest(self) -> int:
        """Tokens of the longest document."""
        return max((end - start for start, end in self.spans), default=0)
