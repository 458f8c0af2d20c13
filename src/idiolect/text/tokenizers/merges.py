"""The merge list behind a ranked vocabulary.

SentencePiece and tiktoken publish BPE without merges: two neighbours may merge whenever together
they are a piece, the best-ranked piece first and the leftmost first among equals. The `tokenizers`
engine wants pairs. One pair a piece is enough: as long as no merge crosses a piece's borders, the
merges inside it happen just as they do when the piece stands alone, so the two parts that are left
last when it stands alone are the only two that can ever form it.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, AnyStr

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["merges_from_ranks"]


def merges_from_ranks(ranks: Mapping[AnyStr, float]) -> list[tuple[AnyStr, AnyStr]]:
    """Reconstruct the merges of a ranked vocabulary, in the order in which they apply.

    Among pieces of equal rank the longer come first. Where they differ only by a repeated end, as
    runs of spaces do, this is the leftmost-first rule: a run goes on growing before another
    begins. Other overlapping pieces of equal rank cannot be told apart in a merge list.

    Args:
        ranks: each piece (text, or bytes) with its rank; lower merges first.

    Returns:
        The pairs; single symbols, and pieces that no sequence of merges reaches, have none.
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
