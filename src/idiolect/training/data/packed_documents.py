"""Documents packed into rows of one length, in an order that a few numbers describe.

What is notable:

- A row is filled with whole documents; the one that meets its end goes on in the next row, as a
  text of its own. Attention and positions stay within a document (see `PackedRows.documents`),
  so nothing leaks from one to the next and hardly anything is padding.
- Each pass goes through the documents in another random order, which follows from the seed and the
  number of the pass alone. `Position` therefore says all there is to say about where a run stands.
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
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.data.token_file import TokenFile

__all__ = ["PackedDocuments", "PackedRows", "Position", "TextTemplate"]


@dataclass(frozen=True)
class TextTemplate:
    """What stands before and after the ids of a text."""

    before: tuple[int, ...]
    """Before each text, also before the rest of one that was cut."""
    after: tuple[int, ...]
    """After each text."""
    after_cut: tuple[int, ...] = ()
    """After a part of a text that goes on elsewhere."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, causal: bool) -> TextTemplate:
        """Read the tokenizer's own template.

        For a model that predicts the next token, a text also gets a token that starts it, from
        which its first token is predicted, and one that ends it, where the template is silent.
        Models that know one such token use it for both (GPT-2's <|endoftext|>).
        """
        bare = tokenizer.encode("a", special_tokens=False)
        full = tokenizer.encode("a")
        start = next(
            (i for i in range(len(full)) if bare and full[i : i + len(bare)] == bare), len(full)
        )
        before, after = tuple(full[:start]), tuple(full[start + len(bare) :])
        if not causal:
            return cls(before, after, after)
        end = tokenizer.eos_id
        first = tokenizer.bos_id if tokenizer.bos_id is not None else end
        if not before and first is not None:
            before = (first,)
        if not after and end is not None:
            after = (end,)
        return cls(before, after)


@dataclass(frozen=True)
class PackedRows:
    """Packed rows, before an objective has said what is to be predicted."""

    ids: Tensor
    """(rows, length), int64."""
    documents: Tensor
    """Ascending numbers of the documents in each row, 0 for padding. (rows, length)."""
    first: int
    """The number of the first row in the whole run."""
    sources: Sequence[int]
    """Which documents of the token file the rows hold, in order."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.ids)


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a run stands in its documents."""

    passes: int = 0
    """Passes completed."""
    document: int = 0
    """Place in the order of this pass."""
    offset: int = 0
    """Tokens of that document already used."""
    rows: int = 0
    """Rows given out since the start."""


class PackedDocuments:
    """An endless stream of packed rows.

    Args:
        tokens: The documents.
        frame: What stands before and after each text.
        length: Tokens a row.
        rows: How many rows a step takes.
        seed: Decides the order.
        pad_id: Fills the end of a row that is too short for another text.

    Raises:
        InputError: All documents together do not fill one row, or a row is too short for a frame.
    """

    def __init__(
        self,
        tokens: TokenFile,
        frame: TextTemplate,
        *,
        length: int,
        rows: int,
        seed: int = 0,
        pad_id: int | None = None,
    ) -> None:
        room = length - len(frame.before) - max(len(frame.after), len(frame.after_cut))
        if room < 1:
            raise InputError(f"rows of {length} tokens leave no room for text", hint="make longer")
        total = int(tokens.record["tokens"]) + len(tokens) * (len(frame.before) + len(frame.after))
        if total < length:
            raise InputError(
                f"the corpus has {total} tokens, less than one row of {length}",
                hint="give more text, or shorter rows",
            )
        self.tokens, self.frame, self.length, self.rows = tokens, frame, length, rows
        self.seed, self.pad_id = seed, pad_id or 0
        self.position = Position()
        # Rather than cut off a few tokens at a row's end, leave it: they would lack all context.
        self._least = length - room + min(32, max(1, length // 8))
        self._order = self._shuffled(0)

    def take(self) -> PackedRows:
        """Return the rows of the next step."""
        ids = np.full((self.rows, self.length), self.pad_id, dtype=np.int64)
        documents = np.zeros((self.rows, self.length), dtype=np.int64)
        first, sources = self.position.rows, []
        for row in range(self.rows):
            place = number = 0
            while self.length - place >= self._least:
                source, text = self._next_text(self.length - place)
                number += 1
                ids[row, place : place + len(text)] = text
                documents[row, place : place + len(text)] = number
                place += len(text)
                sources.append(source)
        self.position = Position(**asdict(self.position) | {"rows": first + self.rows})
        return PackedRows(torch.from_numpy(ids), torch.from_numpy(documents), first, sources)

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes."""
        return asdict(self.position)

    def restore(self, state: dict[str, Any]) -> None:
        """Go to where a run stood."""
        self.position = Position(**state)
        self._order = self._shuffled(self.position.passes)

    def _shuffled(self, passes: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, passes]).permutation(len(self.tokens))

    def _next_text(self, room: int) -> tuple[int, list[int]]:
        """Return a document, or as much of it as there is room for, and its number."""
        at, frame = self.position, self.frame
        source = int(self._order[at.document])
        left = self.tokens[source][at.offset :]
        whole = len(frame.before) + len(left) + len(frame.after) <= room
        if whole:
            text, after = left, frame.after
            passes, document = divmod(at.document + 1, len(self._order))
            moved = {"passes": at.passes + passes, "document": document, "offset": 0}
        else:
            after = frame.after_cut
            text = left[: room - len(frame.before) - len(after)]
            moved = {"offset": at.offset + len(text)}
        self.position = Position(**asdict(at) | moved)
        if self.position.passes > at.passes:
            self._order = self._shuffled(self.position.passes)
        return source, [*frame.before, *text.tolist(), *after]
