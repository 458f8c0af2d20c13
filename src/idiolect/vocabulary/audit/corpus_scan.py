r"""Scan a corpus once: count tokens and words, and record the order of its chunks.

Text is split at single spaces into *chunks*, and each distinct chunk is encoded once. The token
count of a document is the sum over its chunks, because tokenizers do not merge across a space.
This is verified on the first documents; if a sum differs, every document is encoded whole.

>>> _mark_boundaries("a type-2\n case").split(" ")
['\x01a', 'type-2\n\x00case', '\x01']
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from idiolect.errors import InputError
from idiolect.text.tokenizers.word_counts import batches
from idiolect.vocabulary.audit.corpus_statistics import CorpusStatistics, WorstDocument

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future

    from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = [
    "CHECKED_DOCUMENTS",
    "DOCUMENT_START",
    "MAX_DISTINCT",
    "MAX_STREAM",
    "CorpusScan",
    "CorpusScanner",
    "Integers",
    "scan_corpus",
]

DOCUMENT_START = "\1"
"""Precedes the first chunk of a document; all other chunks begin with a space."""
_SPACE_AFTER_WHITESPACE = re.compile(rf" (?<=[\s{DOCUMENT_START}] )")
"""A space after whitespace. It does not start a new chunk."""

Integers = npt.NDArray[Any]
"""An integer array of any width."""
_WORD_AFTER_BREAK = re.compile(r"(?<=[^\S ])(?=\S)")
_DOCUMENT_BEGINNING = re.compile(rf"^{DOCUMENT_START}(?=\S)")

MAX_DISTINCT = 1 << 22
"""Maximum number of distinct chunks. Only huge corpora have more, and later chunks are rare."""
_OMITTED = ("\2", f"{DOCUMENT_START}\2")
"""Placeholders for all later chunks, within a document and at its beginning. No term contains
them."""
MAX_STREAM = 1 << 25
"""Maximum number of chunks in the stream, 4 bytes each. A longer corpus is subsampled: every 2nd,
4th, … document is kept."""
CHECKED_DOCUMENTS = 64
"""Documents encoded whole to check that chunk token counts add up."""
_WORST_COUNT = 20
"""Documents listed in `CorpusStatistics.worst`."""
_WORST_MIN_WORDS = 10
"""Minimum number of words of a listed document."""


@dataclass
class CorpusScan:
    """The result of one pass over a corpus."""

    statistics: CorpusStatistics
    chunks: list[str]
    """Distinct chunks. Number 0 is the empty chunk, which terminates every document. A chunk that
    began a document is preceded by `DOCUMENT_START`, any other one by a space. A space is also
    inserted where the tokenizer adds one, such as after a line break or before every text."""
    texts: list[str]
    """The chunks as they are in the corpus, without inserted spaces."""
    additive: bool
    """Whether a document's tokens are those of its chunks, so that no token crosses a boundary."""
    counts: Integers
    """Occurrences of each chunk in the whole corpus, shape `(len(chunks),)`; 0 for the placeholders
    of chunks beyond `MAX_DISTINCT`."""
    stream: Integers
    """Chunk numbers of the kept documents, in order, `int32`."""
    stride: int
    """The stream contains every `stride`-th document."""


def scan_corpus(
    tokenizer: Tokenizer, corpus: Iterable[str], *, max_stream: int = MAX_STREAM
) -> CorpusScan:
    """Read a corpus once and encode each distinct chunk once.

    Args:
        tokenizer: The tokenizer to measure.
        corpus: The documents.
        max_stream: Maximum number of chunks in the recorded stream.

    Raises:
        InputError: There are no documents.
    """
    scanner = CorpusScanner(tokenizer, max_stream)
    scanner.read(corpus)
    if not scanner.statistics.documents:
        raise InputError(
            "there are no documents to audit", hint="check the path and the text field"
        )
    return scanner.finish()


@dataclass
class _ChunkedBatch:
    """A batch of documents split into chunks."""

    documents: list[str]
    starts: Integers
    """Start of each document's chunks in `indices`."""
    indices: Integers
    """Index of each chunk in `distinct`."""
    distinct: list[str]


@dataclass
class _NumberedBatch:
    """A batch whose chunks are numbered, and whose new chunks are being measured."""

    documents: list[str]
    starts: Integers
    numbers: Integers
    sizes: Future[Integers]


def _split_batch(documents: list[str]) -> _ChunkedBatch:
    lists = pc.split_pattern(pa.array(map(_mark_boundaries, documents), pa.large_string()), " ")
    chunks = lists.values.dictionary_encode()
    return _ChunkedBatch(
        documents,
        lists.offsets.to_numpy()[:-1],
        chunks.indices.to_numpy(),
        cast("list[str]", chunks.dictionary.to_pylist()),
    )


def _mark_boundaries(text: str) -> str:
    r"""Replace spaces inside chunks by NUL, and mark the start and end of the document.

    >>> _mark_boundaries("a  b")
    '\x01a \x00b \x01'
    """
    if "\0" in text or DOCUMENT_START in text:  # NUL and \1 are reserved as markers
        text = text.replace("\0", "\2").replace(DOCUMENT_START, "\2")
    text = f"{DOCUMENT_START}{text}"
    if not text.isascii():
        text = _SPACE_AFTER_WHITESPACE.sub("\0", text)
    else:
        if "  " in text:
            text = text.replace("  ", " \0").replace("\0 ", "\0\0")
        for whitespace in f"\n\t\r\v\f{DOCUMENT_START}":
            if f"{whitespace} " in text:
                text = text.replace(f"{whitespace} ", f"{whitespace}\0")
    return f"{text} {DOCUMENT_START}"


class CorpusScanner:
    """Accumulates the counts of `scan_corpus`.

    Args:
        tokenizer: The tokenizer to measure.
        max_stream: Maximum number of chunks in the recorded stream.
        encode_whole: Whether documents are encoded whole; None to decide from the first documents.
    """

    def __init__(
        self, tokenizer: Tokenizer, max_stream: int, *, encode_whole: bool | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.statistics = CorpusStatistics()
        self.numbers: dict[str, int] = {DOCUMENT_START: 0}
        self.omitted: list[int] = []
        """Numbers of the placeholder chunks for those beyond the limit, once it is reached."""
        self.numbered = 0
        self.decided = encode_whole is not None
        self.encode_whole = bool(encode_whole)
        """Whether documents are encoded whole, because chunk counts do not add up."""
        self.counts = np.zeros(0, np.int64)
        self.sizes = np.zeros((3, 0), np.int32)
        """Tokens, unknown tokens and words of each chunk, shape `(3, chunks)`."""
        self.kept_rows: list[Integers] = []
        self.max_stream = max_stream
        self.stride = 1
        self.worst: list[tuple[float, int, WorstDocument]] = []
        self.anchor_length = len(tokenizer.encode("a", add_special_tokens=False))
        byte_level = tokenizer.kind == "byte-bpe"
        self.unknown_id = None if byte_level else tokenizer.unk_token_id

    def read(self, corpus: Iterable[str]) -> None:
        """Add the documents of a corpus.

        Arrow and the tokenizer engine release the GIL: one batch is split into chunks while the new
        chunks of the previous batch are encoded.
        """
        with ThreadPoolExecutor(2) as pool:
            chunked: Future[_ChunkedBatch] | None = None
            numbered: _NumberedBatch | None = None
            for documents in chain(batches(corpus), [None]):
                next_chunked = pool.submit(_split_batch, documents) if documents else None
                if chunked:
                    next_numbered = self.number_chunks(chunked.result(), pool)
                    if numbered:
                        self.add_batch(numbered)
                    numbered = next_numbered
                chunked = next_chunked
            if numbered:
                self.add_batch(numbered)

    def number_chunks(self, chunked: _ChunkedBatch, pool: ThreadPoolExecutor) -> _NumberedBatch:
        """Number the chunks of a batch and start measuring the new ones."""
        previous_count = self.numbered
        table = self.number(chunked.distinct)
        new_chunks = list(islice(self.numbers, previous_count, None))
        self.numbered = len(self.numbers)
        return _NumberedBatch(
            chunked.documents,
            chunked.starts,
            table[chunked.indices],
            pool.submit(self.measure_chunks, new_chunks),
        )

    def number(self, keys: list[str]) -> Integers:
        """Return the number of each chunk, `int32`; beyond the limit, that of `_OMITTED`."""
        if len(self.numbers) < MAX_DISTINCT:
            for key in keys:
                self.numbers.setdefault(key, len(self.numbers))
            if len(self.numbers) >= MAX_DISTINCT:
                self.omitted = [self.numbers.setdefault(key, len(self.numbers)) for key in _OMITTED]
                self.encode_whole = True
        if not self.omitted:
            return np.fromiter(map(self.numbers.__getitem__, keys), np.int32, len(keys))
        within, beginning = self.omitted
        numbers = (
            self.numbers.get(key, beginning if key[:1] == DOCUMENT_START else within)
            for key in keys
        )
        return np.fromiter(numbers, np.int32, len(keys))

    def measure_chunks(self, keys: list[str]) -> Integers:
        """Count tokens, unknown tokens and words of each chunk, shape `(3, n)`."""
        first = [key[:1] == DOCUMENT_START for key in keys]
        texts = [
            (key[1:] if begins else f"a {key}").replace("\0", " ")
            for key, begins in zip(keys, first, strict=True)
        ]
        sizes = self._sizes(texts)
        sizes[0] -= np.where(first, 0, self.anchor_length).astype(np.int32)
        sizes[2] -= ~np.array(first, bool)
        return sizes

    def _sizes(self, texts: list[str]) -> Integers:
        encodings = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        sizes = np.zeros((3, len(texts)), np.int32)
        sizes[0] = np.fromiter(map(len, encodings), np.int32, len(texts))
        if self.unknown_id is not None:
            unknown = (ids.count(self.unknown_id) for ids in encodings)
            sizes[1] = np.fromiter(unknown, np.int32, len(texts))
        sizes[2] = np.fromiter((len(text.split()) for text in texts), np.int32, len(texts))
        return sizes

    def add_batch(self, batch: _NumberedBatch) -> None:
        """Add a batch to the totals, once its new chunks are measured."""
        self.sizes = np.concatenate([self.sizes, batch.sizes.result()], axis=1)
        numbers = batch.numbers
        counts = np.bincount(numbers, minlength=self.sizes.shape[1])
        counts[: len(self.counts)] += self.counts
        self.counts = counts

        documents = batch.documents
        sums = np.add.reduceat(self.sizes[:, numbers], batch.starts, axis=1, dtype=np.int64)
        if not self.statistics.documents and not self.decided and not self.encode_whole:
            exact = self._sizes(documents[:CHECKED_DOCUMENTS])
            self.encode_whole = bool((exact != sums[:, :CHECKED_DOCUMENTS]).any())
        if self.encode_whole:
            sums = self._sizes(documents).astype(np.int64)
        self._count(documents, *sums)
        self.keep(np.split(numbers, batch.starts[1:]))

    def _count(
        self, documents: list[str], tokens: Integers, unknown: Integers, words: Integers
    ) -> None:
        statistics = self.statistics
        per_word = tokens / np.maximum(words, 1)
        threshold = self.worst[0][0] if len(self.worst) == _WORST_COUNT else 0.0
        for i in np.flatnonzero((words >= _WORST_MIN_WORDS) & (per_word > threshold)).tolist():
            index = statistics.documents + i
            self.list_worst(
                WorstDocument(index, float(per_word[i]), int(words[i]), documents[i][:80])
            )
        statistics.documents += len(documents)
        statistics.tokens += int(tokens.sum())
        statistics.unknown += int(unknown.sum())
        statistics.words += int(words.sum())
        statistics.bytes += sum(len(text.encode()) for text in documents)

    def list_worst(self, document: WorstDocument) -> None:
        """List a document if it is among those with the most tokens per word."""
        push = heapq.heappush if len(self.worst) < _WORST_COUNT else heapq.heappushpop
        push(self.worst, (document.tokens_per_word, -document.index, document))

    def keep(self, rows: list[Integers]) -> None:
        """Record the chunk numbers of the latest documents, or of every `stride`-th of them."""
        first = self.statistics.documents - len(rows)
        kept = (row for i, row in enumerate(rows, first) if i % self.stride == 0)
        # A row is a view of a batch; without a copy, it would keep the whole batch in memory.
        self.kept_rows += [row.copy() for row in kept] if self.stride > 1 else kept
        while sum(map(len, self.kept_rows)) > self.max_stream and len(self.kept_rows) > 1:
            self.kept_rows = [row.copy() for row in self.kept_rows[::2]]
            self.stride *= 2

    def finish(self) -> CorpusScan:
        """Compute the remaining statistics from the counts of distinct chunks."""
        statistics = self.statistics
        chunks = [
            (key if key[:1] == DOCUMENT_START else f" {key}").replace("\0", " ")
            for key in self.numbers
        ]
        chunks[0] = ""
        texts = chunks
        chunks = self._insert_implicit_spaces(chunks)
        self.counts[self.omitted] = 0
        one_word = self.sizes[2] == 1
        pieces = np.bincount(self.sizes[0, one_word], weights=self.counts[one_word])
        statistics.pieces = Counter({i: int(n) for i, n in enumerate(pieces) if n and i})
        statistics.worst = [document for _, _, document in sorted(self.worst, reverse=True)]
        return CorpusScan(
            statistics,
            chunks,
            texts,
            additive=not self.encode_whole,
            counts=self.counts,
            stream=np.concatenate(self.kept_rows),
            stride=self.stride,
        )

    def _insert_implicit_spaces(self, chunks: list[str]) -> list[str]:
        """Insert the spaces that the tokenizer adds: after a line break, before every text."""

        def encode_after_a(text: str) -> list[int]:
            return self.tokenizer.encode(f"a{text}", add_special_tokens=False)[self.anchor_length :]

        if encode_after_a("\nb") == encode_after_a(" b"):
            chunks = [_WORD_AFTER_BREAK.sub(" ", chunk) for chunk in chunks]
        if self.tokenizer.encode("b", add_special_tokens=False) == encode_after_a(" b"):
            chunks = [_DOCUMENT_BEGINNING.sub(f"{DOCUMENT_START} ", chunk) for chunk in chunks]
        return chunks
