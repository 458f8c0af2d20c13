"""Baseline for a tagger: a dictionary of the spans in the training texts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from idiolect.tasks.tag.tagged_texts import TaggedText, TextSpan

__all__ = ["TrainingDictionary"]


class TrainingDictionary:
    """Tags the longest word sequences that were a span in at least half of their occurrences.

    Case is ignored. If a sequence had several labels, the most frequent one is used.

    Args:
        texts: Tagged texts.
    """

    def __init__(self, texts: Sequence[TaggedText]) -> None:
        labels: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for text in texts:
            words = _words(text)
            for start, end, label in text.word_spans():
                labels[words[start:end]][label] += 1
        self._longest = max(map(len, labels), default=0)
        seen: Counter[tuple[str, ...]] = Counter()
        for text in texts:
            words = _words(text)
            for start in range(len(words)):
                for end in range(start + 1, min(start + self._longest, len(words)) + 1):
                    if words[start:end] in labels:
                        seen[words[start:end]] += 1
        self._label = {
            words: counts.most_common(1)[0][0]
            for words, counts in labels.items()
            if 2 * counts.total() >= seen[words]
        }

    def tag(self, texts: Sequence[TaggedText]) -> list[tuple[TextSpan, ...]]:
        """Return the spans of each text."""
        return [self._tag(text) for text in texts]

    def _tag(self, text: TaggedText) -> tuple[TextSpan, ...]:
        words, start, found = _words(text), 0, []
        while start < len(words):
            ends = range(min(start + self._longest, len(words)), start, -1)
            end = next((end for end in ends if words[start:end] in self._label), None)
            if end is None:
                start += 1
            else:
                found.append((start, end, self._label[words[start:end]]))
                start = end
        return text.text_spans(found)


def _words(text: TaggedText) -> tuple[str, ...]:
    return tuple(text.text[start:end].lower() for start, end in text.words)
