"""Answers without a model: quote the sentences of the passages that match a question best."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from idiolect.search.answers.answer import Citation, Passage
from idiolect.search.answers.support import content_terms
from idiolect.search.chunks import sentence_spans

__all__ = ["SentenceScorer", "best_sentences"]

SentenceScorer = Callable[[str, Sequence[str]], NDArray[np.float32]]
"""Returns the relevance of sentences to a question, from 0 to 1. Shape: (sentences,)."""

_MAX_SENTENCES = 400
_CLOSE = 0.9
"""Minimum score of further sentences, as a fraction of the best score."""


def best_sentences(
    question: str, passages: Sequence[Passage], score: SentenceScorer, *, most: int
) -> list[Citation]:
    """Return the sentences that match a question best, best first.

    Sentences of higher-ranked passages get a bonus of at most a tenth of their score.

    Args:
        question: The question.
        passages: The passages, best first.
        score: Scores sentences.
        most: Maximum number of sentences.
    """
    found = []
    for rank, passage in enumerate(passages):
        for start, end in sentence_spans(passage.text):
            text = passage.text[start:end]
            if content_terms(text) and not text.endswith("?"):
                place = passage.start + start
                found.append((rank, Citation(passage.id, place, place + len(text), text, True)))
    del found[_MAX_SENTENCES:]
    if not found:
        return []
    scores = score(question, [citation.text for _, citation in found])
    ranks = np.array([rank for rank, _ in found])
    weighted = scores * (0.9 + 0.1 / (1 + ranks))
    order = np.argsort(-weighted, kind="stable")
    chosen: list[Citation] = []
    for n in order:
        if len(chosen) == most or weighted[n] < _CLOSE * weighted[order[0]]:
            break
        if all(found[n][1].text != other.text for other in chosen):
            chosen.append(found[n][1])
    return chosen
