"""The log-probability of each token, without storing all logits.

Preference and policy objectives weigh each token by a number that is known only once all texts of
a batch have been read. The forward pass therefore keeps the derivative of each token's
log-probability with respect to its hidden state, one vector a token, and the backward pass
multiplies it by the weight. Nothing of the size tokens × vocabulary is stored. Only if vocabulary
rows are trained, their logits are recomputed in the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from idiolect.nn.basic import transposed_linear
from idiolect.nn.network import Network
from idiolect.nn.quantized_matrix import QuantizedMatrix
from idiolect.training.objectives.cross_entropy import Block, score_in_chunks, vocabulary_blocks

__all__ = ["network_log_probs", "token_log_probs"]


def network_log_probs(
    network: Network, hidden: Tensor, targets: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return each token's log-probability and the entropy of its distribution.

    Shape: hidden (tokens, width), targets (tokens,), results (tokens,), both in float32.

    Args:
        network: The network whose head scores the vocabulary.
        hidden: Hidden states that predict the targets.
        targets: The predicted ids.
        temperature: Divisor of the scores.
    """
    head = network.language_head
    return token_log_probs(
        head.transform(hidden),
        targets,
        vocabulary_blocks(network),
        softcap=head.softcap,
        temperature=temperature,
    )


def token_log_probs(
    hidden: Tensor,
    targets: Tensor,
    blocks: Sequence[Block],
    *,
    softcap: float | None = None,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return log softmax(scores / temperature)[target], and the entropy in nats (no gradient).

    Shape: hidden (tokens, width), targets (tokens,), results (tokens,), both in float32.

    Args:
        hidden: Hidden states after `LanguageHead.transform`.
        targets: Ids, counted over all blocks.
        blocks: The rows of the vocabulary; see `vocabulary_blocks`.
        softcap: The bound of the logits, `LanguageHead.softcap`.
        temperature: Divisor of the scores.
    """
    flat = [tensor for block in blocks for tensor in block]
    found: tuple[Tensor, Tensor] = _TokenLogProbs.apply(  # type: ignore[no-untyped-call]
        hidden, targets, torch.is_grad_enabled(), softcap, temperature, *flat
    )
    return found


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        targets: Tensor,
        training: bool,
        softcap: float | None,
        temperature: float,
        *flat: Any,
    ) -> tuple[Tensor, Tensor]:
        x, blocks = _typed(hidden, flat)
        logs = hidden.new_zeros(len(hidden), dtype=torch.float32)
        entropy = torch.zeros_like(logs)
        needed = training and ctx.needs_input_grad[0]
        slopes = torch.empty_like(hidden) if needed else None
        for part, scores in score_in_chunks(x, blocks):
            own = _log_softmax(scores, targets[part], softcap, temperature)
            logs[part], entropy[part], gradients = own
            if slopes is not None:
                products = (
                    transposed_linear(g.to(x.dtype), weight)
                    for g, (weight, _) in zip(gradients, blocks, strict=True)
                )
                slopes[part] = reduce(torch.add, products)
        trained = training and any(ctx.needs_input_grad[5:])
        ctx.save_for_backward(slopes, *((hidden, targets) if trained else ()))
        ctx.flat, ctx.options = flat if trained else None, (softcap, temperature)
        ctx.count = len(flat)
        ctx.mark_non_differentiable(entropy)
        return logs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        slopes, *rest = ctx.saved_tensors
        grad_flat: list[Tensor | None] = [None] * ctx.count
        if rest:
            grad_flat = _row_gradients(ctx, rest[0], rest[1], weights)
        grad_hidden = None if slopes is None else slopes * weights[:, None].to(slopes.dtype)
        return grad_hidden, None, None, None, None, *grad_flat


def _row_gradients(ctx: Any, hidden: Tensor, targets: Tensor, weights: Tensor) -> list[Any]:
    """Return the gradients of the rows and biases that are trained."""
    x, blocks = _typed(hidden, ctx.flat)
    grads = [
        torch.zeros_like(tensor, dtype=torch.float32) if need else None
        for tensor, need in zip(ctx.flat, ctx.needs_input_grad[5:], strict=True)
    ]
    for part, scores in score_in_chunks(x, blocks):
        _, _, gradients = _log_softmax(scores, targets[part], *ctx.options)
        for number, own in enumerate(gradients):
            weighed = own * weights[part, None]
            grad_weight, grad_bias = grads[2 * number : 2 * number + 2]
            if grad_weight is not None:
                grad_weight += (weighed.to(x.dtype).t() @ x[part]).float()
            if grad_bias is not None:
                grad_bias += weighed.sum(0)
    return [
        None if grad is None else grad.to(tensor.dtype)
        for grad, tensor in zip(grads, ctx.flat, strict=True)
    ]


def _typed(hidden: Tensor, flat: Sequence[Any]) -> tuple[Tensor, list[Block]]:
    """Convert hidden states and rows to the dtype of matrix products."""
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    blocks: list[Block] = [
        (
            weight if isinstance(weight, QuantizedMatrix) else weight.to(dtype),
            None if bias is None else bias.to(dtype),
        )
        for weight, bias in zip(flat[::2], flat[1::2], strict=True)
    ]
    return hidden.to(dtype), blocks


def _log_softmax(
    scores: list[Tensor], targets: Tensor, softcap: float | None, temperature: float
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return a chunk's log-probabilities, entropies, and d log p / d scores (before the cap)."""
    scale, slopes = 1.0 / temperature, None
    if softcap is not None:
        bounded = [(block / softcap).tanh() for block in scores]
        slopes = [scale * (1 - one.square()) for one in bounded]
        scores = [one * softcap for one in bounded]
    if temperature != 1.0:
        scores = [block * scale for block in scores]
    highest = reduce(torch.maximum, (block.amax(-1) for block in scores))
    scores = [block - highest[:, None] for block in scores]
    chances = [block.exp() for block in scores]
    mass = reduce(torch.add, (block.sum(-1) for block in chances))
    logs, mean = -mass.log(), torch.zeros_like(mass)
    first = 0
    for number, block in enumerate(scores):
        chance = chances[number].div_(mass[:, None])
        mean = mean + (chance * block).sum(-1)
        own = (targets >= first) & (targets < first + block.shape[-1])
        token = own.nonzero().squeeze(-1)
        place = targets[token] - first
        logs[token] += block[token, place]
        chance.neg_()
        chance[token, place] += 1.0
        first += block.shape[-1]
    entropy = mass.log() - mean
    if slopes is not None:
        chances = [chance * slope for chance, slope in zip(chances, slopes, strict=True)]
    elif scale != 1.0:
        chances = [chance * scale for chance in chances]
    return logs, entropy, chances
