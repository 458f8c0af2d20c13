"""`WordVectors`: words and their vectors; look up, compare, search, load and save.

>>> vectors = WordVectors(["heat", "warmth", "tax"], [[1, 0], [0.9, 0.1], [0, 1]])
>>> vectors.most_similar("heat", top_k=1)[0][0]
'warmth'
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from idiolect.errors import InputError
from idiolect.text.arguments import check_path, check_whole, iterate_texts
from idiolect.text.suggestions import did_you_mean
from idiolect.words.character_ngrams import NgramRows
from idiolect.words.vector_formats import VectorTable, read_vectors, write_vectors
from idiolect.words.word_stream import split_words

__all__ = ["Neighbour", "WordVectors"]

Neighbour = tuple[str, float]
"""A word and its similarity."""
_BLOCK = 65_536


class WordVectors:
    """Words with a vector each.

    Args:
        words: The words, without duplicates.
        vectors: Their vectors; memory-mapped ones stay on disk. (words, dimensions).
        counts: Occurrences of each word in the training text. (words,).
        ngrams: The n-grams that give unknown words a vector.
        ngram_table: The vectors of n-grams. (buckets, dimensions).

    Raises:
        InputError: A word is duplicated or has a space, or a vector is not finite.
    """

    def __init__(
        self,
        words: Sequence[str],
        vectors: ArrayLike,
        counts: ArrayLike | None = None,
        *,
        ngrams: NgramRows | None = None,
        ngram_table: NDArray[Any] | None = None,
    ) -> None:
        self.words = list(iterate_texts(words, "words"))
        self.vectors: NDArray[np.float32] = np.asanyarray(vectors, np.float32)
        self.counts = None if counts is None else np.asarray(counts, np.int64)
        self.ngrams, self.ngram_table = ngrams, ngram_table
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.words):
            raise InputError(
                f"{len(self.words):,} words, but vectors of shape {self.vectors.shape}",
                hint="pass one row for each word",
            )
        self._places = {word: place for place, word in enumerate(self.words)}
        self._check()

    def _check(self) -> None:
        if len(self._places) < len(self.words):
            seen: set[str] = set()
            twice = next(w for w in self.words if w in seen or seen.add(w))  # type: ignore[func-returns-value]
            raise InputError(f"the word {twice!r} occurs twice", hint="keep one of them")
        spaced = next((w for w in self.words if not w or w.split() != [w]), None)
        if spaced is not None:
            raise InputError(
                f"the word {spaced!r} has a space or is empty", hint="join its parts by _"
            )
        for start in range(0, len(self.words), _BLOCK):
            good = np.isfinite(self.vectors[start : start + _BLOCK]).all(1)
            if not good.all():
                place = start + int(np.argmin(good))
                raise InputError(
                    f"the vector of {self.words[place]!r} has NaN or an infinite number",
                    hint="train again with a lower learning_rate, or leave the word out",
                )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read vectors: safetensors, word2vec text or binary, GloVe text, each also with `.gz`.

        Safetensors files are memory-mapped. The format is detected from the content, not from the
        name.

        Raises:
            InputError: The file is missing, damaged (with the line), or a pickle.
        """
        table = read_vectors(check_path(path, "path"))
        ngrams = NgramRows(*table.ngrams) if table.ngrams else None
        return cls(
            table.words, table.vectors, table.counts, ngrams=ngrams, ngram_table=table.ngram_table
        )

    def save(self, path: str | Path) -> None:
        """Write the vectors in the format of the file's extension.

        `.txt` and `.vec` are word2vec's text format, `.glove` is GloVe's, `.bin` is word2vec's
        binary format, and everything else is safetensors, the only one that keeps counts and
        n-grams.
        """
        ngrams = self.ngrams
        sizes = (ngrams.min_n, ngrams.max_n, ngrams.buckets) if ngrams else None
        table = VectorTable(self.words, self.vectors, self.counts, sizes, self.ngram_table)
        write_vectors(check_path(path, "path"), table)

    @property
    def dimensions(self) -> int:
        """Width of the vectors."""
        return int(self.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._places

    def __getitem__(self, word: str) -> NDArray[np.float32]:
        """Return a word's vector; an unknown word's is computed from n-grams, if there are any.

        Raises:
            InputError: The word has no vector.
        """
        place = self._places.get(word)
        if place is not None:
            return np.array(self.vectors[place])
        made = None
        if self.ngrams is not None and self.ngram_table is not None and isinstance(word, str):
            made = self.ngrams.vector_of(word, self.ngram_table)
        if made is None:
            raise InputError(
                f"no vector of {word!r}",
                hint=did_you_mean(str(word), self.words[:10_000]),
            )
        return made

    def place(self, word: str) -> int | None:
        """Return a word's row, or None."""
        return self._places.get(word)

    @cached_property
    def directions(self) -> NDArray[np.float32]:
        """The vectors scaled to unit length; zeros stay zero. (words, dimensions)."""
        norms = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        return np.asarray(self.vectors / np.maximum(norms, 1e-12), np.float32)

    def similarity(self, first: str, second: str) -> float:
        """Return the cosine of two words' vectors."""
        return float(_scaled(self[first]) @ _scaled(self[second]))

    def most_similar(
        self,
        word: str | Sequence[str],
        top_k: int = 10,
        *,
        negative: Sequence[str] = (),
        max_words: int | None = None,
    ) -> list[Neighbour]:
        """Return the nearest words by cosine, without the given ones.

        Args:
            word: A word, or several whose unit vectors are added.
            top_k: Number of words.
            negative: Words whose unit vectors are subtracted.
            max_words: Search only this many of the most frequent words.

        Raises:
            InputError: A word is unknown.
        """
        check_whole(top_k, "top_k", least=1)
        positive = [word] if isinstance(word, str) else list(iterate_texts(word, "word"))
        if not positive and not negative:
            raise InputError("no words to compare with", hint="pass at least one word")
        query = sum((_scaled(self[w]) for w in positive), np.zeros(self.dimensions, np.float32))
        query = query - sum((_scaled(self[w]) for w in negative), np.zeros_like(query))
        scores = self.directions[:max_words] @ _scaled(query)
        return self._best(scores, [*positive, *negative], top_k)

    def similar_to_term(self, term: str, top_k: int = 3) -> list[Neighbour]:
        """Return the words nearest to a term; none if it has a word without a vector.

        A term of several words is first looked up joined by `_`, as in training with phrases.
        Otherwise the unit vectors of its words are added.

        >>> vectors = WordVectors(["heat", "pump", "boiler"], [[1, 0], [0, 1], [1, 1]])
        >>> vectors.similar_to_term("Heat pump", 1)[0][0]
        'boiler'
        """
        words = split_words(term)
        whole = next((form for form in (term, "_".join(words)) if form in self), None)
        if whole is not None:
            words = [whole]
        if not words or any(word not in self for word in words):
            return []
        return self.most_similar(words, top_k)

    def analogy(
        self,
        a: str,
        b: str,
        c: str,
        top_k: int = 1,
        *,
        method: Literal["3cosadd", "3cosmul"] = "3cosadd",
    ) -> list[Neighbour]:
        """Return the words that are to `c` as `b` is to `a`.

        `3cosadd` maximises cos(d, b) - cos(d, a) + cos(d, c); `3cosmul` multiplies and divides
        them, shifted to [0, 1] (Levy and Goldberg 2014).
        """
        if method == "3cosadd":
            return self.most_similar([b, c], top_k, negative=[a])
        if method != "3cosmul":
            raise InputError(f"method is {method!r}", hint="one of 3cosadd, 3cosmul")
        near = [(self.directions @ _scaled(self[word]) + 1) / 2 for word in (a, b, c)]
        return self._best(near[1] * near[2] / (near[0] + 1e-3), [a, b, c], top_k)

    def doesnt_match(self, words: Sequence[str]) -> str:
        """Return the word that is least similar to the mean of all.

        Raises:
            InputError: There are fewer than three words, or one is unknown.
        """
        words = list(iterate_texts(words, "words"))
        if len(words) < 3:
            raise InputError(f"{len(words)} words have no odd one out", hint="pass at least three")
        rows = np.stack([_scaled(self[word]) for word in words])
        return words[int(np.argmin(rows @ _scaled(rows.mean(0))))]

    def _best(self, scores: NDArray[Any], without: Sequence[str], top_k: int) -> list[Neighbour]:
        excluded = [place for w in without if (place := self._places.get(w)) is not None]
        scores[[place for place in excluded if place < len(scores)]] = -np.inf
        top_k = min(top_k, len(scores))
        best = np.argpartition(-scores, top_k - 1)[:top_k]
        best = best[np.argsort(-scores[best], kind="stable")]
        return [(self.words[i], float(scores[i])) for i in best if np.isfinite(scores[i])]


def _scaled(vector: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)
