"""Texts paired with targets, packed into the rows of an encoder-decoder's batch.

encoder   │ source 1  │ source 2 │           The number of a text is the same on both sides, and
decoder   │ target 1       │ target 2 │      its target attends to its own source only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from idiolect.nn.network import Network
from idiolect.training.data.batch import IGNORE_INDEX, Batch

__all__ = ["SourceTarget", "pack_pairs", "start_id"]


class SourceTarget(NamedTuple):
    """What the encoder reads of a text, and what the decoder predicts."""

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    unpredicted: int = 0
    """How many of the first target tokens are given, not predicted."""


def start_id(network: Network) -> int | None:
    """Return the id that a decoder starts with; `None` for the last one of its target (mBART)."""
    if getattr(network.config, "shift_last", False):
        return None
    start: int | None = network.config.decoder_start_token_id
    return start


def pack_pairs(
    rows: Sequence[Sequence[SourceTarget]],
    *,
    pad_id: int,
    start: int | None,
    packed: bool = True,
) -> Batch:
    """Make a batch of the pairs of each row.

    Args:
        rows: The pairs of each row, which become its numbered documents.
        pad_id: Id that fills short rows; any id, since padding is masked.
        start: First id of the decoder's input; `None` for the last id of each target.
        packed: Whether pairs share rows; otherwise each becomes a row of its own.
    """
    if not packed:
        rows = [[pair] for row in rows for pair in row]
    read, labels = [], []
    for row in rows:
        for pair in row:
            given = np.roll(pair.target, 1)
            if start is not None:
                given[:1] = start
            read.append(given)
            expected = pair.target.copy()
            expected[: pair.unpredicted] = IGNORE_INDEX
            labels.append(expected)
    counts = [len(row) for row in rows]
    sources = [pair.source for row in rows for pair in row]
    input_ids, attention_mask = _grid(sources, counts, pad_id)
    decoder_input_ids, decoder_mask = _grid(read, counts, pad_id)
    return Batch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        labels=_grid(labels, counts, IGNORE_INDEX)[0],
        decoder_input_ids=decoder_input_ids,
        decoder_attention_mask=decoder_mask,
    )


def _grid(
    texts: Sequence[NDArray[np.int64]], counts: Sequence[int], fill: int
) -> tuple[Tensor, Tensor]:
    """Concatenate texts into rows, and number them in each. Shape: two of (rows, longest)."""
    ends = np.cumsum(counts)
    own = [texts[end - count : end] for count, end in zip(counts, ends, strict=True)]
    sizes = [sum(map(len, one)) for one in own]
    ids = np.full((len(counts), max(sizes, default=0)), fill, np.int64)
    numbers = np.zeros_like(ids)
    for row, one in enumerate(own):
        if one:
            ids[row, : sizes[row]] = np.concatenate(one)
            numbers[row, : sizes[row]] = np.repeat(np.arange(1, len(one) + 1), [*map(len, one)])
    return torch.from_numpy(ids), torch.from_numpy(numbers)
