"""Rows of ids through a network, as an encoder needs it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from idiolect.errors import VerificationError
from idiolect.nn.transformer import Transformer
from idiolect.training.data.packed_documents import TextTemplate

__all__ = ["check_finite", "hidden_states", "second_reading"]


def hidden_states(
    network: Transformer, rows: Sequence[Sequence[int]], *, both_ways: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the hidden states of rows, and which of them belong to a token.

    Args:
        network: With an encoder, which is used alone, or a decoder.
        rows: Ids; they need not be of one length.
        both_ways: Let a decoder's tokens see what follows as well.

    Shape: (rows, longest, width) and (rows, longest).
    """
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
    longest = max(int(lengths.max()) if len(rows) else 0, 1)
    grid = np.zeros((len(rows), longest), dtype=np.int64)
    for number, row in enumerate(rows):
        grid[number, : len(row)] = row
    ids = torch.from_numpy(grid).to(network.device)
    mask = (torch.arange(longest) < lengths[:, None]).to(network.device)
    if network.encoder is not None:
        return network.encode(ids, mask), mask
    return network(ids, mask, heads=False, bidirectional=both_ways).hidden, mask


def second_reading(mask: Tensor, frame: TextTemplate) -> Tensor:
    """Narrow a mask to the second half of what stands within the frame (echo)."""
    before, after = len(frame.before), len(frame.after)
    once = (mask.sum(1, keepdim=True) - before - after).clamp(min=0) // 2
    place = torch.arange(mask.shape[1], device=mask.device)
    return (place >= before + once) & (place < before + 2 * once)


def check_finite(vectors: Tensor, batch: Sequence[int]) -> None:
    """Refuse vectors that no search could use.

    Args:
        vectors: Shape (texts, dimensions).
        batch: The numbers of the texts.

    Raises:
        VerificationError: One is not finite; the first such text is named.
    """
    finite = torch.isfinite(vectors).all(-1)
    if not bool(finite.all()):
        number = min(text for text, fine in zip(batch, finite.tolist(), strict=True) if not fine)
        raise VerificationError(
            f"the vector of text {number} is not finite",
            hint="the weights are damaged or training diverged; load an earlier checkpoint",
        )
