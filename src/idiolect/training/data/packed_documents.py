"""Documents packed into rows of equal length, in a random order that can be resumed.

- A row is filled with whole documents. The last one is split at the end of the row, and the next
  row starts with the rest of it as a separate text. Attention and positions do not cross documents
  (see `PackedRows.document_ids`), so documents are independent and there is little padding.
- Each epoch reads the documents in a different random order, which the seed and the epoch's number
  determine. The few numbers of a `Position` are therefore enough to resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from idiolect.errors import InputError
from idiolect.text.templates.text_template import TextTemplate
from idiolect.training.data.token_file import TokenFile

__all__ = ["Origin", "PackedDocuments", "PackedRows", "Position", "join_rows"]


class Origin(NamedTuple):
    """The origin of a text in a row."""

    document: int
    """Number of the document."""
    offset: int
    """Index of its first token in the document."""
    epoch: int
    """The epoch, counted from 0."""


@dataclass(frozen=True)
class PackedRows:
    """Packed rows, before an objective labels them."""

    input_ids: Tensor
    """(rows, length), int64."""
    document_ids: Tensor
    """The number of each token's document within its row, from 1; 0 for padding. (rows, length),
    int64."""
    first: int
    """Number of the first row, counted over the whole run."""
    sources: Sequence[int]
    """Numbers of the documents in the token file, in order."""
    origins: Sequence[Origin] = ()
    """Origin of each text, in the order of `texts`."""
    sentence_ends: Tensor | None = None
    """Mask of the tokens that end a sentence inside a text, if marked. (rows, length), bool."""
    languages: Sequence[Any] = ()
    """The language of each row, if it is known; of rows of pairs, the two languages."""
    segment_ids: Tensor | None = None
    """In rows of pairs, 0 for the first text of a pair and 1 for the second. (rows, length),
    int64."""
    follows: Tensor | None = None
    """In rows of pairs of sentences, whether the second follows the first. (rows,), bool."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.input_ids)

    def texts(self) -> list[tuple[int, int, int]]:
        """Return the row, first column and end column (exclusive) of each text, row by row."""
        documents = self.document_ids.numpy()
        length = documents.shape[1]
        edges = np.ones((len(documents), length + 1), np.bool_)
        edges[:, 1:-1] = documents[:, 1:] != documents[:, :-1]
        found = []
        for row, places in enumerate(edges):
            columns = places.nonzero()[0].tolist()
            found += [
                (row, start, stop) for start, stop in pairwise(columns) if documents[row, start]
            ]
        return found


def join_rows(
    parts: Sequence[tuple[NDArray[np.int64], PackedRows, int]], *, first: int
) -> PackedRows:
    """Combine rows of several sources.

    Args:
        parts: For each source: the positions of its rows in the result, the rows, and the offset to
            add to the numbers of its documents.
        first: Number of the first row, counted over the whole run.
    """
    places = np.concatenate([place for place, _, _ in parts])
    order = torch.from_numpy(np.argsort(places))

    def joined(name: str) -> Tensor | None:
        tensors = [getattr(rows, name) for _, rows, _ in parts]
        return None if tensors[0] is None else torch.cat(tensors)[order]

    origins: list[list[Origin]] = [[] for _ in places]
    languages: list[Any] = [None] * len(places)
    for own, rows, added in parts:
        for (row, _, _), origin in zip(rows.texts(), rows.origins, strict=True):
            origins[own[row]].append(origin._replace(document=origin.document + added))
        for place, language in zip(own, rows.languages, strict=True):
            languages[place] = language
    flat = [origin for row in origins for origin in row]
    ids, documents = joined("input_ids"), joined("document_ids")
    assert ids is not None
    assert documents is not None
    return PackedRows(
        ids,
        documents,
        first,
        [origin.document for origin in flat],
        flat,
        joined("sentence_ends"),
        languages,
        joined("segment_ids"),
        joined("follows"),
    )


@dataclass(frozen=True, kw_only=True)
class Position:
    """The position of a run in its documents."""

    epochs: int = 0
    """Completed epochs."""
    document: int = 0
    """Index of the next document in this epoch's order."""
    offset: int = 0
    """Tokens of that document already used."""
    rows: int = 0
    """Rows returned since the start of the run."""


class PackedDocuments:
    """An endless stream of packed rows.

    Args:
        tokens: The documents.
        template: The special tokens around each text.
        length: Tokens per row.
        rows: Rows per step.
        seed: Random seed of the order.
        pad_id: Fills the end of a row that has no space for another text.
        name: Name of the documents in messages.
        language: The language of the documents, which is recorded in the rows.
        whole_sentences: End a row after a sentence rather than within one. The documents of a row
            are then one text, with the template's end between them (RoBERTa's full sentences, Liu
            et al. 2019, 1907.11692).

    Raises:
        InputError: All documents together do not fill one row, or the template leaves no space in
            a row.
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
        name: str = "the corpus",
        language: str | None = None,
        whole_sentences: bool = False,
    ) -> None:
        room = length - len(template.before) - max(len(template.after), len(template.after_cut))
        if room < 1:
            raise InputError(
                f"rows of {length} tokens leave no room for text", hint="set a larger max_length"
            )
        special = len(template.before) + len(template.after)
        total = int(tokens.record["tokens"]) + len(tokens) * special
        if total < length:
            raise InputError(
                f"{name} has {total} tokens, less than one row of {length}",
                hint="add text, or set a smaller max_length",
            )
        self.tokens, self.template, self.length, self.rows = tokens, template, length, rows
        self.seed, self.pad_id, self.language = seed, pad_id or 0, language
        self.whole_sentences = whole_sentences
        self.position = Position()
        # A shorter end of a row stays empty: the few tokens in it would lack context.
        self._minimum = length - room + min(32, max(1, length // 8), room)
        self._order = self._shuffled(0)

    def take(self, count: int | None = None) -> PackedRows:
        """Return the rows of the next step.

        Args:
            count: Number of rows; by default those of one step.
        """
        count = self.rows if count is None else count
        ids = np.full((count, self.length), self.pad_id, dtype=np.int64)
        documents = np.zeros((count, self.length), dtype=np.int64)
        marks = np.zeros((count, self.length), np.bool_) if self.tokens.has_sentences else None
        first, origins = self.position.rows, []
        for row in range(count):
            start = number = 0
            while self.length - start >= self._minimum:
                before = () if self.whole_sentences and number else self.template.before
                ahead = len(before)
                origin, text, size = self._next_text(self.length - start, before)
                number += 1
                ids[row, start : start + len(text)] = text
                documents[row, start : start + len(text)] = number
                if marks is not None:
                    ends = self.tokens.sentence_ends(origin.document)[origin.offset :][: size - 1]
                    marks[row, start + ahead : start + ahead + len(ends)] = ends
                start += len(text)
                origins.append(origin)
                if self.position.offset:
                    break  # the next row starts with the rest of this document
        self.position = replace(self.position, rows=first + count)
        return PackedRows(
            torch.from_numpy(ids),
            torch.from_numpy(documents),
            first,
            [origin.document for origin in origins],
            origins,
            None if marks is None else torch.from_numpy(marks),
            [self.language] * count,
        )

    def state(self) -> dict[str, Any]:
        """Return the position, for `restore`."""
        return asdict(self.position)

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a saved position."""
        self.position = Position(**state)
        self._order = self._shuffled(self.position.epochs)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.tokens))

    def _next_text(
        self, room: int, before: tuple[int, ...]
    ) -> tuple[Origin, NDArray[np.int64], int]:
        """Return as much of the next document as fits into `room` tokens.

        Returns:
            Its origin, its ids with the template, and the number of its own tokens.
        """
        at, template = self.position, self.template
        source = int(self._order[at.document])
        left = self.tokens[source][at.offset :]
        whole = len(before) + len(left) + len(template.after) <= room
        if whole:
            text, after = left, template.after
            epochs, document = divmod(at.document + 1, len(self._order))
            changes = {"epochs": at.epochs + epochs, "document": document, "offset": 0}
        else:
            after = template.after_cut
            # At least one token remains: an end token alone would be the next row's first text.
            text = left[: min(room - len(before) - len(after), len(left) - 1)]
            if self.whole_sentences:
                ends = self.tokens.sentence_ends(source)[at.offset :][: len(text)].nonzero()[0]
                text = text[: ends[-1] + 1] if len(ends) else text
            changes = {"offset": at.offset + len(text)}
        self.position = Position(**asdict(at) | changes)
        if self.position.epochs > at.epochs:
            self._order = self._shuffled(self.position.epochs)
        origin = Origin(source, at.offset, at.epochs)
        return origin, np.concatenate([before, text, after]).astype(np.int64), len(text)
