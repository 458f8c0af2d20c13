"""Cross-entropy over a vocabulary without storing all logits.

- Tokens go through the head in chunks. The gradient is computed in the forward pass from the
  chunk's logits, so nothing of the size tokens × vocabulary is stored or computed twice (as in
  Wijmans et al. 2024, 2411.09009, and Hsu et al. 2024, 2410.10989).
- The vocabulary may come in blocks, each with its own weights. A frozen block costs two matrix
  products, one for the scores and one for the hidden states' gradient. A trained block costs a
  third, and only a trained block has a gradient buffer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from idiolect.nn.basic import linear, transposed_linear
from idiolect.nn.embedding import ExtendedRows
from idiolect.nn.network import Network
from idiolect.nn.quantized_matrix import QuantizedMatrix

__all__ = ["Block", "cross_entropy", "score_in_chunks", "vocabulary_blocks"]

Block = tuple[Tensor | QuantizedMatrix, Tensor | None]
"""Consecutive rows of a head, and their biases. (rows, width) and (rows,)."""

_CHUNK_BYTES = {"cpu": 32 << 20}
"""Size of a chunk's logits on a CPU: small, so that part of it fits into the caches."""
_CHUNK_BYTES_ELSEWHERE = 512 << 20


def vocabulary_blocks(network: Network) -> list[Block]:
    """Return the rows and biases of a network's language-model head, in the order of ids."""
    head = network.language_head
    rows = network.tokens.weight if head.weight is None else head.weight
    weights: Sequence[Tensor | QuantizedMatrix] = (
        rows.blocks() if isinstance(rows, ExtendedRows) else [rows]
    )
    if head.bias is None:
        return [(weight, None) for weight in weights]
    biases = head.bias.blocks() if isinstance(head.bias, ExtendedRows) else [head.bias]
    return [(w, b) for w, b in zip(weights, biases, strict=True) if isinstance(b, Tensor)]


def cross_entropy(
    hidden: Tensor,
    targets: Tensor,
    blocks: Sequence[Block],
    *,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the sum over tokens of −log softmax(hidden·rowsᵀ + biases)[target].

    Shape: hidden (tokens, width), targets (tokens,), result a scalar in float32.

    Args:
        hidden: Hidden states after `LanguageHead.transform`.
        targets: Ids, counted over all blocks.
        blocks: The rows of the vocabulary.
        softcap: The bound of the logits, `LanguageHead.softcap`.
        label_smoothing: The share ε of each target's probability that is spread evenly over the
            vocabulary (Szegedy et al. 2016, 1512.00567), as in `torch.nn.CrossEntropyLoss`.
    """
    flat = [tensor for block in blocks for tensor in block]
    training = torch.is_grad_enabled()
    total: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, targets, training, softcap, label_smoothing, *flat
    )
    return total


def score_in_chunks(
    hidden: Tensor, blocks: Sequence[Block]
) -> Iterator[tuple[slice, list[Tensor]]]:
    """Compute the logits for one chunk of tokens at a time.

    Yields:
        The chunk's tokens, and their scores in float32: one tensor (chunk, rows) per block.
    """
    rows = sum(len(weight) for weight, _ in blocks)
    budget = _CHUNK_BYTES.get(hidden.device.type, _CHUNK_BYTES_ELSEWHERE)
    chunk = max(16, budget // (4 * rows))
    for start in range(0, len(hidden), chunk):
        part = slice(start, start + chunk)
        yield part, [linear(hidden[part], weight, bias).float() for weight, bias in blocks]


def _product_type(x: Tensor) -> torch.dtype:
    """Return the dtype of matrix products: autocast's, or that of the hidden states."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        targets: Tensor,
        training: bool,
        softcap: float | None,
        smoothing: float,
        *flat: Any,
    ) -> Tensor:
        dtype = _product_type(hidden)
        x, weights = hidden.to(dtype), [_converted(weight, dtype) for weight in flat[::2]]
        biases = [None if bias is None else bias.to(dtype) for bias in flat[1::2]]
        needed = [training and need for need in ctx.needs_input_grad]
        grad_hidden = torch.empty_like(hidden) if needed[0] else None
        grad_flat = [
            torch.zeros_like(tensor, dtype=torch.float32) if need else None
            for tensor, need in zip(flat, needed[5:], strict=True)
        ]
        total = hidden.new_zeros((), dtype=torch.float32)
        for part, scores in score_in_chunks(x, list(zip(weights, biases, strict=True))):
            total += _nll_to_gradients(scores, targets[part], softcap, smoothing)
            if grad_hidden is not None:
                products = (
                    transposed_linear(s.to(dtype), w) for s, w in zip(scores, weights, strict=True)
                )
                grad_hidden[part] = reduce(torch.add, products)
            for grad, grad_weight, grad_bias in zip(
                scores, grad_flat[::2], grad_flat[1::2], strict=True
            ):
                if grad_weight is not None:
                    _add_product(grad_weight, grad.to(dtype).t(), x[part])
                if grad_bias is not None:
                    grad_bias += grad.sum(0)
        ctx.save_for_backward(grad_hidden, *grad_flat)
        ctx.types = [tensor.dtype if tensor is not None else None for tensor in flat]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, *grad_flat = ctx.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden * scale,
            None,
            None,
            None,
            None,
            *(
                None if grad is None else (grad * scale).to(dtype)
                for grad, dtype in zip(grad_flat, ctx.types, strict=True)
            ),
        )


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right; with equal dtypes in place, without a temporary as large as the rows."""
    if total.dtype == right.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _converted(weight: Tensor | QuantizedMatrix, dtype: torch.dtype) -> Tensor | QuantizedMatrix:
    """Convert a block to the dtype of products; a quantised one is converted when it is read."""
    return weight if isinstance(weight, QuantizedMatrix) else weight.to(dtype)


def _nll_to_gradients(
    scores: list[Tensor], targets: Tensor, softcap: float | None = None, smoothing: float = 0.0
) -> Tensor:
    """Return the summed loss of a chunk; replace its scores by the gradient of the loss."""
    slopes = []
    if softcap is not None:
        for block in scores:
            bounded = block.div_(softcap).tanh_()
            slopes.append(1 - bounded.square())
            block.mul_(softcap)
    # In place, and with one exponential: this is half of the time that is not matrix products.
    highest = reduce(torch.maximum, (block.amax(-1) for block in scores))
    spread = smoothing / sum(block.shape[-1] for block in scores)
    places, total = [], highest.new_zeros(())
    first = 0
    for block in scores:
        block.sub_(highest[:, None])
        own = (targets >= first) & (targets < first + block.shape[-1])
        token = own.nonzero().squeeze(-1)
        places.append((token, targets[token] - first))
        total = total - (1.0 - smoothing) * block[places[-1]].sum()
        if smoothing:
            total = total - spread * block.sum()
        first += block.shape[-1]
    mass = reduce(torch.add, (block.exp_().sum(-1) for block in scores))
    total = total + mass.log().sum()
    for block, place in zip(scores, places, strict=True):
        block.div_(mass[:, None])
        block[place] -= 1.0 - smoothing
        if smoothing:
            block.sub_(spread)
    if slopes:
        for block, slope in zip(scores, slopes, strict=True):
            block.mul_(slope)
    return total
