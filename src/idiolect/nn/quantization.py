"""Quantise the matrices of a network's layers, to NF4 or to 8-bit integers.

    nf4     4.25 bits a weight    QLoRA (Dettmers et al. 2023, 2305.14314): blocks of 32 weights
                                  share a maximum; a weight is one of 16 quantiles of a normal
                                  distribution; the maxima are themselves quantised
    int8    8 bits and a row's    LLM.int8 without its outlier columns (Dettmers et al. 2022,
            scale                 2208.07339): each row is scaled by its maximum

Both are lossy. Vocabulary rows, norms and biases keep full precision, as do the heads.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from idiolect.errors import ConfigError
from idiolect.nn.quantized_matrix import QuantizedMatrix

__all__ = [
    "NF4_VALUES",
    "Int8Matrix",
    "NF4Matrix",
    "QuantizedFormat",
    "quantize_layers",
    "quantized",
    "replace_weight",
]

QuantizedFormat = Literal["nf4", "int8"]
"""The formats of quantised matrices."""

NF4_VALUES = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""The 16 values of NF4, as published in appendix E of the paper."""
_BLOCK, _GROUP = 32, 256
"""Number of weights that share a maximum, and number of maxima that share a scale.

The paper's blocks have 64 weights. With 32, 3% more memory, bits per byte of SmolLM2 rise by 9%
instead of 11% before any training.
"""
_LARGEST_FLOAT8 = 448.0
_TINY = torch.finfo(torch.float32).tiny


class NF4Matrix(QuantizedMatrix):
    """A matrix in 4-bit NormalFloat with double quantisation.

    Rows are padded to whole blocks. The maxima of the blocks, less their mean, are 8-bit floats
    (e4m3) that share a float32 scale among 256.

    Args:
        matrix: The matrix to quantise. Shape: (rows, width).
    """

    format = "nf4"

    def __init__(self, matrix: Tensor) -> None:
        rows, width = matrix.shape
        count = -(-width // _BLOCK)
        padded = nn.functional.pad(matrix.detach().float(), (0, count * _BLOCK - width))
        blocks = padded.view(rows, count, _BLOCK)
        maxima = blocks.abs().amax(-1)
        mean = maxima.mean()
        flat = (maxima - mean).flatten()
        groups = nn.functional.pad(flat, (0, -len(flat) % _GROUP)).view(-1, _GROUP)
        scales = groups.abs().amax(1).clamp(min=_TINY) / _LARGEST_FLOAT8
        short = (groups / scales[:, None]).to(torch.float8_e4m3fn).flatten()[: len(flat)]
        super().__init__(
            rows,
            width,
            codes=torch.empty(rows, count * _BLOCK // 2, dtype=torch.uint8),
            maxima=short.view(torch.uint8).view(rows, count),
            scales=torch.cat([scales, mean[None]]).view(torch.uint8),
        )
        # Encode weights relative to the quantised maxima, with which they will be decoded.
        read = self._read_maxima(slice(0, rows)).clamp(min=_TINY)
        borders = (_values(matrix.device)[1:] + _values(matrix.device)[:-1]) / 2
        codes = torch.bucketize(blocks / read[..., None], borders, out_int32=True)
        pairs = codes.to(torch.uint8).view(rows, -1, 2)
        self.codes = pairs[..., 0] << 4 | pairs[..., 1]

    def decode(self, rows: slice | Tensor) -> Tensor:
        """De-quantise rows."""
        codes = self.get_buffer("codes")[rows]
        # Two float32 values are stored as one float64, so that each byte needs one look-up.
        pairs = _pairs(codes.device).index_select(0, codes.flatten().int())
        values = pairs.view(torch.float32).view(len(codes), -1, _BLOCK)
        values *= self._read_maxima(rows)[..., None]
        return values.flatten(1)[:, : self.width]

    def _read_maxima(self, rows: slice | Tensor) -> Tensor:
        """De-quantise the maxima of the blocks of rows. Shape: (rows, blocks)."""
        stored = self.get_buffer("maxima")
        scales = self.get_buffer("scales").view(torch.float32)
        blocks = torch.arange(stored.numel(), device=stored.device).view_as(stored)[rows]
        short = stored[rows].view(torch.float8_e4m3fn).float()
        return (short * scales[blocks // _GROUP] + scales[-1]).clamp_(min=0)


class Int8Matrix(QuantizedMatrix):
    """A matrix of 8-bit integers with one float32 scale a row.

    Args:
        matrix: The matrix to quantise. Shape: (rows, width).
    """

    format = "int8"
    codes: Tensor
    """The integers. Shape: (rows, width), uint8."""
    scales: Tensor
    """The bytes of the float32 scale of each row. Shape: (rows, 4), uint8."""

    def __init__(self, matrix: Tensor) -> None:
        exact = matrix.detach().float()
        scales = exact.abs().amax(1, keepdim=True).clamp(min=_TINY) / 127
        # In rows, even if the matrix is a transposed view, as it is of GPT-2's checkpoints.
        codes = (exact / scales).round().to(torch.int8).contiguous()
        super().__init__(
            *matrix.shape, codes=codes.view(torch.uint8), scales=scales.view(torch.uint8)
        )

    def decode(self, rows: slice | Tensor) -> Tensor:
        """De-quantise rows."""
        codes = self.get_buffer("codes")[rows].view(torch.int8)
        return codes.float().mul_(self.get_buffer("scales")[rows].view(torch.float32))


_FORMATS = {"nf4": NF4Matrix, "int8": Int8Matrix}


def quantized(matrix: Tensor, format: QuantizedFormat) -> QuantizedMatrix:
    """Quantise one matrix. Shape: (rows, width).

    Raises:
        ConfigError: The format is unknown.
    """
    if format not in _FORMATS:
        raise ConfigError(f"unknown quantization {format!r}", hint="one of " + ", ".join(_FORMATS))
    return _FORMATS[format](matrix)


def quantize_layers(blocks: Iterable[nn.Module], format: QuantizedFormat) -> None:
    """Quantise the matrices of a network's layers, in place and one at a time.

    Vocabulary rows, heads, norms and biases keep their precision.

    Args:
        blocks: The layers, `Network.blocks`.
        format: The format.

    Raises:
        ConfigError: The format is unknown, or a matrix is already quantised.
    """
    for block in blocks:
        for module in block.modules():
            if isinstance(module, nn.Linear):
                weight = module.weight
                if isinstance(weight, QuantizedMatrix):
                    raise ConfigError(
                        f"the network is quantised already, to {weight.format}",
                        hint="load it in full precision, or do not quantise it again",
                    )
                replace_weight(module, quantized(weight, format))


def replace_weight(module: nn.Module, matrix: QuantizedMatrix) -> None:
    """Replace a module's weight by a quantised matrix."""
    del module.weight
    module.weight = matrix


def _values(device: torch.device) -> Tensor:
    return torch.tensor(NF4_VALUES, device=device)


@cache
def _pairs(device: torch.device) -> Tensor:
    """Return the two values that each byte encodes, as one float64. Shape: (256,)."""
    values = _values(device)
    byte = torch.arange(256, device=device)
    return torch.stack([values[byte >> 4], values[byte & 15]], dim=1).view(torch.float64).flatten()
