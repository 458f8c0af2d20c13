"""`top_items`: exact maximum inner product search for many users at once.

The matrix of all scores is larger than the caches, and selecting from it takes longer than
computing it. So it is computed in blocks: while the scores of a block are in the cache, each is
compared with the smallest of the best scores so far, which almost none exceeds.

For many users, on a processor with AVX-512 VNNI, `ItemCodes` is tried first; the matrix is then
computed only for users whose results are uncertain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from idiolect.recommend.byte_products import ItemCodes, is_hidden
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.simd import has_byte_products

__all__ = ["top_items"]

_USERS, _ITEMS = 512, 1024
"""Users and items of a block; its scores take 2 MB."""
_MANY = 1024
"""Users per batch of `ItemCodes`, and the minimum number of users for using it."""
_WORTHWHILE = 0.3
"""If the share of certain results is lower, `ItemCodes` takes more time than it saves."""
_GROUP = 64
"""Scores are checked in groups of this size, by the largest one of a group."""


def top_items(
    users: NDArray[np.float32],
    items: NDArray[np.float32],
    top_k: int,
    hidden: sparse.csr_matrix | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the items with the largest inner products, best first.

    Shape: both results (users, min(top_k, items)). The lower item number wins a tie. If fewer items
    are left, results are padded with the number −1.

    Args:
        users: Shape: (users, width).
        items: Shape: (items, width).
        top_k: Number of items per user.
        hidden: Stored entries mark items to exclude. Shape: (users, items).
    """
    users, items = (np.ascontiguousarray(one, np.float32) for one in (users, items))
    if hidden is None:
        hidden = sparse.csr_matrix((len(users), len(items)), dtype=np.float32)
    hidden.sort_indices()
    if len(users) < _MANY or not has_byte_products():
        return _by_blocks(users, items, hidden, top_k)
    codes, found = ItemCodes.of(items), []
    for start in range(0, len(users), _MANY):
        some, own = users[start : start + _MANY], hidden[start : start + _MANY]
        numbers, scores, certain = codes.largest(some, own, min(top_k, len(items)))
        numbers[~certain], scores[~certain] = _by_blocks(
            some[~certain], items, own[~certain], top_k
        )
        found.append((numbers, scores))
        if certain.mean() < _WORTHWHILE:
            after = start + _MANY
            found.append(_by_blocks(users[after:], items, hidden[after:], top_k))
            break
    numbers, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return numbers, scores


def _by_blocks(
    users: NDArray[np.float32], items: NDArray[np.float32], hidden: sparse.csr_matrix, top_k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    count = min(top_k, len(items))
    numbers = np.full((len(users), count), -1, np.int64)
    best = np.full((len(users), count), -np.inf, np.float32)
    buffer = np.empty(_USERS * _ITEMS, np.float32)
    for start in range(0, len(users), _USERS):
        some = users[start : start + _USERS]
        part = slice(start, start + len(some))
        for first in range(0, len(items), _ITEMS):
            block = items[first : first + _ITEMS]
            scores = buffer[: len(some) * len(block)].reshape(len(some), len(block))
            np.matmul(some, block.T, out=scores)
            _keep_best(
                scores, start, first, hidden.indptr, hidden.indices, numbers[part], best[part]
            )
    return numbers, best


@kernel
def _keep_best(
    scores: NDArray[np.float32],
    first_user: int,
    first: int,
    starts: NDArray[np.int32],
    hidden: NDArray[np.int32],
    numbers: NDArray[np.int64],
    best: NDArray[np.float32],
) -> None:
    """Merge a block's scores into the best scores of each row, which are in descending order."""
    last = best.shape[1] - 1
    for row in range(scores.shape[0]):
        lowest = best[row, last]
        for start in range(0, scores.shape[1], _GROUP):
            end = min(start + _GROUP, scores.shape[1])
            largest = scores[row, start]
            for column in range(start + 1, end):
                largest = max(largest, scores[row, column])
            if not largest > lowest:
                continue
            for column in range(start, end):
                score = scores[row, column]
                if score > lowest and not is_hidden(
                    first + column, first_user + row, starts, hidden
                ):
                    place = last
                    while place > 0 and best[row, place - 1] < score:
                        best[row, place] = best[row, place - 1]
                        numbers[row, place] = numbers[row, place - 1]
                        place -= 1
                    best[row, place] = score
                    numbers[row, place] = first + column
                    lowest = best[row, last]
