"""Documents packed into rows of equal length, in a random order that can be resumed.

- A row is filled with whole documents. The last one is cut at the end of the row, and the next row
  starts with the rest of it as a text of its own. Attention and positions do not cross documents
  (see `PackedRows.document_ids`), so documents do not see one another and little is padding.
- Each epoch reads the documents in another random order, which follows from the seed and the
  epoch's number. The few numbers of a `Position` are therefore enough to resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from idiolect.errors import InputError
from idiolect.text.text_template import TextTemplate
from idiolect.training.data.token_file import TokenFile

__all__ = ["PackedDocuments", "PackedRows", "Position"]


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

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.input_ids)


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
        pad_id: Fills the end of a row that has no room for another text.
        name: What messages call the documents.

    Raises:
        InputError: All documents together do not fill one row, or the template leaves no room
            in a row.
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
        self.seed, self.pad_id = seed, pad_id or 0
        self.position = Position()
        # A shorter rest of a row stays empty: the few tokens in it would lack context.
        self._minimum = length - room + min(32, max(1, length // 8), room)
        self._order = self._shuffled(0)

    def take(self) -> PackedRows:
        """Return the rows of the next step."""
        ids = np.full((self.rows, self.length), self.pad_id, dtype=np.int64)
        documents = np.zeros((self.rows, self.length), dtype=np.int64)
        first, sources = self.position.rows, []
        for row in range(self.rows):
            start = number = 0
            while self.length - start >= self._minimum:
                source, text = self._next_text(self.length - start)
                number += 1
                ids[row, start : start + len(text)] = text
                documents[row, start : start + len(text)] = number
                start += len(text)
                sources.append(source)
        self.position = Position(**asdict(self.position) | {"rows": first + self.rows})
        return PackedRows(torch.from_numpy(ids), torch.from_numpy(documents), first, sources)

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes."""
        return asdict(self.position)

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a saved position."""
        self.position = Position(**state)
        self._order = self._shuffled(self.position.epochs)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.tokens))

    def _next_text(self, room: int) -> tuple[int, list[int]]:
        """Return the number of the next document, and as much of it as fits into `room` tokens."""
        at, template = self.position, self.template
        source = int(self._order[at.document])
        left = self.tokens[source][at.offset :]
        whole = len(template.before) + len(left) + len(template.after) <= room
        if whole:
            text, after = left, template.after
            epochs, document = divmod(at.document + 1, len(self._order))
            changes = {"epochs": at.epochs + epochs, "document": document, "offset": 0}
        else:
            after = template.after_cut
            text = left[: room - len(template.before) - len(after)]
            changes = {"offset": at.offset + len(text)}
        self.position = Position(**asdict(at) | changes)
        if self.position.epochs > at.epochs:
            self._order = self._shuffled(self.position.epochs)
        return source, [*template.before, *text.tolist(), *after]
