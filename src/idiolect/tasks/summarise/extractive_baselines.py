"""Extractive references: the first sentence (baseline) and the best one (upper bound)."""

from __future__ import annotations

from collections.abc import Sequence

from idiolect.tasks.summarise.rouge import rouge
from idiolect.tasks.summarise.summarised_texts import SummarisedText, split_sentences

__all__ = ["best_sentence", "first_sentence"]


def first_sentence(texts: Sequence[SummarisedText]) -> list[str]:
    """Return the first sentence of each text (LEAD-1)."""
    return [split_sentences(text.text)[0] for text in texts]


def best_sentence(texts: Sequence[SummarisedText], *, use_stemmer: bool = True) -> list[str]:
    """Return the sentence of each text with the highest ROUGE-1: an oracle, not a system."""
    found = []
    for text in texts:
        sentences = split_sentences(text.text)
        own = rouge(sentences, [text.summaries] * len(sentences), use_stemmer=use_stemmer)
        found.append(sentences[max(range(len(sentences)), key=lambda i: own.each[i])])
    return found
