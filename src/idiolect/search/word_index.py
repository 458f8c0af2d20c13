"""`WordIndex`: approximate nearest-neighbour search of word vectors.

`WordVectors.most_similar` compares the query with all vectors. Here the words are the items of an
`Index`, whose graph is searched. The folder is a normal index.

>>> words = WordIndex.build("index", WordVectors.load("words.safetensors"))  # doctest: +SKIP
>>> words.most_similar("heat", top_k=10)                                     # doctest: +SKIP
[('warmth', 0.83), …]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from idiolect.errors import InputError
from idiolect.search.index import Index
from idiolect.search.index_location import is_index
from idiolect.text.arguments import check_path, check_whole, iterate_texts
from idiolect.words.word_vectors import Neighbour, WordVectors

__all__ = ["WordIndex"]


class WordIndex:
    """Words and their vectors in an index.

    Args:
        index: An index whose items are words with vectors.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self.left_out = 0
        """Words that `build` skipped, since a zero vector has no direction."""

    @classmethod
    def build(cls, path: str | Path, vectors: WordVectors, *, progress: bool = False) -> Self:
        """Build an index of words, or resume building it.

        Args:
            path: The folder of the index.
            vectors: The words and their vectors.
            progress: Show progress on a terminal.

        Raises:
            InputError: Every vector is zero.
            ConfigError: The folder has an index of another width.
        """
        known = np.flatnonzero(vectors.vectors.any(1)).tolist()
        if not known:
            raise InputError("every vector is zero", hint="train the vectors again")
        rows = ((vectors.words[row], vectors.vectors[row]) for row in known)
        none: dict[str, Any] = {}
        items = ((word, word, none, vector) for word, vector in rows)
        made = cls(Index.build(path, None, items, progress=progress))
        made.left_out = len(vectors) - len(known)
        return made

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open an index. Close it, or use it as a context manager.

        Raises:
            InputError: The folder has no index.
        """
        return cls(Index.open(path))

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Return whether a folder has an index."""
        return is_index(check_path(path, "path"))

    def close(self) -> None:
        """Close the files of the index."""
        self.index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.index)

    def most_similar(
        self, word: str | Sequence[str], top_k: int = 10, *, negative: Sequence[str] = ()
    ) -> list[Neighbour]:
        """Return the nearest words by cosine, without the given ones, as `WordVectors` does.

        Args:
            word: A word, or several whose directions are added.
            top_k: Number of words.
            negative: Words whose directions are subtracted.

        Raises:
            InputError: A word is unknown, or the directions cancel out.
        """
        check_whole(top_k, "top_k", least=1)
        positive = [word] if isinstance(word, str) else list(iterate_texts(word, "word"))
        subtracted = list(iterate_texts(negative, "negative"))
        given = [*positive, *subtracted]
        if not given:
            raise InputError("no words to compare with", hint="pass at least one word")
        found = self.index.store.fetch(given, vectors=True)
        query = np.zeros(self.index.store.dimensions, np.float32)
        for number, one in enumerate(given):
            vector = found[one].vector if one in found else None
            if vector is None:
                raise InputError(f"no vector of {one!r}", hint="check its spelling, or its case")
            sign = 1 if number < len(positive) else -1
            query += sign * vector / np.linalg.norm(vector)
        if not query.any():
            raise InputError("the words' directions cancel out", hint="pass other words")
        (hits,) = self.index.search_vectors(query[None], top_k + len(set(given)))
        return [(hit.id, hit.score) for hit in hits if hit.id not in given][:top_k]
