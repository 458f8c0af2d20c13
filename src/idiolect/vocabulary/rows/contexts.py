"""Collect snippets of a corpus that contain new tokens, in one pass.

A snippet counts for every new token in it. In domain text, terms occur close together, so a few
thousand snippets are enough for thousands of terms. The pass ends once every token has enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from idiolect.text.tokenizers.word_counts import batches

if TYPE_CHECKING:
    from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["Contexts", "Snippet", "find_contexts"]

Snippet = NDArray[np.int32]
"""Consecutive ids of a document, without special tokens. (length,), int32."""


@dataclass(frozen=True)
class Contexts:
    """Snippets that contain new tokens."""

    snippets: list[Snippet]
    """Snippets, which do not overlap."""
    count: Counter[int]
    """Number of snippets that contain each new id."""


def find_contexts(
    tokenizer: Tokenizer, corpus: Iterable[str], *, first_id: int, contexts: int, length: int
) -> Contexts:
    """Extract snippets around new tokens, until each token has enough or the corpus ends.

    They come from the beginning of the corpus, so shuffle a sorted corpus first.

    Args:
        tokenizer: The extended tokenizer.
        corpus: Documents of the domain.
        first_id: The first new id.
        contexts: Number of snippets for each new id.
        length: Maximum length of a snippet in tokens.
    """
    found = Contexts([], Counter())
    pending = set(range(first_id, len(tokenizer)))
    for texts in batches(corpus):
        for ids in tokenizer.encode_batch(texts, add_special_tokens=False):
            _take_snippets(
                np.array(ids, dtype=np.int32), found, pending, first_id, contexts, length
            )
        if not pending:
            break
    return found


def _take_snippets(
    ids: NDArray[np.int32],
    found: Contexts,
    pending: set[int],
    first_id: int,
    contexts: int,
    length: int,
) -> None:
    """Extract the needed snippets of one document, and update the counts and pending ids."""
    end = 0
    for position in np.flatnonzero(ids >= first_id).tolist():
        if position < end or int(ids[position]) not in pending:
            continue
        start = max(end, min(position - length // 2, len(ids) - length))
        end = start + length
        snippet = ids[start:end]
        found.snippets.append(snippet)
        new = set(snippet[snippet >= first_id].tolist())
        found.count.update(new)
        pending -= {id_ for id_ in new if found.count[id_] >= contexts}
