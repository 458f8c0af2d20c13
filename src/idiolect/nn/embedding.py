"""Extended vocabularies: original rows are frozen, and added rows are a separate parameter.

- Freezing is exact. No optimizer sees the original rows, so neither weight decay nor momentum can
  change them; zeroed gradients would not ensure that.
- The original matrix is never copied. A lookup costs two gathers of the batch's size, and the
  gradient has the size of the added rows. Logits are two matrix products, concatenated.
- Published matrices often have more rows than the tokenizer has ids. The first added ids then
  coincide with such padding rows, which are unchanged and unused.

       ids   0 … first_id-1        first_id … end_id-1         end_id …
      rows   original[id]          added[id - first_id]        original[id], if it is that long

- `verify` compares a hash of the original rows with the one taken when the vocabulary was extended.
- The original matrix may be quantised (`QuantizedMatrix`). Its blocks then never change, and added
  rows are in full precision.
- The same class is used for an embedding (V, width), an untied head (V, width) and a head's bias
  (V,).
"""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idiolect.errors import InputError, VerificationError
from idiolect.nn.basic import linear
from idiolect.nn.quantized_matrix import QuantizedMatrix, whole

__all__ = ["ExtendedEmbedding", "ExtendedRows", "QuantizedEmbedding", "joined_rows"]

_HASHED_AT_ONCE = 8192
"""Number of rows converted to float32 at a time."""


class ExtendedRows(nn.Module):
    """One row (or one number) per id: an original matrix and the rows added to it.

    Shape: original (V, …), added (N, …).

    Args:
        original: The published rows, unchanged, and frozen unless unfrozen explicitly.
        added: The rows of the new ids; trainable.
        first_id: The id of the first added row.

    Raises:
        InputError: There are no added rows, they have another shape, or there is a gap between old
            and new ids.
    """

    original: nn.Parameter | QuantizedMatrix

    def __init__(self, original: Tensor | QuantizedMatrix, added: Tensor, *, first_id: int) -> None:
        super().__init__()
        if not len(added) or added.shape[1:] != original.shape[1:]:
            raise InputError(
                f"added rows {tuple(added.shape)} do not fit original rows {tuple(original.shape)}"
            )
        if not 0 < first_id <= len(original):
            raise InputError(
                f"the first new id is {first_id} and there are {len(original)} original rows",
                hint="use the tokenizer of this network",
            )
        self.original = (
            original
            if isinstance(original, QuantizedMatrix)
            else nn.Parameter(original.detach(), requires_grad=False)
        )
        """The published rows. (V, …)."""
        self.added = nn.Parameter(added.detach())
        """The added rows; their dtype may be more precise than the original's. (N, …)."""
        self.first_id = first_id
        """The id of the first added row."""
        self.fingerprint = self.hash_original()
        """SHA-256 of the original rows when the vocabulary was extended."""

    @property
    def end_id(self) -> int:
        """The id after that of the last added row."""
        return self.first_id + len(self.added)

    def __len__(self) -> int:
        """Number of rows, padding rows included."""
        return max(len(self.original), self.end_id)

    def extra_repr(self) -> str:
        """Return the sizes, for `repr`."""
        return f"{len(self.original)} original, {len(self.added)} added from id {self.first_id}"

    def hash_original(self, dtype: torch.dtype | None = None) -> str:
        """Return the SHA-256 of the rows below `first_id`, as float32 in little-endian order.

        Args:
            dtype: Convert the rows to this dtype first; by default they are not converted.
        """
        digest = hashlib.sha256()
        for start in range(0, self.first_id, _HASHED_AT_ONCE):
            rows = self.original[start : min(start + _HASHED_AT_ONCE, self.first_id)].detach()
            exact = rows.to(dtype or rows.dtype).float().cpu().contiguous()
            digest.update(exact.view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def verify(self) -> None:
        """Check that the original rows are unchanged, unless they are unfrozen.

        Raises:
            VerificationError: They have changed.
        """
        if not self.original.requires_grad and self.hash_original() != self.fingerprint:
            raise VerificationError(
                "frozen original rows of the vocabulary have changed",
                hint="load the last checkpoint",
            )

    def lookup(self, ids: Tensor, *, padding_idx: int | None = None) -> Tensor:
        """Return the rows of ids.

        Shape: ids (…), result (…, width).

        Args:
            ids: The ids.
            padding_idx: An original row that receives no gradient even if the original rows are
                unfrozen.
        """
        is_added = (ids >= self.first_id) & (ids < self.end_id)
        own = ids.masked_fill(is_added, 0)
        if isinstance(self.original, QuantizedMatrix):
            original_rows = self.original[own]
        else:
            original_rows = F.embedding(own, self.original, padding_idx)
        # Original ids also look up an added row, with zero gradient. Spreading them over the rows
        # avoids a backward pass that sums thousands of zeros into one row.
        rows = torch.where(is_added, ids - self.first_id, ids % len(self.added))
        added_rows = F.embedding(rows, self.added).to(original_rows.dtype)
        return torch.where(is_added.unsqueeze(-1), added_rows, original_rows)

    def score(self, hidden: Tensor, bias: ExtendedRows | None = None) -> Tensor:
        """Multiply hidden states by every row.

        The product with the original matrix is the same operation as without added rows, so the
        scores of original ids are bit-identical.

        Shape: hidden (…, width), result (…, rows).
        """
        original_bias = None if bias is None else bias.original
        assert not isinstance(original_bias, QuantizedMatrix), "biases have one dimension"
        original = linear(hidden, self.original, original_bias)
        added = linear(
            hidden,
            self.added.to(hidden.dtype),
            None if bias is None else bias.added.to(hidden.dtype),
        )
        if self.end_id <= len(self.original):
            original[..., self.first_id : self.end_id] = added
            return original
        return torch.cat([original[..., : self.first_id], added], dim=-1)

    def blocks(self) -> list[Tensor | QuantizedMatrix]:
        """Return the rows of all ids in order, as two or three consecutive views.

        Losses use them to sum over the vocabulary without holding all scores at once.
        """
        blocks = [_view(self.original, 0, self.first_id), self.added]
        if self.end_id < len(self.original):
            blocks.append(_view(self.original, self.end_id, len(self.original)))
        return blocks

    def joined(self) -> Tensor:
        """Return a copy of all rows as one matrix, in the dtype of the original ones."""
        return torch.cat([whole(block).to(self.original.dtype) for block in self.blocks()])


def _view(rows: Tensor | QuantizedMatrix, start: int, stop: int) -> Tensor | QuantizedMatrix:
    return rows.part(start, stop) if isinstance(rows, QuantizedMatrix) else rows[start:stop]


def joined_rows(rows: Tensor | ExtendedRows | QuantizedMatrix) -> Tensor:
    """Return the rows of all ids as one full-precision matrix; a tensor is returned unchanged."""
    return rows.joined() if isinstance(rows, ExtendedRows) else whole(rows)


class QuantizedEmbedding(nn.Module):
    """An embedding with frozen quantised rows.

    Shape: ids (…) to (…, width).

    Args:
        weight: The rows.
    """

    def __init__(self, weight: QuantizedMatrix) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, ids: Tensor) -> Tensor:
        """Look ids up."""
        return self.weight[ids]


class ExtendedEmbedding(nn.Module):
    """An embedding with frozen original rows and trainable added rows.

    Shape: ids (…) to (…, width).

    Args:
        weight: The rows.
        padding_idx: The padding id.
    """

    def __init__(self, weight: ExtendedRows, *, padding_idx: int | None = None) -> None:
        super().__init__()
        self.weight = weight
        self.padding_idx = padding_idx

    @property
    def original(self) -> nn.Parameter | QuantizedMatrix:
        """The published rows. (V, width)."""
        return self.weight.original

    @property
    def added(self) -> nn.Parameter:
        """The added rows. (N, width)."""
        return self.weight.added

    @property
    def first_id(self) -> int:
        """The id of the first added row."""
        return self.weight.first_id

    def forward(self, ids: Tensor) -> Tensor:
        """Look ids up."""
        return self.weight.lookup(ids, padding_idx=self.padding_idx)
