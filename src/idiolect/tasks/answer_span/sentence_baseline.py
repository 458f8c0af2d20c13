"""Baseline: the passage sentence that shares the rarest words with the question."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from idiolect.tasks.answer_span.squad_files import PassageQuestion

__all__ = ["best_sentences"]

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[।。])\s*")
"""A Latin full stop needs a space after it, since it also occurs in numbers such as 3.5."""


def best_sentences(questions: Sequence[PassageQuestion]) -> list[str]:
    """Return, for each question, the sentence of its passage that is most similar to it.

    The similarity is the summed inverse document frequency of the words in common; documents are
    the sentences of all passages.
    """
    sentences = {
        passage: [s for s in _SENTENCE_END.split(passage) if s.strip()]
        for passage in {question.context for question in questions}
    }
    total = sum(map(len, sentences.values()))
    frequency = Counter(w for own in sentences.values() for one in own for w in _words(one))
    found = []
    for question in questions:
        asked, own = _words(question.question), sentences[question.context]
        similarity = [
            sum(math.log(total / frequency[word]) for word in asked & _words(sentence))
            for sentence in own
        ]
        found.append(own[max(range(len(own)), key=lambda i: similarity[i])].strip())
    return found


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
