"""A vocabulary that grows: original rows stay frozen, new ones are a parameter of their own.

What is notable:

- Freezing is exact, not a matter of zeroed gradients: no optimizer ever sees the original rows, so
  no weight decay and no momentum moves them.
- Nothing copies the original matrix. A lookup costs two gathers of the batch's size, and the only
  gradient there is has the size of the new rows. The logits are two products side by side.
- Rows are found by their ids. Published matrices often have more rows than the tokenizer has ids;
  the first new ids then fall on such padding rows, which are left as they are and not read.

       ids   0 … first_id-1        first_id … end_id-1         end_id …
      rows   original[id]          added[id - first_id]        original[id], where it is that long

- The promise can be checked: `verify` compares a hash of the original rows with the one taken when
  the vocabulary grew.
- The same class holds an embedding (V, width), an untied head (V, width) and a head's bias (V,).
"""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idiolect.errors import InputError, VerificationError
from idiolect.nn.basic import linear

__all__ = ["ExtendedEmbedding", "ExtendedRows"]

_HASHED_AT_ONCE = 8192
"""Rows brought into float32 at once."""


class ExtendedRows(nn.Module):
    """One row, or one number, for each id: an original matrix and the rows added to it.

    Shape: original (V, …), added (N, …).

    Args:
        original: The published rows, kept as they are; frozen until somebody unfreezes them.
        added: The rows of the new ids; they are trained.
        first_id: The id of the first added row.

    Raises:
        InputError: No added rows, rows of another shape, or a gap between old and new ids.
    """

    def __init__(self, original: Tensor, added: Tensor, *, first_id: int) -> None:
        super().__init__()
        if not len(added) or added.shape[1:] != original.shape[1:]:
            raise InputError(
                f"added rows {tuple(added.shape)} do not fit original rows {tuple(original.shape)}"
            )
        if not 0 < first_id <= len(original):
            raise InputError(
                f"the first new id is {first_id} and there are {len(original)} original rows",
                hint="tokenizer and network do not belong together",
            )
        self.original = nn.Parameter(original.detach(), requires_grad=False)
        """The published rows. (V, …)."""
        self.added = nn.Parameter(added.detach())
        """The new rows; they may have a finer number format than the original ones. (N, …)."""
        self.first_id = first_id
        """The id of the first added row."""
        self.fingerprint = self.hash_original()
        """SHA-256 of the original rows, as they were when the vocabulary grew."""

    @property
    def end_id(self) -> int:
        """The id after the last added row's."""
        return self.first_id + len(self.added)

    def __len__(self) -> int:
        """Number of rows, padding rows included."""
        return max(len(self.original), self.end_id)

    def extra_repr(self) -> str:
        """Tell the sizes; called by `repr`."""
        return f"{len(self.original)} original, {len(self.added)} added from id {self.first_id}"

    def hash_original(self, dtype: torch.dtype | None = None) -> str:
        """Return the SHA-256 of the rows below `first_id`, as float32 in little-endian order.

        Args:
            dtype: The number format they are first brought to; by default they stay as they are.
        """
        digest = hashlib.sha256()
        for rows in torch.split(self.original.detach()[: self.first_id], _HASHED_AT_ONCE):
            exact = rows.to(dtype or rows.dtype).float().cpu().contiguous()
            digest.update(exact.view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def verify(self) -> None:
        """Check that the original rows are what they were, unless somebody has unfrozen them.

        Raises:
            VerificationError: They have changed.
        """
        if not self.original.requires_grad and self.hash_original() != self.fingerprint:
            raise VerificationError(
                "original rows of the vocabulary have changed, though they are frozen",
                hint="something wrote into them; go back to the last checkpoint",
            )

    def lookup(self, ids: Tensor, *, padding_idx: int | None = None) -> Tensor:
        """Return the rows of ids.

        Shape: ids (…), result (…, width).

        Args:
            ids: Which rows.
            padding_idx: An original row that never receives a gradient, should the original rows
                be unfrozen.
        """
        new = (ids >= self.first_id) & (ids < self.end_id)
        old_rows = F.embedding(ids.masked_fill(new, 0), self.original, padding_idx)
        # Old ids take some added row, whose gradient there is zero; any will do, and spreading
        # them spares the backward pass a thousand sums into one row.
        places = torch.where(new, ids - self.first_id, ids % len(self.added))
        new_rows = F.embedding(places, self.added).to(old_rows.dtype)
        return torch.where(new.unsqueeze(-1), new_rows, old_rows)

    def score(self, hidden: Tensor, bias: ExtendedRows | None = None) -> Tensor:
        """Multiply hidden states with every row.

        The product with the original matrix is the very one that was made before it grew, so the
        scores of old ids do not change by a bit.

        Shape: hidden (…, width), result (…, rows).
        """
        old = linear(hidden, self.original, None if bias is None else bias.original)
        new = linear(
            hidden,
            self.added.to(hidden.dtype),
            None if bias is None else bias.added.to(hidden.dtype),
        )
        if self.end_id <= len(self.original):
            old[..., self.first_id : self.end_id] = new
            return old
        return torch.cat([old[..., : self.first_id], new], dim=-1)

    def blocks(self) -> list[Tensor]:
        """Return the rows of all ids in order, as two or three views that follow one another.

        For sums over the vocabulary that never hold all scores at once.
        """
        blocks = [self.original[: self.first_id], self.added]
        if self.end_id < len(self.original):
            blocks.append(self.original[self.end_id :])
        return blocks

    def joined(self) -> Tensor:
        """Return a copy of all rows as one matrix, in the number format of the original ones."""
        return torch.cat([block.detach().to(self.original.dtype) for block in self.blocks()])


class ExtendedEmbedding(nn.Module):
    """An embedding whose original rows are frozen and whose new rows are trained.

    Shape: ids (…) to (…, width).

    Args:
        weight: The rows.
        padding_idx: The id that fills batches.
    """

    def __init__(self, weight: ExtendedRows, *, padding_idx: int | None = None) -> None:
        super().__init__()
        self.weight = weight
        self.padding_idx = padding_idx

    @property
    def original(self) -> nn.Parameter:
        """The published rows. (V, width)."""
        return self.weight.original

    @property
    def added(self) -> nn.Parameter:
        """The new rows. (N, width)."""
        return self.weight.added

    @property
    def first_id(self) -> int:
        """The id of the first added row."""
        return self.weight.first_id

    def forward(self, ids: Tensor) -> Tensor:
        """Look ids up."""
        return self.weight.lookup(ids, padding_idx=self.padding_idx)
