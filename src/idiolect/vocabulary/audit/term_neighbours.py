"""The nearest words of a term in word vectors, which show how a corpus uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from idiolect.words.word_stream import split_words

if TYPE_CHECKING:
    from idiolect.words.word_vectors import WordVectors

__all__ = ["term_neighbours"]


def term_neighbours(vectors: WordVectors, term: str, top_k: int = 3) -> list[str]:
    """Return the words nearest to a term; none if it has a word without a vector.

    A term of several words is looked up joined by `_`, as `--phrases` writes it. Otherwise the
    directions of its words are added.

    >>> from idiolect.words.word_vectors import WordVectors
    >>> vectors = WordVectors(["heat", "pump", "boiler"], [[1, 0], [0, 1], [1, 1]])
    >>> term_neighbours(vectors, "Heat pump", top_k=1)
    ['boiler']
    """
    words = split_words(term)
    whole = next((form for form in (term, "_".join(words)) if form in vectors), None)
    if whole is not None:
        words = [whole]
    if not words or any(word not in vectors for word in words):
        return []
    return [word for word, _ in vectors.most_similar(words, top_k)]
