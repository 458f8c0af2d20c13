"""The forward pass of an encoder: from rows of ids to hidden states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from idiolect.errors import VerificationError
from idiolect.nn.matrix_precision import autocast
from idiolect.nn.network import Network
from idiolect.text.text_template import TextTemplate

__all__ = ["check_finite", "hidden_states", "second_copy", "usual_tokens_per_batch"]

_TOKENS_PER_BATCH = 2048
"""On a CPU: few enough to stay in its caches."""
_LARGE_BATCH = 1 << 15
"""On an accelerator, which needs large batches, and for a network without layers."""


def usual_tokens_per_batch(network: Network) -> int:
    """Return how many tokens a network reads at once by default."""
    small = network.device.type == "cpu" and not network.context_free
    return _TOKENS_PER_BATCH if small else _LARGE_BATCH


def hidden_states(
    network: Network,
    rows: Sequence[Sequence[int]],
    *,
    bidirectional: bool = False,
    precision: str = "fp32",
) -> tuple[Tensor, Tensor]:
    """Return the hidden states of rows, and a mask of the real tokens.

    Shape: (rows, longest, width) and (rows, longest).

    Args:
        network: The network; of an encoder-decoder network only the encoder is used.
        rows: Ids; rows may differ in length.
        bidirectional: Let a decoder's tokens attend to later ones as well.
        precision: Format of matrix products in `torch.inference_mode`. Training has its own.
    """
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
    longest = max(int(lengths.max()) if len(rows) else 0, 1)
    grid = np.zeros((len(rows), longest), dtype=np.int64)
    for number, row in enumerate(rows):
        grid[number, : len(row)] = row
    ids = torch.from_numpy(grid).to(network.device)
    mask = (torch.arange(longest) < lengths[:, None]).to(network.device)
    with autocast(precision if torch.is_inference_mode_enabled() else "fp32", network.device):
        return network.text_states(ids, mask, bidirectional=bidirectional), mask


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
        batch: The numbers of the texts.

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
