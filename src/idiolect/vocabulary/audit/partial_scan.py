"""Scan the parts of a corpus independently, and merge them into the scan of the whole.

The parts may be scanned by several processes or machines. Merging them in order gives the same
`CorpusScan` as one process that reads all documents in sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from idiolect.errors import InputError
from idiolect.vocabulary.audit.corpus_scan import (
    CHECKED_DOCUMENTS,
    MAX_STREAM,
    CorpusScan,
    CorpusScanner,
)
from idiolect.vocabulary.audit.corpus_statistics import CorpusStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.audit.corpus_scan import Integers

__all__ = ["PartialScan", "ScanMerger", "must_encode_whole", "scan_part"]


@dataclass(frozen=True)
class PartialScan:
    """The scan of one part of a corpus."""

    statistics: CorpusStatistics
    """Without `pieces`, which are counted at the end. Documents are numbered within the part."""
    keys: list[str]
    """Distinct chunks in the order in which they first occur; see `CorpusScanner.numbers`."""
    sizes: Integers
    """Tokens, unknown tokens and words of each chunk, shape `(3, chunks)`."""
    counts: Integers
    """Occurrences of each chunk."""
    stream: Integers
    """Chunk numbers of all documents, in order, `int32`."""
    lengths: Integers
    """Chunks of each document, `int32`."""


def must_encode_whole(tokenizer: Tokenizer, documents: Iterable[str]) -> bool:
    """Return whether the tokens of documents differ from those of their chunks.

    Decide this once, from the first documents of a corpus, for all processes that scan its parts.
    """
    scanner = CorpusScanner(tokenizer, MAX_STREAM)
    scanner.read(islice(documents, CHECKED_DOCUMENTS))
    return scanner.encode_whole


def scan_part(tokenizer: Tokenizer, documents: Iterable[str], *, encode_whole: bool) -> PartialScan:
    """Scan one part, which may have no documents.

    Args:
        tokenizer: The tokenizer to measure.
        documents: The documents of the part. Their chunk numbers are kept in memory, 4 bytes each.
        encode_whole: From `must_encode_whole`, for the whole corpus.
    """
    scanner = CorpusScanner(tokenizer, np.iinfo(np.int64).max, encode_whole=encode_whole)
    scanner.read(documents)
    scanner.statistics.worst = [document for _, _, document in scanner.worst]
    rows = scanner.kept_rows
    return PartialScan(
        scanner.statistics,
        list(scanner.numbers),
        scanner.sizes,
        scanner.counts,
        np.concatenate([np.zeros(0, np.int32), *rows]),
        np.fromiter(map(len, rows), np.int32, len(rows)),
    )


class ScanMerger:
    """Merges the scans of all parts of a corpus.

    Memory is bounded as in `scan_corpus`: by the number of distinct chunks and `max_stream`.

    Args:
        tokenizer: The tokenizer of the parts.
        encode_whole: From `must_encode_whole`.
        max_stream: Maximum number of chunks in the recorded stream.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, encode_whole: bool, max_stream: int = MAX_STREAM
    ) -> None:
        self._scanner = CorpusScanner(tokenizer, max_stream, encode_whole=encode_whole)
        self._scanner.sizes = np.zeros((3, 1), np.int32)
        self._scanner.counts = np.zeros(1, np.int64)

    def add(self, part: PartialScan) -> None:
        """Add the next part; parts must be added in the order of the corpus."""
        if not part.statistics.documents:
            return
        scanner = self._scanner
        before = len(scanner.numbers)
        table = scanner.number(part.keys)
        fresh = (table >= before) & ~np.isin(table, scanner.omitted)
        sizes = np.zeros((3, len(scanner.numbers)), np.int32)
        sizes[:, :before] = scanner.sizes
        sizes[:, table[fresh]] = part.sizes[:, fresh]
        scanner.sizes = sizes
        counts = np.zeros(len(scanner.numbers), np.int64)
        counts[:before] = scanner.counts
        np.add.at(counts, table, part.counts)
        scanner.counts = counts

        statistics, first = scanner.statistics, scanner.statistics.documents
        for document in part.statistics.worst:
            scanner.list_worst(replace(document, index=first + document.index))
        for name in ("documents", "words", "bytes", "tokens", "unknown"):
            setattr(statistics, name, getattr(statistics, name) + getattr(part.statistics, name))
        scanner.keep(np.split(table[part.stream], np.cumsum(part.lengths)[:-1]))

    def finish(self) -> CorpusScan:
        """Return the scan of the whole corpus.

        Raises:
            InputError: No part has documents.
        """
        if not self._scanner.statistics.documents:
            raise InputError(
                "there are no documents to audit", hint="check the path and the text field"
            )
        return self._scanner.finish()
