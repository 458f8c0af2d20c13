r"""One pass over a corpus: how each distinct stretch of text is tokenised, and where it stands.

What is notable: text is cut at single spaces into *chunks*, and each distinct chunk is encoded
once. A document's tokens are then a sum over its chunks, because no tokenizer joins what a space
separates. That is checked, not assumed: some documents are encoded whole, and where a sum is
wrong every document is.

>>> _mark("a type-2\n case").split(" ")
['\x01a', 'type-2\n\x00case', '\x01']
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from idiolect.errors import InputError
from idiolect.text.tokenizers.word_counts import batches

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from concurrent.futures import Future

    from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = [
    "START",
    "Census",
    "Integers",
    "Statistics",
    "WorstDocument",
    "encode_forms",
    "take_census",
]

START = "\1"
"""Stands before the chunk that begins a document; all others begin with a space."""
_UNBROKEN = re.compile(rf" (?<=[\s{START}] )")
"""A space after white space; no chunk begins at one."""

Integers = npt.NDArray[Any]
"""An array of whole numbers of any width."""
_AFTER_BREAK = re.compile(r"(?<=[^\S ])(?=\S)")
_BEGINNING = re.compile(rf"^{START}(?=\S)")

_DISTINCT = 1 << 22
"""Distinct chunks kept; the corpus that has more is enormous, and those met later are rare."""
_STREAM = 1 << 25
"""Chunks whose order is kept, 4 bytes each; of a longer corpus every 2nd, 4th, … document is."""
_SAMPLE = 64
"""Documents encoded whole to check that chunks can be added up."""
_WORST = 20
_WORST_WORDS = 10
"""Documents listed as the worst, and the words one must have to be listed."""


@dataclass(frozen=True)
class WorstDocument:
    """A document that takes many tokens a word."""

    index: int
    """Position in the corpus, from 0."""
    tokens_per_word: float
    words: int
    beginning: str
    """The first characters of its text."""


@dataclass
class Statistics:
    """How a tokenizer fares on a corpus."""

    documents: int = 0
    words: int = 0
    """Stretches between white space."""
    bytes: int = 0
    """Of UTF-8."""
    tokens: int = 0
    """Without the special tokens of a template."""
    unknown: int = 0
    """Tokens that stand for something outside the vocabulary."""
    pieces: Counter[int] = field(default_factory=Counter)
    """How many words were cut into one piece, two pieces, …"""
    worst: list[WorstDocument] = field(default_factory=list)
    """Documents of 10 words or more with the most tokens a word, the worst first."""

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes a token."""
        return self.bytes / max(self.tokens, 1)

    @property
    def tokens_per_word(self) -> float:
        """Tokens a word, also called fertility."""
        return self.tokens / max(self.words, 1)

    @property
    def unknown_share(self) -> float:
        """Share of all tokens that are the unknown token, 0 to 1."""
        return self.unknown / max(self.tokens, 1)


@dataclass
class Census:
    """What a pass over a corpus leaves behind."""

    statistics: Statistics
    chunks: list[str]
    """Distinct chunks; number 0 is the empty one, which stands after every document. One that
    began a document has `START` before it, all others a space. There is a space also where only
    the tokenizer sees one: some take a line break for it, or put one before every text."""
    counts: Integers
    """How often each chunk occurs in the whole corpus, shape `(len(chunks),)`."""
    stream: Integers
    """Numbers of the chunks of the documents kept, in order, `int32`."""
    stride: int
    """The stream holds every `stride`-th document."""


def encode_forms(tokenizer: Tokenizer, forms: Sequence[str]) -> list[list[int]]:
    """Encode stretches of text as in running text.

    One with a space before it is put after a word, one without after a sign. Signs are tried in
    turn until one stays what it is and so has not joined with the text; where all do, the text is
    encoded alone.
    """
    results: list[list[int]] = [[] for _ in forms]
    for spaced, anchors in ((True, "a"), (False, '("!|\n')):
        places = [i for i, form in enumerate(forms) if form.startswith(" ") is spaced]
        for anchor in anchors:
            before = tokenizer.encode(anchor, special_tokens=False)
            texts = [anchor + forms[i] for i in places]
            joined = []
            for i, ids in zip(
                places, tokenizer.encode_batch(texts, special_tokens=False), strict=True
            ):
                if ids[: len(before)] == before:
                    results[i] = ids[len(before) :]
                else:
                    joined.append(i)
            places = joined
        alone = tokenizer.encode_batch([forms[i] for i in places], special_tokens=False)
        for i, ids in zip(places, alone, strict=True):
            results[i] = ids
    return results


def take_census(tokenizer: Tokenizer, corpus: Iterable[str], *, stream: int = _STREAM) -> Census:
    """Read a corpus once and tokenise each distinct chunk once.

    Args:
        tokenizer: the tokenizer to be judged.
        corpus: the documents.
        stream: the largest number of chunks whose order is kept.

    Raises:
        InputError: there are no documents.
    """
    taker = _Taker(tokenizer, stream)
    # Arrow and the engine both work without Python's lock: while the new chunks of one batch are
    # encoded, the next batch is cut.
    with ThreadPoolExecutor(2) as pool:
        cut: Future[_Cut] | None = None
        number: _Numbered | None = None
        for documents in batches(corpus):
            following = pool.submit(_cut, documents)
            if cut:
                ahead = taker.number(cut.result(), pool)
                if number:
                    taker.add(number)
                number = ahead
            cut = following
        if cut is None:
            raise InputError("there are no documents to audit", hint="is the corpus empty?")
        ahead = taker.number(cut.result(), pool)
        if number:
            taker.add(number)
        taker.add(ahead)
    return taker.finish()


@dataclass
class _Cut:
    """A batch of documents cut into chunks."""

    documents: list[str]
    starts: Integers
    """Where each document's chunks begin in `places`."""
    places: Integers
    """Place of each chunk in `distinct`."""
    distinct: list[str]


@dataclass
class _Numbered:
    """A batch whose chunks have their numbers and are being measured."""

    documents: list[str]
    starts: Integers
    numbers: Integers
    measured: Future[Integers]


def _cut(documents: list[str]) -> _Cut:
    lists = pc.split_pattern(pa.array(map(_mark, documents), pa.large_string()), " ")
    chunks = lists.values.dictionary_encode()
    return _Cut(
        documents,
        lists.offsets.to_numpy()[:-1],
        chunks.indices.to_numpy(),
        cast("list[str]", chunks.dictionary.to_pylist()),
    )


def _mark(text: str) -> str:
    r"""Make every space that is no border of chunks a NUL, and mark the document's two ends.

    >>> _mark("a  b")
    '\x01a \x00b \x01'
    """
    if "\0" in text or START in text:  # another control character is as good
        text = text.replace("\0", "\2").replace(START, "\2")
    text = f"{START}{text}"
    if not text.isascii():
        text = _UNBROKEN.sub("\0", text)
    else:
        if "  " in text:
            text = text.replace("  ", " \0").replace("\0 ", "\0\0")
        for white in f"\n\t\r\v\f{START}":
            if f"{white} " in text:
                text = text.replace(f"{white} ", f"{white}\0")
    return f"{text} {START}"


class _Taker:
    """Adds up what `take_census` meets."""

    def __init__(self, tokenizer: Tokenizer, stream: int) -> None:
        self.tokenizer = tokenizer
        self.statistics = Statistics()
        self.numbers: dict[str, int] = {START: 0}
        self.numbered = 0
        self.whole = False
        """Whether documents have to be encoded whole."""
        self.counts = np.zeros(0, np.int64)
        self.sizes = np.zeros((3, 0), np.int32)
        """Tokens, unknown tokens and words of each chunk."""
        self.kept: list[Integers] = []
        self.limit = stream
        self.stride = 1
        self.worst: list[tuple[float, int, WorstDocument]] = []
        self.anchor = len(tokenizer.encode("a", special_tokens=False))
        byte_level = tokenizer.kind == "byte-bpe"
        self.unknown_id = None if byte_level else tokenizer.unk_id

    def number(self, cut: _Cut, pool: ThreadPoolExecutor) -> _Numbered:
        """Number the chunks of a batch and begin to measure those that are new."""
        known = self.numbered
        if len(self.numbers) < _DISTINCT:
            for chunk in cut.distinct:
                self.numbers.setdefault(chunk, len(self.numbers))
        self.whole = self.whole or len(self.numbers) >= _DISTINCT
        places = (self.numbers.get(chunk, -1) for chunk in cut.distinct)
        table = np.fromiter(places, np.int32, len(cut.distinct))
        new = list(islice(self.numbers, known, None))
        self.numbered = len(self.numbers)
        return _Numbered(
            cut.documents, cut.starts, table[cut.places], pool.submit(self.measure, new)
        )

    def measure(self, keys: list[str]) -> Integers:
        """Count tokens, unknown tokens and words of each chunk in running text, shape `(3, n)`."""
        first = [key[:1] == START for key in keys]
        texts = [
            (key[1:] if begins else f"a {key}").replace("\0", " ")
            for key, begins in zip(keys, first, strict=True)
        ]
        sizes = self._sizes(texts)
        sizes[0] -= np.where(first, 0, self.anchor).astype(np.int32)
        sizes[2] -= ~np.array(first, bool)
        return sizes

    def _sizes(self, texts: list[str]) -> Integers:
        encodings = self.tokenizer.engine.encode_batch_fast(texts, add_special_tokens=False)
        sizes = np.zeros((3, len(texts)), np.int32)
        sizes[0] = np.fromiter(map(len, encodings), np.int32, len(texts))
        if self.unknown_id is not None:
            unknown = (encoding.ids.count(self.unknown_id) for encoding in encodings)
            sizes[1] = np.fromiter(unknown, np.int32, len(texts))
        sizes[2] = np.fromiter((len(text.split()) for text in texts), np.int32, len(texts))
        return sizes

    def add(self, batch: _Numbered) -> None:
        """Take in a batch whose new chunks have been measured."""
        self.sizes = np.concatenate([self.sizes, batch.measured.result()], axis=1)
        numbers = batch.numbers
        counts = np.bincount(numbers[numbers >= 0], minlength=self.sizes.shape[1])
        counts[: len(self.counts)] += self.counts
        self.counts = counts

        documents = batch.documents
        sums = np.add.reduceat(self.sizes[:, numbers], batch.starts, axis=1, dtype=np.int64)
        if not self.statistics.documents and not self.whole:
            exact = self._sizes(documents[:_SAMPLE])
            self.whole = bool((exact != sums[:, :_SAMPLE]).any())
        if self.whole:
            sums = self._sizes(documents).astype(np.int64)
        self._count(documents, *sums)
        self._keep(np.split(numbers, batch.starts[1:]))

    def _count(
        self, documents: list[str], tokens: Integers, unknown: Integers, words: Integers
    ) -> None:
        statistics = self.statistics
        per_word = tokens / np.maximum(words, 1)
        least = self.worst[0][0] if len(self.worst) == _WORST else 0.0
        for i in np.flatnonzero((words >= _WORST_WORDS) & (per_word > least)).tolist():
            index = statistics.documents + i
            document = WorstDocument(index, float(per_word[i]), int(words[i]), documents[i][:80])
            keep = heapq.heappush if len(self.worst) < _WORST else heapq.heappushpop
            keep(self.worst, (document.tokens_per_word, -index, document))
        statistics.documents += len(documents)
        statistics.tokens += int(tokens.sum())
        statistics.unknown += int(unknown.sum())
        statistics.words += int(words.sum())
        statistics.bytes += sum(len(text.encode()) for text in documents)

    def _keep(self, rows: list[Integers]) -> None:
        first = self.statistics.documents - len(rows)
        self.kept += [row for i, row in enumerate(rows, first) if i % self.stride == 0]
        while sum(map(len, self.kept)) > self.limit and len(self.kept) > 1:
            self.kept = self.kept[::2]
            self.stride *= 2

    def finish(self) -> Census:
        """Sum up over distinct chunks what needs no order."""
        statistics = self.statistics
        chunks = [
            (key if key[:1] == START else f" {key}").replace("\0", " ") for key in self.numbers
        ]
        chunks = self._level(chunks)
        chunks[0] = ""
        single = self.sizes[2] == 1
        pieces = np.bincount(self.sizes[0, single], weights=self.counts[single])
        statistics.pieces = Counter({i: int(n) for i, n in enumerate(pieces) if n and i})
        statistics.worst = [document for _, _, document in sorted(self.worst, reverse=True)]
        return Census(statistics, chunks, self.counts, np.concatenate(self.kept), self.stride)

    def _level(self, chunks: list[str]) -> list[str]:
        """Put spaces where the tokenizer sees one: after a line break, before every text."""

        def after_a(text: str) -> list[int]:
            return self.tokenizer.encode(f"a{text}", special_tokens=False)[self.anchor :]

        if after_a("\nb") == after_a(" b"):
            chunks = [_AFTER_BREAK.sub(" ", chunk) for chunk in chunks]
        if self.tokenizer.encode("b", special_tokens=False) == after_a(" b"):
            chunks = [_BEGINNING.sub(f"{START} ", chunk) for chunk in chunks]
        return chunks
