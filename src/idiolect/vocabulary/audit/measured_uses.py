"""Count how often an extended tokenizer uses each new token in a scanned corpus.

The corpus is not read again. Each distinct chunk is encoded once, and so is each distinct run of
chunks that a phrase joins.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from idiolect.text.tokenizers.word_counts import batches
from idiolect.vocabulary.audit.corpus_scan import DOCUMENT_START
from idiolect.vocabulary.extend.verification import compare_tokenizers

if TYPE_CHECKING:
    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.audit.corpus_scan import CorpusScan, Integers
    from idiolect.vocabulary.extend.methods import DraftExtension

__all__ = ["chunk_runs", "measure_uses"]


def chunk_runs(
    scan: CorpusScan,
    chunk_starts: Integers,
    begins: Integers,
    ends: Integers,
    *,
    whole: bool,
) -> tuple[list[str], Integers]:
    """Divide a corpus into runs of chunks that can be encoded on their own.

    Args:
        scan: the corpus.
        chunk_starts: position of the first unit of each chunk in its stream.
        begins: positions of the first units of phrases, which join chunks.
        ends: positions after their last units.
        whole: whether a run is a whole document.

    Returns:
        The distinct runs, and how often each occurs. Without a leading space or line break, a run
        is preceded by `DOCUMENT_START`.
    """
    size = len(scan.stream)
    joined = np.zeros(size + 1, bool)
    if not whole:
        first = np.searchsorted(chunk_starts, begins, side="right") - 1
        last = np.searchsorted(chunk_starts, ends - 1, side="right") - 1
        steps = np.zeros(size + 2, np.int64)
        np.add.at(steps, first + 1, 1)
        np.add.at(steps, last + 1, -1)
        joined = np.cumsum(steps)[: size + 1] > 0
    else:  # a document ends with the empty chunk
        joined[1:size] = scan.stream[:-1] != 0
    starts = np.flatnonzero(~joined[:size])
    lengths = np.diff(np.append(starts, size))
    single = scan.stream[starts[lengths == 1]]
    counts = np.bincount(single, minlength=len(scan.texts))
    counts[0] = 0
    numbers = np.flatnonzero(counts)
    runs = Counter(
        scan.stream[start : start + length].tobytes()
        for start, length in zip(
            starts[lengths > 1].tolist(), lengths[lengths > 1].tolist(), strict=True
        )
    )
    texts = [scan.texts[number] for number in numbers]
    texts += [
        "".join([scan.texts[n] for n in np.frombuffer(run, scan.stream.dtype)]) for run in runs
    ]
    return texts, np.append(counts[numbers], list(runs.values())).astype(np.int64)


def measure_uses(
    base: Tokenizer, draft: DraftExtension, texts: list[str], counts: Integers
) -> tuple[Integers, set[int]]:
    """Count the uses of new tokens.

    Args:
        base: the original tokenizer.
        draft: the extension.
        texts: runs of chunks, from `chunk_runs`.
        counts: occurrences of each run.

    Returns:
        The uses of each new token, in the order of `DraftExtension.added`; and the ids of tokens
        near which the tokenization changes beyond the new tokens.
    """
    added = draft.added
    size = len(base)
    beginnings = {token.text.strip().split(" ")[0] for token in added}
    anchor = next((c for c in "axqjzwkv" if c not in beginnings), "a")
    whole = [text[1:] if text[:1] == DOCUMENT_START else anchor + text for text in texts]
    uses = np.zeros(len(added), np.int64)
    with_terms: list[str] = []
    at = 0
    for batch in batches(whole):
        encoded = draft.tokenizer.encode_batch(batch, add_special_tokens=False)
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        ids = np.fromiter(chain.from_iterable(encoded), np.int64, lengths.sum())
        owner = np.repeat(np.arange(len(batch)), lengths)[ids >= size]
        np.add.at(uses, ids[ids >= size] - size, counts[at + owner])
        with_terms += [batch[i] for i in np.unique(owner)]
        at += len(batch)
    pieces = {token.id: token.pieces for token in added}
    comparison = compare_tokenizers(base, draft.tokenizer, pieces, with_terms)
    return uses, comparison.causes
