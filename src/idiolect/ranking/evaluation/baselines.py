"""Baselines: BM25, and exact search over embeddings.

Both keep the collection in memory and search it exactly, so differences between systems are not
caused by approximate indexes.
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
"""Single digits and letters count as words, so that "12 V" and "24 V" differ."""
_SCORES_PER_BLOCK = 16_000_000
"""Scores held in memory at once."""


class BM25:
    """BM25 with the settings of BEIR: k1 = 0.9, b = 0.4, English stop words and stemming.

    Robertson & Zaragoza 2009, "The probabilistic relevance framework"; scored by `bm25s` (Lù 2024,
    2407.03618) with the Lucene formula, stemmed by the English Snowball stemmer.

    >>> bm25 = BM25({"a": "Printers and toner", "b": "Laptops"})
    >>> list(bm25.search({"q": "a printer"}, top_k=10)["q"])
    ['a']

    Args:
        documents: The text of each document.

    Raises:
        InputError: There are no documents, or they contain no words.
    """

    def __init__(self, documents: Mapping[str, str]) -> None:
        self.ids = list(documents)
        self._positions = {name: position for position, name in enumerate(self.ids)}
        self._stem = Stemmer.Stemmer("english")
        tokens = self._tokens(list(documents.values()))
        if not any(tokens):
            raise InputError(
                f"no words in {len(documents)} documents", hint="check that they are text"
            )
        self._index = bm25s.BM25(k1=0.9, b=0.4)
        self._index.index(tokens, show_progress=False)

    def search(self, queries: Mapping[str, str], top_k: int = 100) -> Run:
        """Return the k best documents of each query; they share at least one word with it."""
        run: dict[str, dict[str, float]] = {}
        for query, text in queries.items():
            scores = self._all(text)
            best = _largest(scores, top_k, above=0.0)
            run[query] = {self.ids[index]: float(scores[index]) for index in best}
        return run

    def score(self, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        """Score documents, given by id. Shape: (documents,)."""
        return self._all(query)[[self._positions[name] for name in documents]]

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
    """Exact search over embeddings.

    Args:
        encoder: The encoder.
        documents: The text of each document. They are encoded on construction.
        vectors: Their vectors, in the same order, if they are already known.
        progress: Show the progress of encoding.
        counts: Updated with all encoded texts. By default, truncated and empty texts are logged as
            a warning.
    """

    def __init__(
        self,
        encoder: Encoder,
        documents: Mapping[str, str],
        *,
        vectors: NDArray[np.float32] | None = None,
        progress: bool = False,
        counts: EncodingCounts | None = None,
    ) -> None:
        self.encoder = encoder
        self._counts = counts
        self.ids = list(documents)
        self._positions = {name: position for position, name in enumerate(self.ids)}
        if vectors is None:
            vectors = encoder.encode(
                list(documents.values()), prompt_name="document", progress=progress, counts=counts
            )
        self.vectors = vectors
        """Embeddings. Shape: (documents, dimensions)."""
        self._last_query: tuple[str, NDArray[np.float32]] | None = None

    def search(
        self, queries: Mapping[str, str], top_k: int = 100, *, dimensions: int | None = None
    ) -> Run:
        """Return the k nearest documents of each query. Queries without text are left out.

        Args:
            queries: The text of each query.
            top_k: Number of documents.
            dimensions: Truncate embeddings to this size and normalize again (Matryoshka).
        """
        answerable = {query: text for query, text in queries.items() if text.strip()}
        if not answerable:
            return {}
        found = self.encoder.encode(
            list(answerable.values()), prompt_name="query", counts=self._counts
        )
        wanted, stored = self._truncate(found, dimensions), self._truncate(self.vectors, dimensions)
        run: dict[str, dict[str, float]] = {}
        names = list(answerable)
        step = max(1, _SCORES_PER_BLOCK // len(self.ids))
        for start in range(0, len(names), step):
            scores = wanted[start : start + step] @ stored.T
            for name, row in zip(names[start : start + step], scores, strict=True):
                best = _largest(row, top_k)
                run[name] = {self.ids[index]: float(row[index]) for index in best}
        return run

    def score(
        self, query: str, documents: Sequence[str], *, dimensions: int | None = None
    ) -> NDArray[np.float32]:
        """Score documents, given by id. Shape: (documents,).

        Args:
            query: The query text. The embedding of the last query is cached.
            documents: The document ids.
            dimensions: As in `search`.
        """
        if self._last_query is None or self._last_query[0] != query:
            vector = self.encoder.encode([query], prompt_name="query", counts=self._counts)
            self._last_query = query, vector
        stored = self.vectors[[self._positions[name] for name in documents]]
        wanted = self._truncate(self._last_query[1], dimensions)[0]
        found: NDArray[np.float32] = self._truncate(stored, dimensions) @ wanted
        return found

    def _truncate(
        self, vectors: NDArray[np.float32], dimensions: int | None
    ) -> NDArray[np.float32]:
        if dimensions is None or dimensions >= vectors.shape[1]:
            return vectors
        short = vectors[:, :dimensions]
        if not self.encoder.normalize:
            return short
        lengths = np.linalg.norm(short, axis=1, keepdims=True)
        unit: NDArray[np.float32] = short / np.maximum(lengths, np.finfo(np.float32).tiny)
        return unit


def _largest(scores: NDArray[np.float32], k: int, *, above: float = -np.inf) -> NDArray[np.int64]:
    """Return the indices of the k largest scores, in descending order."""
    best = np.argpartition(-scores, k)[:k] if k < len(scores) else np.arange(len(scores))
    best = best[np.argsort(-scores[best], kind="stable")]
    return best[scores[best] > above]
