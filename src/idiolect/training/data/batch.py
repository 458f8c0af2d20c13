"""`Batch`: the input of one step, under the names that all networks and objectives share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

__all__ = ["IGNORE_INDEX", "Batch"]

IGNORE_INDEX = -100
"""The label of a token that is not predicted, as in PyTorch and transformers."""


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
    """The id each token predicts, or `IGNORE_INDEX`. (rows, length), int64."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.input_ids)

    @property
    def predicted(self) -> Tensor:
        """Which positions have a label. (rows, length), bool."""
        if self.labels is None:
            return torch.zeros_like(self.input_ids, dtype=torch.bool)
        return self.labels != IGNORE_INDEX

    @property
    def count(self) -> int:
        """Number of targets, over which the loss is a sum."""
        return int(self.predicted.sum())

    @property
    def tokens(self) -> int:
        """Number of tokens without padding."""
        return int((self.attention_mask > 0).sum())

    def to(self, device: torch.device) -> Self:
        """Move the batch to a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def part(self, rows: slice) -> Self:
        """Return some of the rows."""
        return self._map(lambda tensor: tensor[rows])

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return type(self)(**{n: change(v) if isinstance(v, Tensor) else v for n, v in values})
