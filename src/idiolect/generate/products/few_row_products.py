"""Choose which products of a generating network are computed by `few_row_kernels`.

These are products of at most 64 rows with a float32 or 8-bit matrix (16 rows with a float32 matrix
if torch uses wider vectors), on a CPU in inference mode. 8-bit weights are used directly; torch
would dequantize the whole matrix at each call. Everything else is left to torch: prompts, small
matrices, and processes with more than four threads, where the work per thread would be too small
for Python threads.

The choice depends only on shapes, the processor and the number of threads, so equal calls have
equal results.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, wraps
from itertools import pairwise
from types import ModuleType
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from idiolect.models.gguf.gguf_blocks import GGUFMatrix
from idiolect.nn.basic import products_by
from idiolect.nn.quantization import Int8Matrix
from idiolect.nn.quantized_matrix import QuantizedMatrix

__all__ = ["few_row_product", "reads_few_rows"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

_MOST_ROWS = 64
_MOST_FLOAT_ROWS = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else _MOST_ROWS
"""Products of more rows are compute-bound, and torch may use wider vectors for them."""
_MOST_OF_BLOCKS, _MOST_THREADS = 4, 4
_SMALL = 1 << 16
"""Smaller matrices stay in the caches, so the overhead of a call costs more than reading."""
_SHARED = 1 << 19
"""Products with smaller matrices take less time than handing work to a thread."""
_NOTHING = np.empty(0, np.float32)


def reads_few_rows(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Run a function in inference mode, with `few_row_product` for the products of a network."""

    @wraps(function)
    def inner(*arguments: _P.args, **named: _P.kwargs) -> _R:
        with torch.inference_mode(), products_by(few_row_product):
            return function(*arguments, **named)

    return inner


def few_row_product(
    x: Tensor, weight: Tensor | QuantizedMatrix, bias: Tensor | None
) -> Tensor | None:
    """Return x·weightᵀ + bias, or None if the product is left to torch.

    Shape: x (…, in), weight (out, in), bias (out), result (…, out).
    """
    *outer, width = x.shape
    rows, threads = x.numel() // width, torch.get_num_threads()
    if not 0 < rows <= _MOST_ROWS or weight.numel() < _SMALL or threads > _MOST_THREADS:
        return None
    if x.dtype != torch.float32 or x.device.type != "cpu":
        return None
    added = _NOTHING if bias is None else bias.detach().numpy()
    if isinstance(weight, Tensor):
        plain = weight.dtype == torch.float32 and weight.is_contiguous()
        if not plain or rows > _MOST_FLOAT_ROWS:
            return None
        multiply, *matrix = _kernels().multiply_rows, weight.detach().numpy(), _NOTHING, added
    elif isinstance(weight, Int8Matrix):
        part = slice(weight.first, weight.first + weight.count)
        codes, scales = weight.codes.numpy()[part], weight.scales.numpy()[part]
        multiply, *matrix = (
            _kernels().multiply_rows,
            codes.view(np.int8),
            scales.view(np.float32)[:, 0],
            added,
        )
    elif isinstance(weight, GGUFMatrix) and weight.format == "Q8_0" and rows <= _MOST_OF_BLOCKS:
        multiply, *matrix = _kernels().multiply_q8_0, *_q8_0(weight)
    else:
        return None
    # NumPy views are much cheaper than torch views, whose cost matters for one row.
    count = len(matrix[0])
    result = np.empty((*outer, count), np.float32)
    arguments = *matrix, x.contiguous().numpy().reshape(rows, width), result.reshape(rows, count)
    if threads == 1 or weight.numel() < _SHARED:
        multiply(*arguments, 0, count)
    else:
        _share(multiply, arguments, count, threads)
    if bias is not None and multiply is not _kernels().multiply_rows:
        result += added
    return torch.from_numpy(result)


def _share(
    multiply: Callable[..., None], arguments: Sequence[Any], count: int, threads: int
) -> None:
    """Split the `count` rows of a matrix between threads."""
    borders = [count * part // threads for part in range(threads + 1)]
    others = [
        _threads(os.getpid()).submit(multiply, *arguments, start, stop)
        for start, stop in pairwise(borders[1:])
    ]
    multiply(*arguments, 0, borders[1])
    for other in others:
        other.result()


_SCALES: WeakKeyDictionary[GGUFMatrix, NDArray[np.float32]] = WeakKeyDictionary()


def _q8_0(matrix: GGUFMatrix) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return the bytes of a matrix and the scales of its blocks, cached in float32."""
    if matrix not in _SCALES:
        halves = matrix.stored().view(matrix.count, -1, 34)[:, :, :2].contiguous()
        _SCALES[matrix] = halves.view(torch.float16).float()[:, :, 0].numpy()
    return matrix.stored().view(torch.int8).numpy(), _SCALES[matrix]


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """Return the thread pool of a process; a forked child cannot use its parent's threads."""
    return ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix=f"few-rows-{process}")


@cache
def _kernels() -> ModuleType:
    # Imported late: numba takes half a second, and many programs only load a model.
    from idiolect.generate.products import few_row_kernels

    return few_row_kernels
