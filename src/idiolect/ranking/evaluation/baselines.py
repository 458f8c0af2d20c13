"""What a better ranking is compared with: BM25, and exact search over an encoder's vectors.

Both answer with the k best documents of a collection that fits into memory. They make no index on
disk and take no short cuts, so that a difference between two systems is none between two indexes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import bm25s
import numpy as np
import Stemmer
from numpy.typing import NDArray

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.errors import InputError
from idiolect.ranking.evaluation.metrics import Run

__all__ = ["BM25", "Dense"]

_WORD = r"[^\W_]+"
"""Single digits and letters count: "12 V" is no "24 V"."""
_AT_ONCE = 16_000_000
"""Scores held at once."""


class BM25:
    """BM25 as BEIR's baseline has it: k1 = 0.9, b = 0.4, English stop words and stems.

    Robertson & Zaragoza 2009, "The probabilistic relevance framework"; scores by `bm25s` (Lù 2024,
    2407.03618) in Lucene's variant, stems by Snowball's English stemmer.

    >>> bm25 = BM25({"a": "Printers and toner", "b": "Laptops"})
    >>> list(bm25.search({"q": "a printer"}, k=10)["q"])
    ['a']

    Args:
        documents: The text of each document.

    Raises:
        InputError: There are no documents, or no words in them.
    """

    def __init__(self, documents: Mapping[str, str]) -> None:
        self.ids = list(documents)
        self._place = {name: place for place, name in enumerate(self.ids)}
        self._stem = Stemmer.Stemmer("english")
        tokens = self._tokens(list(documents.values()))
        if not any(tokens):
            raise InputError(f"no words in {len(documents)} documents", hint="is it text?")
        self._index = bm25s.BM25(k1=0.9, b=0.4)
        self._index.index(tokens, show_progress=False)

    def search(self, queries: Mapping[str, str], k: int = 100) -> Run:
        """Return the k best documents of each query, without those that share no word with it."""
        run: dict[str, dict[str, float]] = {}
        for query, text in queries.items():
            scores = self._all(text)
            best = _largest(scores, k, above=0.0)
            run[query] = {self.ids[place]: float(scores[place]) for place in best}
        return run

    def score(self, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        """Score some of the documents, given by their ids. Shape: (documents,)."""
        return self._all(query)[[self._place[name] for name in documents]]

    def _all(self, query: str) -> NDArray[np.float32]:
        words = [word for word in self._tokens([query])[0] if word in self._index.vocab_dict]
        if not words:
            return np.zeros(len(self.ids), np.float32)
        scores: NDArray[np.float32] = self._index.get_scores(words)
        return scores

    def _tokens(self, texts: list[str]) -> list[list[str]]:
        found: list[list[str]] = bm25s.tokenize(
            texts,
            stopwords="en",
            stemmer=self._stem,
            token_pattern=_WORD,
            return_ids=False,
            show_progress=False,
        )
        return found


class Dense:
    """Exact search over vectors.

    Args:
        encoder: Makes them.
        documents: The text of each document; encoded at once.
        progress: Show how far that is.
        counts: Added to by everything that is encoded; without it, texts that are cut or empty are
            logged as a warning.
    """

    def __init__(
        self,
        encoder: Encoder,
        documents: Mapping[str, str],
        *,
        progress: bool = False,
        counts: EncodingCounts | None = None,
    ) -> None:
        self.encoder = encoder
        self._counts = counts
        self.ids = list(documents)
        self._place = {name: place for place, name in enumerate(self.ids)}
        self.vectors = encoder.encode(
            list(documents.values()), kind="document", progress=progress, counts=counts
        )
        """One row a document. Shape: (documents, dimensions)."""
        self._asked: tuple[str, NDArray[np.float32]] | None = None

    def search(
        self, queries: Mapping[str, str], k: int = 100, *, dimensions: int | None = None
    ) -> Run:
        """Return the k nearest documents of each query; none for a query without text.

        Args:
            queries: The text of each query.
            k: How many documents.
            dimensions: Use only so many of the first dimensions (Matryoshka), normalised again.
        """
        asked = {query: text for query, text in queries.items() if text.strip()}
        if not asked:
            return {}
        found = self.encoder.encode(list(asked.values()), kind="query", counts=self._counts)
        wanted, stored = self._cut(found, dimensions), self._cut(self.vectors, dimensions)
        run: dict[str, dict[str, float]] = {}
        names = list(asked)
        step = max(1, _AT_ONCE // len(self.ids))
        for start in range(0, len(names), step):
            scores = wanted[start : start + step] @ stored.T
            for name, row in zip(names[start : start + step], scores, strict=True):
                best = _largest(row, k)
                run[name] = {self.ids[place]: float(row[place]) for place in best}
        return run

    def score(
        self, query: str, documents: Sequence[str], *, dimensions: int | None = None
    ) -> NDArray[np.float32]:
        """Score some of the documents, given by their ids. Shape: (documents,).

        Args:
            query: Its text. The vector of the last one is kept.
            documents: Ids.
            dimensions: As in `search`.
        """
        if self._asked is None or self._asked[0] != query:
            vector = self.encoder.encode([query], kind="query", counts=self._counts)
            self._asked = query, vector
        stored = self.vectors[[self._place[name] for name in documents]]
        wanted = self._cut(self._asked[1], dimensions)[0]
        found: NDArray[np.float32] = self._cut(stored, dimensions) @ wanted
        return found

    def _cut(self, vectors: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
        if dimensions is None or dimensions >= vectors.shape[1]:
            return vectors
        short = vectors[:, :dimensions]
        if not self.encoder.normalise:
            return short
        lengths = np.linalg.norm(short, axis=1, keepdims=True)
        unit: NDArray[np.float32] = short / np.maximum(lengths, np.finfo(np.float32).tiny)
        return unit


def _largest(scores: NDArray[np.float32], k: int, *, above: float = -np.inf) -> NDArray[np.int64]:
    """Return the places of the k largest scores, falling."""
    places = np.argpartition(-scores, k)[:k] if k < len(scores) else np.arange(len(scores))
    places = places[np.argsort(-scores[places], kind="stable")]
    return places[scores[places] > above]
