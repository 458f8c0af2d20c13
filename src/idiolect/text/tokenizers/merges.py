"""Reconstruct the merge list of a ranked vocabulary.

SentencePiece and tiktoken publish BPE without merges: two neighbours merge whenever together they
form a piece, the best-ranked piece first, and the leftmost first in case of a tie. The `tokenizers`
engine needs a list of pairs. One pair for each piece is enough: as long as no merge crosses a
piece's boundaries, the piece is merged as if it stood alone, so only the last two parts that remain
when it stands alone can form it.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, AnyStr

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["merges_from_ranks"]


def merges_from_ranks(ranks: Mapping[AnyStr, float]) -> list[tuple[AnyStr, AnyStr]]:
    """Reconstruct the merges of a ranked vocabulary, in the order in which they are applied.

    Among pieces of equal rank the longer come first. For pieces that differ only by a repeated end,
    such as runs of spaces, this is the leftmost-first rule: one run grows before the next begins.
    A merge list cannot express the order of other overlapping pieces of equal rank.

    Args:
        ranks: the rank of each piece (text, or bytes); lower ranks merge first.

    Returns:
        The pairs. Single symbols, and pieces that no sequence of merges forms, have none.
    """
    order = sorted(ranks, key=lambda piece: (ranks[piece], -len(piece)))
    merges = []
    for piece in order:
        parts = _last_two(piece, ranks)
        if parts is not None and parts[0] in ranks and parts[1] in ranks:
            merges.append(parts)
    return merges


def _last_two(piece: AnyStr, ranks: Mapping[AnyStr, float]) -> tuple[AnyStr, AnyStr] | None:
    parts = [piece[i : i + 1] for i in range(len(piece))]
    if len(parts) < 2:
        return None
    pairs = [ranks.get(parts[i] + parts[i + 1], inf) for i in range(len(parts) - 1)]
    while len(parts) > 2:
        best = min(pairs)
        if best == inf:
            return None
        at = pairs.index(best)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        del pairs[at]
        if at:
            pairs[at - 1] = ranks.get(parts[at - 1] + parts[at], inf)
        if at < len(pairs):
            pairs[at] = ranks.get(parts[at] + parts[at + 1], inf)
    return parts[0], parts[1]
