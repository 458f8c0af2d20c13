"""`QuantizedMatrix`: a frozen quantised matrix, de-quantised on use.

Products and look-ups de-quantise some rows at a time and then discard them; the backward pass does
so again. A full-precision copy of the whole matrix never exists. Subclasses store blocks
differently: NF4 and 8-bit integers (`quantization`), and the blocks of GGUF files
(`models.gguf.gguf_blocks`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from copy import copy
from typing import Self

import torch
from torch import Tensor, nn

__all__ = ["QuantizedMatrix", "quantized_matrices", "whole"]

_VALUES_AT_ONCE = 1 << 22
"""Number of values de-quantised at a time: 16 MiB in float32."""


class QuantizedMatrix(nn.Module, ABC):
    """A frozen matrix (rows, width), read like a tensor: `len`, `shape`, `dtype`, `matrix[rows]`.

    Buffers contain only bytes, so converting the network to another dtype does not change them. It
    changes the dtype that `matrix[rows]` returns.

    Args:
        rows: Number of rows.
        width: Number of columns.
        parts: The stored bytes, by name. dtype uint8.
    """

    requires_grad = False

    def __init__(self, rows: int, width: int, **parts: Tensor) -> None:
        super().__init__()
        self.first, self.count, self.width = 0, rows, width
        self.register_buffer("like", torch.empty(0), persistent=False)
        for name, part in parts.items():
            self.register_buffer(name, part)

    @property
    @abstractmethod
    def format(self) -> str:
        """Name of the storage format, for messages."""

    @abstractmethod
    def decode(self, rows: slice | Tensor) -> Tensor:
        """De-quantise rows, counted over the whole matrix. Shape: (rows, width), float32."""

    @property
    def shape(self) -> torch.Size:
        """(rows, width)."""
        return torch.Size([self.count, self.width])

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of de-quantised rows."""
        return self._like.dtype

    @property
    def device(self) -> torch.device:
        """The device of the bytes."""
        return self._like.device

    @property
    def stored_bytes(self) -> int:
        """Size of the matrix in memory, in bytes."""
        return sum(part.numel() * part.element_size() for part in self.buffers())

    @property
    def _like(self) -> Tensor:
        return self.get_buffer("like")

    def numel(self) -> int:
        """Return the number of values."""
        return self.count * self.width

    def __len__(self) -> int:
        """Number of rows."""
        return self.count

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """De-quantise rows: a slice without a step, or ids of any shape.

        Shape: (…, width).
        """
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self.count)
            found = self.decode(slice(self.first + start, self.first + max(start, stop)))
        else:
            found = self.decode(rows.flatten() + self.first).view(*rows.shape, self.width)
        return found.to(self.dtype)

    def part(self, start: int, stop: int) -> Self:
        """Return a matrix of the rows from `start` to `stop`, which shares memory with this one."""
        twin = copy(self)
        twin.first, twin.count = self.first + start, stop - start
        return twin

    def slices(self) -> Iterator[slice]:
        """Yield slices of rows small enough to be de-quantised at once."""
        step = max(1, _VALUES_AT_ONCE // self.width)
        for start in range(0, self.count, step):
            yield slice(start, min(start + step, self.count))

    def extra_repr(self) -> str:
        """Return format and shape, for `repr`."""
        return f"{self.format}, {self.count}×{self.width}"


def whole(matrix: Tensor | QuantizedMatrix) -> Tensor:
    """Return a full-precision matrix: a tensor itself, or a de-quantised copy. (rows, width)."""
    if isinstance(matrix, QuantizedMatrix):
        result = torch.empty(matrix.shape, dtype=matrix.dtype, device=matrix.device)
        for rows in matrix.slices():
            result[rows] = matrix[rows]
        return result
    return matrix.detach()


def quantized_matrices(network: nn.Module) -> dict[str, QuantizedMatrix]:
    """Return the quantised matrices of a network by name."""
    return {
        n: module for n, module in network.named_modules() if isinstance(module, QuantizedMatrix)
    }
