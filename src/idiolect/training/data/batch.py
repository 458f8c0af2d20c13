"""`Batch`: the input of one step, with the field names that all networks and objectives share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

__all__ = ["IGNORE_INDEX", "Batch", "pad_rows"]

IGNORE_INDEX = -100
"""The label of a token that is not predicted, as in PyTorch and transformers."""

_INPUTS = (
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "language_ids",
    "position_ids",
    "prefix_mask",
    "decoder_input_ids",
    "decoder_attention_mask",
)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of token ids and their labels.

    An objective that needs more adds fields in a subclass. Every tensor has one entry per row, so
    that a batch can be divided.
    """

    input_ids: Tensor
    """(rows, length), int64."""
    attention_mask: Tensor
    """0 for padding and 1 for text, or the ascending numbers of documents packed in a row, which do
    not attend to one another. (rows, length), int64."""
    labels: Tensor | None = None
    """The target id at each position, or `IGNORE_INDEX`. Shape of the decoder's input, int64."""
    token_type_ids: Tensor | None = None
    """Segment of each token (BERT). (rows, length), int64."""
    language_ids: Tensor | None = None
    """Language of each token (XLM). (rows, length), int64."""
    position_ids: Tensor | None = None
    """Position of each token; by default its index in the document. (rows, length), int64."""
    prefix_mask: Tensor | None = None
    """1 for tokens that all tokens of their document attend to, in a decoder. (rows, length),
    int64."""
    decoder_input_ids: Tensor | None = None
    """Input of the decoder in an encoder-decoder network. (rows, target length), int64."""
    decoder_attention_mask: Tensor | None = None
    """(rows, target length), int64."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.input_ids)

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Arguments of a network's forward pass, by name; absent inputs are omitted."""
        given = {name: getattr(self, name) for name in _INPUTS}
        return {name: tensor for name, tensor in given.items() if tensor is not None}

    @property
    def predicted(self) -> Tensor:
        """Mask of the positions that have a label. Shape of `labels`, bool."""
        if self.labels is None:
            return torch.zeros_like(self.input_ids, dtype=torch.bool)
        return self.labels != IGNORE_INDEX

    @property
    def count(self) -> int:
        """Number of targets over which the loss is summed."""
        return int(self.predicted.sum())

    @property
    def tokens(self) -> int:
        """Number of tokens, including those of the decoder and excluding padding."""
        masks = (self.attention_mask, self.decoder_attention_mask)
        return sum(int((mask > 0).sum()) for mask in masks if mask is not None)

    def to(self, device: torch.device) -> Self:
        """Move the batch to a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def part(self, rows: slice) -> Self:
        """Return some of the rows."""
        return self._map(lambda tensor: tensor[rows])

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return type(self)(**{n: change(v) if isinstance(v, Tensor) else v for n, v in values})


def pad_rows(
    rows: Sequence[Sequence[int]] | Sequence[NDArray[np.int64]], pad_id: int = 0
) -> tuple[Tensor, Tensor]:
    """Return ids padded on the right, and their mask. Shape: (rows, longest), both int64.

    Args:
        rows: The ids of each row.
        pad_id: Id that fills short rows.
    """
    ids = pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], True, pad_id)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()
