"""Encoded conversations as rows of a batch: one a row, or several that do not see one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from idiolect.alignment.chat.chat_encoding import EncodedText
from idiolect.training.data.batch import IGNORE_INDEX, Batch

__all__ = ["conversation_batch", "pack_conversations"]


def pack_conversations(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Divide conversations among rows, the longest first, each into the fullest row with room.

    Best-fit decreasing: rows are nearly full, no conversation is cut, and the result depends on
    the lengths only.

    >>> pack_conversations([5, 9, 4, 1], 10)
    [[1], [0, 2, 3]]

    Args:
        lengths: Tokens of each conversation, at most `room`.
        room: Tokens of a row.
    """
    rows: list[list[int]] = []
    free: list[list[int]] = [[] for _ in range(room + 1)]
    """Rows by the room they have left."""
    for number in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[number]
        left = next((size for size in range(length, room + 1) if free[size]), None)
        if left is None:
            rows.append([])
            row, left = len(rows) - 1, room
        else:
            row = free[left].pop()
        rows[row].append(number)
        free[left - length].append(row)
    return rows


def conversation_batch(rows: Sequence[Sequence[EncodedText]], pad_id: int) -> Batch:
    """Return rows of conversations with the label of each token that comes before a written one.

    Args:
        rows: The conversations of each row.
        pad_id: Fills short rows; masked, so any id will do.
    """
    longest = max(sum(len(text.ids) for text in row) for row in rows)
    shape = (len(rows), longest)
    ids, documents = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64)
    labels = np.full(shape, IGNORE_INDEX, np.int64)
    for place, row in enumerate(rows):
        start = 0
        for number, text in enumerate(row, 1):
            end = start + len(text.ids)
            ids[place, start:end], documents[place, start:end] = text.ids, number
            # The token before predicts it; the first of a conversation has none before it.
            own = np.where(text.written, text.ids, IGNORE_INDEX)[1:]
            labels[place, start : end - 1] = own
            start = end
    return Batch(
        input_ids=torch.from_numpy(ids),
        attention_mask=torch.from_numpy(documents),
        labels=torch.from_numpy(labels),
    )
