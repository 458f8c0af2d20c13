"""`ServedEncoder`: an encoder with dynamic batching across requests.

It has the attributes of an `Encoder` that an index needs, so the queries of all searches and the
texts of all requests share batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.encoder_forward import check_finite
from idiolect.encoding.matryoshka import check_dimensions, shortened
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.errors import InputError
from idiolect.serve.serve_settings import ServeSettings
from idiolect.serve.work.token_batcher import BatchReport, TokenBatcher

__all__ = ["ServedEncoder"]


class ServedEncoder:
    """An encoder behind a queue.

    Args:
        encoder: The encoder.
        settings: The limits of batches and of the queue.
        report: Called after each batch.
    """

    def __init__(
        self,
        encoder: Encoder,
        settings: ServeSettings,
        report: Callable[[BatchReport], None] = lambda report: None,
    ) -> None:
        self.encoder = encoder
        self.dimensions = encoder.dimensions
        self.published = encoder.published
        self.precision = encoder.precision
        self.max_length = encoder.max_length
        self.batcher = TokenBatcher(
            self._vectors,
            encoder.dimensions,
            tokens_per_batch=settings.tokens_per_batch,
            max_waiting=settings.max_waiting_tokens,
            max_requests=settings.max_waiting_requests,
            report=report,
        )

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of the encoder, whose weights do not change while it is served."""
        return self.encoder.fingerprint

    def read(
        self, texts: Sequence[str], prompt_name: str | None, counts: EncodingCounts
    ) -> list[list[int]]:
        """Tokenize texts to rows of ids, as `Encoder.encode` does."""
        return self.encoder.reader.read(texts, prompt_name, counts)

    def read_ids(self, ids: Sequence[Sequence[int]], counts: EncodingCounts) -> list[list[int]]:
        """Return the rows of texts that are given as ids without special tokens.

        Raises:
            InputError: An id is not in the vocabulary.
        """
        size = len(self.encoder.model.tokenizer)
        wrong = [one for row in ids for one in row if not 0 <= one < size]
        if wrong:
            raise InputError(
                f"id {wrong[0]} is not in the vocabulary", hint=f"ids are from 0 to {size - 1}"
            )
        reader = self.encoder.reader
        return [reader.read_ids(row, counts) for row in ids]

    def submit(self, rows: Sequence[Sequence[int]]) -> Future[NDArray[np.float32]]:
        """Queue rows of ids; see `TokenBatcher.submit`."""
        return self.batcher.submit(rows)

    def shorten(self, vectors: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
        """Return vectors of fewer dimensions, as `Encoder.encode` does.

        Raises:
            InputError: The encoder has fewer.
        """
        width = check_dimensions(dimensions, self.dimensions)
        return shortened(vectors, width, normalize=self.encoder.normalize)

    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt_name: str | None = None,
        dimensions: int | None = None,
        counts: EncodingCounts | None = None,
    ) -> NDArray[np.float32]:
        """Encode texts, and block until the result is there. See `Encoder.encode`."""
        counted = EncodingCounts() if counts is None else counts
        rows = self.read(texts, prompt_name, counted)
        return self.shorten(self.submit(rows).result(), dimensions)

    def _vectors(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        with torch.inference_mode():
            vectors = self.encoder.embed_rows(rows).float()
            check_finite(vectors, range(len(rows)))
            return vectors.cpu().numpy()

    def close(self) -> None:
        """End the thread that encodes."""
        self.batcher.close()
