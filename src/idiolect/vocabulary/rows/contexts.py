"""Snippets of a corpus in which new tokens stand, found in one pass.

What is notable: a snippet counts for every new token in it. In text of the domain terms stand close
together, so a few thousand snippets are enough for thousands of terms, and the pass ends as soon as
every term has its share.
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
"""Ids of a part of a document, without special tokens."""


@dataclass(frozen=True)
class Contexts:
    """What was found."""

    snippets: list[Snippet]
    """They do not overlap."""
    count: Counter[int]
    """In how many snippets each new id stands."""


def find_contexts(
    tokenizer: Tokenizer, corpus: Iterable[str], *, first_id: int, contexts: int, length: int
) -> Contexts:
    """Cut out snippets around new tokens, until each has enough or the corpus ends.

    They come from the beginning of the corpus, so one that is sorted should be shuffled.

    Args:
        tokenizer: The extended tokenizer.
        corpus: Documents of the domain.
        first_id: The first new id.
        contexts: Snippets wanted for each new id.
        length: Tokens in a snippet, at most.
    """
    found = Contexts([], Counter())
    lacking = set(range(first_id, len(tokenizer)))
    for texts in batches(corpus):
        for ids in tokenizer.encode_batch(texts, special_tokens=False):
            _cut(np.array(ids, dtype=np.int32), found, lacking, first_id, contexts, length)
        if not lacking:
            break
    return found


def _cut(
    ids: NDArray[np.int32],
    found: Contexts,
    lacking: set[int],
    first_id: int,
    contexts: int,
    length: int,
) -> None:
    """Take the snippets of one document that are still wanted; they do not overlap."""
    end = 0
    for place in np.flatnonzero(ids >= first_id).tolist():
        if place < end or int(ids[place]) not in lacking:
            continue
        start = max(end, min(place - length // 2, len(ids) - length))
        end = start + length
        snippet = ids[start:end]
        found.snippets.append(snippet)
        new = set(snippet[snippet >= first_id].tolist())
        found.count.update(new)
        lacking -= {id_ for id_ in new if found.count[id_] >= contexts}
