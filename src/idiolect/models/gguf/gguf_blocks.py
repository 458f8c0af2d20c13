"""The quantised blocks of a GGUF file as a frozen matrix, de-quantised on use.

The most frequent formats are decoded by torch at more than 10⁹ values a second, the others by the
`gguf` package, which is an order of magnitude slower. The results are bit-identical.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from idiolect.nn.quantized_matrix import QuantizedMatrix

__all__ = ["GGUFMatrix", "recovered_blocks"]

_RECOVERED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
"""Formats that the `gguf` package can write, the smallest first."""
_PROBED, _AT_ONCE = 16, 2048
"""Number of rows that are tried first, and number of rows converted at a time."""


class GGUFMatrix(QuantizedMatrix):
    """A frozen matrix in the blocks of a GGUF file.

    Args:
        blocks: The bytes of each row. Shape: (rows, bytes), uint8.
        width: Number of columns.
        kind: Name of the storage type in ggml, such as `Q4_1`.
    """

    def __init__(self, blocks: Tensor, width: int, kind: str) -> None:
        super().__init__(len(blocks), width, blocks=blocks)
        self.kind = kind

    @property
    def format(self) -> str:
        """Name of the storage type in ggml."""
        return self.kind

    def stored(self) -> Tensor:
        """Return the bytes of the rows. Shape: (rows, bytes), uint8."""
        return self.get_buffer("blocks")[self.first : self.first + self.count]

    def decode(self, rows: slice | Tensor) -> Tensor:
        """De-quantise rows."""
        blocks = self.get_buffer("blocks")[rows]
        decode = _DECODERS.get(self.kind)
        values = decode(blocks) if decode else _decode_by_package(blocks, self.kind)
        return values.view(len(blocks), self.width)


def recovered_blocks(matrix: Tensor) -> GGUFMatrix | None:
    """Return a matrix in GGUF blocks that represent its values exactly; None if there are none.

    So a model that was read from a GGUF file and saved in full precision can be quantised again
    without loss.

    Args:
        matrix: The matrix. Shape: (rows, width).
    """
    if matrix.dim() != 2 or matrix.dtype != torch.float32 or matrix.device.type != "cpu":
        return None
    for kind in _RECOVERED:
        if _encode_exactly(matrix[:_PROBED], kind) is not None:
            parts = [_encode_exactly(rows, kind) for rows in torch.split(matrix, _AT_ONCE)]
            whole = [part for part in parts if part is not None]
            if len(whole) == len(parts):
                return GGUFMatrix(torch.cat(whole), matrix.shape[1], kind)
    return None


def _encode_exactly(rows: Tensor, kind: str) -> Tensor | None:
    """Return the bytes of rows in a format; `None` if they would decode to other values."""
    import gguf

    storage = gguf.GGMLQuantizationType[kind]
    if rows.shape[1] % gguf.GGML_QUANT_SIZES[storage][0]:
        return None
    packed = gguf.quantize(rows.detach().contiguous().numpy(), storage)
    exact = torch.from_numpy(gguf.dequantize(packed, storage))
    return torch.from_numpy(packed) if torch.equal(exact, rows) else None


def _q8_0(blocks: Tensor) -> Tensor:
    """Blocks of a scale (float16) and 32 integers of 8 bits."""
    block = blocks.view(-1, 34)
    return block[:, 2:].view(torch.int8).float().mul_(_halves(block[:, :2]))


def _q4_0(blocks: Tensor) -> Tensor:
    """Blocks of a scale (float16) and 32 integers of 4 bits, from which 8 is subtracted."""
    block = blocks.view(-1, 18)
    return _nibbles(block[:, 2:]).sub_(8).mul_(_halves(block[:, :2]))


def _q4_1(blocks: Tensor) -> Tensor:
    """Blocks of a scale and a minimum (float16) and 32 integers of 4 bits."""
    block = blocks.view(-1, 20)
    pair = _halves(block[:, :4])
    return _nibbles(block[:, 4:]).mul_(pair[:, :1]).add_(pair[:, 1:])


def _halves(stored: Tensor) -> Tensor:
    return stored.contiguous().view(torch.float16).float()


def _nibbles(stored: Tensor) -> Tensor:
    """Return the low 4 bits of all bytes of a block, then the high ones. Shape: (blocks, 32)."""
    values = torch.empty(len(stored), 2, stored.shape[1], device=stored.device)
    values[:, 0] = stored & 15
    values[:, 1] = stored >> 4
    return values.flatten(1)


def _decode_by_package(blocks: Tensor, kind: str) -> Tensor:
    import gguf

    values = gguf.dequantize(blocks.cpu().numpy(), gguf.GGMLQuantizationType[kind])
    return torch.from_numpy(values).to(blocks.device)


_DECODERS: dict[str, Callable[[Tensor], Tensor]] = {"Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1}
