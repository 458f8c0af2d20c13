"""Batches without padding: all real tokens in one row, with the span of each document.

Documents are sorted by length, since attention computes adjacent documents of equal length as one
batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from idiolect.errors import InputError
from idiolect.nn.attention import Span

__all__ = ["Packing", "last_ids", "positions_and_documents"]


def positions_and_documents(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Number each token within its document.

    >>> positions_and_documents(torch.tensor([[0, 1, 1, 2, 2, 2]]))
    (tensor([[0, 0, 1, 0, 1, 2]]), tensor([[0, 1, 1, 2, 2, 2]]))

    Shape: mask (batch, length), result two of (batch, length), int64.

    Args:
        mask: 0 for padding, otherwise the document number of the token; numbers ascend along a row.
            With a boolean mask, each row is one document.
    """
    documents = mask.long()
    real = documents > 0
    count = real.long().cumsum(-1)
    if mask.dtype == torch.bool:
        return (count - 1).clamp(min=0), documents
    before = nn.functional.pad(documents.cummax(-1).values, (1, 0))[:, :-1]
    start = torch.where(documents > before, count - 1, 0).cummax(-1).values
    return (count - 1 - start).clamp(min=0), documents


def last_ids(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return the last id of each text. Shape: ids and mask (batch, length), result (batch, 1)."""
    if attention_mask is None:
        return input_ids[:, -1:]
    position = torch.arange(input_ids.shape[1], device=input_ids.device)
    return input_ids.gather(1, (position * (attention_mask > 0)).argmax(-1, keepdim=True))


@dataclass(frozen=True)
class Packing:
    """The positions of a grid's real tokens, and the span of each document among them."""

    index: Tensor
    """Index of each real token in the flattened grid. (tokens,)."""
    shape: torch.Size
    """Shape of the grid: (batch, length)."""
    spans: list[Span]
    """Start and end (exclusive) of each document."""
    documents: list[tuple[int, int]]
    """Row and document number of each document."""
    positions: Tensor
    """Position of each token in its document. (tokens,)."""

    @classmethod
    def of(cls, mask: Tensor) -> Packing:
        """Compute the packing of a mask; see `positions_and_documents`.

        Raises:
            InputError: Document numbers do not ascend along a row.
        """
        positions, documents = positions_and_documents(mask)
        if bool((documents < documents.cummax(-1).values)[documents > 0].any()):
            raise InputError(
                "the document numbers of the mask do not ascend along a row",
                hint="number the documents of each row from 1",
            )
        flat = documents.flatten()
        index = flat.nonzero().squeeze(-1)
        positions = positions.flatten()[index]
        order = _by_length(positions)
        index, positions = index[order], positions[order]
        first = (positions == 0).nonzero().squeeze(-1)
        rows = (index[first] // mask.shape[1]).tolist()
        numbers = flat[index[first]].tolist()
        spans = list(pairwise([*first.tolist(), len(index)]))
        keys = list(zip(rows, numbers, strict=True))
        return cls(index, mask.shape, spans, keys, positions)

    def pack(self, grid: Tensor) -> Tensor:
        """Remove the padding. Shape: (batch, length, …) to (tokens, …)."""
        return grid.flatten(0, 1)[self.index]

    def unpack(self, packed: Tensor) -> Tensor:
        """Restore the padding, as zeros. Shape: (tokens, width) to (batch, length, width)."""
        grid = packed.new_zeros(self.shape.numel(), packed.shape[-1])
        grid = grid.index_copy(0, self.index, packed)
        return grid.view(*self.shape, packed.shape[-1])

    @property
    def longest(self) -> int:
        """Length of the longest document, in tokens."""
        return max((end - start for start, end in self.spans), default=0)


def _by_length(positions: Tensor) -> Tensor:
    """Return the order of tokens in which shorter documents come first. Both shapes: (tokens,)."""
    document = (positions == 0).cumsum(0) - 1
    lengths = document.bincount()
    return lengths[document].argsort(stable=True)
