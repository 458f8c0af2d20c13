"""The forward pass of an encoder: from rows of ids to hidden states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from idiolect.errors import VerificationError
from idiolect.nn.matrix_precision import autocast
from idiolect.nn.network import Network, Output
from idiolect.text.templates.text_template import TextTemplate

__all__ = ["check_finite", "hidden_states", "second_copy", "usual_tokens_per_batch"]

_TOKENS_PER_BATCH = 2048
"""Tokens per batch on a CPU: few enough that activations stay in its caches."""
_LARGE_BATCH = 1 << 15
"""Tokens per batch on an accelerator, and for a network without layers."""


def usual_tokens_per_batch(network: Network) -> int:
    """Return the default number of tokens per forward pass of a network."""
    small = network.device.type == "cpu" and not network.context_free
    return _TOKENS_PER_BATCH if small else _LARGE_BATCH


def hidden_states(
    network: Network,
    rows: Sequence[Sequence[int]],
    *,
    bidirectional: bool = False,
    precision: str = "fp32",
    token_types: Sequence[Sequence[int]] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the hidden states of rows, and a mask of the real tokens.

    Shape: (rows, longest, width) and (rows, longest).

    Args:
        network: The network; of an encoder-decoder network only the encoder is used.
        rows: Ids; rows may differ in length.
        bidirectional: Let a decoder's tokens attend to later ones as well.
        precision: Format of matrix products in `torch.inference_mode`; training does not use it.
        token_types: The segment of each id, for a network that has segments; others ignore it.
    """
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
    ids = _grid(rows).to(network.device)
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).to(network.device)
    has_types = getattr(network.config, "type_vocab_size", 0) > 1
    with autocast(precision if torch.is_inference_mode_enabled() else "fp32", network.device):
        if token_types is None or not has_types:
            return network.text_states(ids, mask, bidirectional=bidirectional), mask
        types = _grid(token_types).to(network.device)
        output: Output = network(ids, mask, token_type_ids=types, return_logits=False)
        return output.hidden_states, mask


def _grid(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return rows padded with zeros on the right. Shape: (rows, longest)."""
    grid = np.zeros((len(rows), max((len(row) for row in rows), default=0) or 1), dtype=np.int64)
    for number, row in enumerate(rows):
        grid[number, : len(row)] = row
    return torch.from_numpy(grid)


def second_copy(mask: Tensor, template: TextTemplate) -> Tensor:
    """Restrict a mask to the second copy of the text within the template (echo)."""
    before, after = len(template.before), len(template.after)
    length = (mask.sum(1, keepdim=True) - before - after).clamp(min=0) // 2
    position = torch.arange(mask.shape[1], device=mask.device)
    return (position >= before + length) & (position < before + 2 * length)


def check_finite(vectors: Tensor, batch: Sequence[int]) -> None:
    """Refuse vectors that are not finite.

    Args:
        vectors: Shape (texts, dimensions).
        batch: The index of each text.

    Raises:
        VerificationError: A vector is not finite; the message names the first such text.
    """
    finite = torch.isfinite(vectors).all(-1)
    if not bool(finite.all()):
        number = min(text for text, fine in zip(batch, finite.tolist(), strict=True) if not fine)
        raise VerificationError(
            f"the vector of text {number} is not finite",
            hint="the weights are damaged or training diverged; load an earlier checkpoint",
        )
