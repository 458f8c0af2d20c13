"""`Words`: a fake encoder. A text's vector is the sum of its word vectors; synonyms share one."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from idiolect.encoding.text_reader import EncodingCounts

MEANINGS = {"crimson": "red", "light": "lamp", "seat": "chair"}


class Words:
    """Encodes texts and records them; equal texts have equal vectors in every process."""

    def __init__(
        self, fingerprint: str = "words", dimensions: int = 32, published: bool = True
    ) -> None:
        self.fingerprint = fingerprint
        self.dimensions = dimensions
        self.published = published
        self.encoded: list[str] = []

    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt_name: str,
        dimensions: int | None = None,
        counts: EncodingCounts | None = None,
    ) -> np.ndarray:
        assert prompt_name in ("query", "document")
        self.encoded += texts
        if counts is not None:
            counts.texts += len(texts)
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                seed = zlib.crc32(MEANINGS.get(word, word).encode())
                vectors[row] += np.random.default_rng(seed).normal(size=self.dimensions)
        return vectors[:, :dimensions]
