"""Batches of encoded conversations: one per row, or several that do not see one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from idiolect.alignment.chat.chat_encoding import EncodedText
from idiolect.training.data.batch import IGNORE_INDEX, Batch

__all__ = ["conversation_batch", "pack_conversations"]


def pack_conversations(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Assign conversations to rows, the longest first, each to the fullest row with room.

    This is best-fit decreasing: rows are nearly full, no conversation is cut, and the result
    depends only on the lengths.

    >>> pack_conversations([5, 9, 4, 1], 10)
    [[1], [0, 2, 3]]

    Args:
        lengths: Tokens of each conversation, at most `room`.
        room: Tokens of a row.
    """
    rows: list[list[int]] = []
    free: list[list[int]] = [[] for _ in range(room + 1)]
    """Rows by their free room."""
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
    """Return rows of conversations; each token that precedes a written one is labelled with it.

    Args:
        rows: The conversations of each row.
        pad_id: Padding token; masked, so any id will do.
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
            # The preceding token predicts it; the first token of a conversation has none.
            own = np.where(text.written, text.ids, IGNORE_INDEX)[1:]
            labels[place, start : end - 1] = own
            start = end
    return Batch(
        input_ids=torch.from_numpy(ids),
        attention_mask=torch.from_numpy(documents),
        labels=torch.from_numpy(labels),
    )
