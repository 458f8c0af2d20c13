"""Sentence pairs for BERT's next-sentence prediction; in half of them B does not follow A.

As in BERT's code (Devlin et al. 2018, 1810.04805), consecutive sentences of a document that fill a
row are divided into A and B. In half of the rows, and if there is only one sentence, B is taken
from another document, and the sentences that it replaces are used again. One document in ten is
divided into shorter rows. If a pair is too long, tokens are removed at random from both ends of its
longer side.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from idiolect.errors import InputError
from idiolect.text.templates.text_template import TextTemplate
from idiolect.training.data.packed_documents import Origin, PackedRows
from idiolect.training.data.token_file import TokenFile

__all__ = ["NextSentenceRows", "SentencePair", "SentencePosition"]

_SHORT = 0.1
"""Share of documents whose rows are shorter, of a random length."""


class SentencePair(NamedTuple):
    """Two ranges of tokens."""

    first: tuple[int, int, int]
    """Document, start and end of A."""
    second: tuple[int, int, int]
    """Document, start and end of B."""
    follows: bool
    """Whether B follows A."""


@dataclass(frozen=True, kw_only=True)
class SentencePosition:
    """The position of a run in its documents."""

    epochs: int = 0
    """Completed epochs."""
    document: int = 0
    """Index of the document in this epoch's order."""
    pair: int = 0
    """Pairs of that document already used."""
    rows: int = 0
    """Rows returned since the start of the run."""


class NextSentenceRows:
    """An endless stream of rows of one pair each.

    Args:
        tokens: The documents, with the ends of sentences.
        template: The special tokens around a text: [CLS] before A, [SEP] after A and after B.
        length: Maximum number of tokens per row.
        rows: Rows per step.
        seed: Random seed.
        pad_id: Fills short rows.
        duplicates: Number of epochs after which the pairs repeat; `None` for new pairs in each.
        name: Name of the documents in messages.
        language: The language of the documents.

    Raises:
        InputError: There are fewer than two documents, or rows have no room for two sentences.
    """

    def __init__(
        self,
        tokens: TokenFile,
        template: TextTemplate,
        *,
        length: int,
        rows: int,
        seed: int = 0,
        pad_id: int | None = None,
        duplicates: int | None = None,
        name: str = "the corpus",
        language: str | None = None,
    ) -> None:
        if len(tokens) < 2:
            raise InputError(
                f"{name} is one document, and the second sentence of a pair may come from another",
                hint="divide it into documents",
            )
        self.room = length - len(template.before) - 2 * len(template.after)
        if self.room < 2:
            raise InputError(
                f"rows of {length} tokens have no room for two sentences",
                hint="set a larger max_length",
            )
        self.tokens, self.template, self.length, self.rows = tokens, template, length, rows
        self.seed, self.pad_id, self.language = seed, pad_id or 0, language
        self.duplicates = duplicates
        self.position = SentencePosition()
        self._order = self._shuffled(0)
        self._known: tuple[tuple[int, int], list[SentencePair]] = ((-1, -1), [])

    def take(self, count: int | None = None) -> PackedRows:
        """Return the rows of the next step; see `PackedDocuments.take`."""
        count = self.rows if count is None else count
        ids = np.full((count, self.length), self.pad_id, np.int64)
        documents, segments = np.zeros_like(ids), np.zeros_like(ids)
        follows = np.zeros(count, np.bool_)
        first, origins = self.position.rows, []
        before, after = self.template.before, self.template.after
        for row in range(count):
            epoch, pair = self._next()
            (one, start, stop), (other, other_start, other_stop), follows[row] = pair
            a = np.concatenate([before, self.tokens[one][start:stop], after])
            b = np.concatenate([self.tokens[other][other_start:other_stop], after])
            ids[row, : len(a)], ids[row, len(a) : len(a) + len(b)] = a, b
            documents[row, : len(a) + len(b)] = 1
            segments[row, len(a) : len(a) + len(b)] = 1
            origins.append(Origin(one, start, epoch))
        self.position = SentencePosition(**asdict(self.position) | {"rows": first + count})
        return PackedRows(
            torch.from_numpy(ids),
            torch.from_numpy(documents),
            first,
            [origin.document for origin in origins],
            origins,
            languages=[self.language] * count,
            segment_ids=torch.from_numpy(segments),
            follows=torch.from_numpy(follows),
        )

    def state(self) -> dict[str, Any]:
        """Return the position, for `restore`."""
        return asdict(self.position)

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a saved position."""
        self.position = SentencePosition(**state)
        self._order = self._shuffled(self.position.epochs)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.tokens))

    def _next(self) -> tuple[int, SentencePair]:
        """Return the next pair and its epoch, and advance."""
        while True:
            at = self.position
            document = int(self._order[at.document])
            key = (at.epochs, document)
            if self._known[0] != key:
                self._known = key, self.pairs_of(document, at.epochs)
            pairs = self._known[1]
            if at.pair < len(pairs):
                changed = {"pair": at.pair + 1}
                self.position = SentencePosition(**asdict(at) | changed)
                return at.epochs, pairs[at.pair]
            epochs, place = divmod(at.document + 1, len(self._order))
            self.position = SentencePosition(
                epochs=at.epochs + epochs, document=place, rows=at.rows
            )
            if epochs:
                self._order = self._shuffled(self.position.epochs)

    def pairs_of(self, document: int, epoch: int) -> list[SentencePair]:
        """Return the pairs of a document in an epoch."""
        version = epoch if self.duplicates is None else epoch % self.duplicates
        random = np.random.default_rng([self.seed, version, document])
        edges = self._sentences(document)
        target = self.room
        if random.random() < _SHORT:
            target = int(random.integers(2, self.room + 1))
        pairs, start, i = list[SentencePair](), 0, 0
        last = len(edges) - 2
        while i <= last:
            if i < last and edges[i + 1] - edges[start] < target:
                i += 1
                continue
            count = i + 1 - start
            middle = start + (1 if count == 1 else int(random.integers(1, count)))
            own = (document, edges[start], edges[middle])
            follows = count > 1 and random.random() >= 0.5
            if follows:
                other = (document, edges[middle], edges[i + 1])
            else:
                other = self._elsewhere(document, target - (own[2] - own[1]), random)
                i = middle - 1  # the sentences that B replaces are used again
            pairs.append(SentencePair(*_shorten(own, other, self.room, random), bool(follows)))
            start, i = i + 1, i + 1
        return pairs

    def _sentences(self, document: int) -> list[int]:
        """Return the starts of a document's sentences, and its end."""
        ends = (self.tokens.sentence_ends(document).nonzero()[0] + 1).tolist()
        length = len(self.tokens[document])
        return [0, *ends, length] if length else [0]

    def _elsewhere(
        self, document: int, length: int, random: np.random.Generator
    ) -> tuple[int, int, int]:
        """Return sentences of about a given length from a random position in another document."""
        other = int(random.integers(len(self.tokens) - 1))
        other += other >= document
        edges = self._sentences(other)
        start = int(random.integers(max(1, len(edges) - 1)))
        stop = start + 1
        while stop < len(edges) - 1 and edges[stop] - edges[start] < length:
            stop += 1
        return other, edges[start], edges[min(stop, len(edges) - 1)]


def _shorten(
    one: tuple[int, int, int], other: tuple[int, int, int], room: int, random: np.random.Generator
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Remove tokens from random ends of the longer range, until both ranges fit into `room`."""
    ranges = [list(one), list(other)]
    while (surplus := sum(stop - start for _, start, stop in ranges) - room) > 0:
        sizes = [stop - start for _, start, stop in ranges]
        longer = ranges[0] if sizes[0] > sizes[1] else ranges[1]
        # As many as would be removed one by one until the sides are equal.
        taken = max(1, min(surplus, abs(sizes[0] - sizes[1])))
        front = int(random.binomial(taken, 0.5))
        longer[1] += front
        longer[2] -= taken - front
    (a, b, c), (d, e, f) = ranges
    return (a, b, c), (d, e, f)
