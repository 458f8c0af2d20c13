"""`CorpusStatistics`: token and word counts of a tokenizer on a corpus."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["CorpusStatistics", "WorstDocument"]


@dataclass(frozen=True)
class WorstDocument:
    """A document with many tokens per word."""

    index: int
    """Position in the corpus, from 0."""
    tokens_per_word: float
    words: int
    beginning: str
    """The first 80 characters of its text."""


@dataclass
class CorpusStatistics:
    """Token and word counts of a tokenizer on a corpus."""

    documents: int = 0
    words: int = 0
    """Whitespace-separated words."""
    bytes: int = 0
    """UTF-8 bytes."""
    tokens: int = 0
    """Excluding the special tokens that a template adds."""
    unknown: int = 0
    """Unknown tokens, emitted for text outside the vocabulary."""
    pieces: Counter[int] = field(default_factory=Counter)
    """Number of words by number of pieces: `{1: words kept whole, 2: words split in two, …}`."""
    worst: list[WorstDocument] = field(default_factory=list)
    """The 20 documents with the most tokens per word, of at least 10 words, worst first."""

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes per token."""
        return self.bytes / max(self.tokens, 1)

    @property
    def tokens_per_word(self) -> float:
        """Tokens per word (fertility)."""
        return self.tokens / max(self.words, 1)

    @property
    def unknown_share(self) -> float:
        """Fraction of unknown tokens, 0 to 1."""
        return self.unknown / max(self.tokens, 1)
