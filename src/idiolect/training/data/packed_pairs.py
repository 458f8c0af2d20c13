"""Pairs of translations packed into rows; the two sides of a pair are concatenated to one text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from idiolect.errors import InputError
from idiolect.text.templates.text_template import TextTemplate
from idiolect.training.data.packed_documents import Origin, PackedRows
from idiolect.training.data.token_file import TokenFile
from idiolect.training.progress import notice

__all__ = ["PackedPairs", "PairPosition"]


@dataclass(frozen=True, kw_only=True)
class PairPosition:
    """The position of a run in its pairs."""

    epochs: int = 0
    """Completed epochs."""
    pair: int = 0
    """Index of the next pair in this epoch's order."""
    rows: int = 0
    """Rows returned since the start of the run."""


class PackedPairs:
    """An endless stream of rows of whole pairs.

    Args:
        tokens: The texts and their translations, alternating.
        template: The special tokens around each side.
        length: Tokens per row.
        rows: Rows per step.
        seed: Random seed of the order.
        pad_id: Fills the end of a row.
        languages: The languages of the two sides.
        name: Name of the pairs in messages.

    Raises:
        InputError: No pair fits into a row.
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
        languages: tuple[str | None, str | None] = (None, None),
        name: str = "the corpus",
    ) -> None:
        self.tokens, self.template, self.length, self.rows = tokens, template, length, rows
        self.seed, self.pad_id, self.languages = seed, pad_id or 0, languages
        special = len(template.before) + len(template.after)
        sizes = np.array([len(tokens[i]) for i in range(len(tokens))], np.int64)
        self._sizes = sizes.reshape(-1, 2).sum(1) + 2 * special
        self._fitting = (self._sizes <= length).nonzero()[0]
        if not len(self._fitting):
            raise InputError(
                f"none of the {len(self._sizes):,} pairs of {name} fits into {length} tokens",
                hint="raise max_length, or divide the texts",
            )
        if left_out := len(self._sizes) - len(self._fitting):
            longest = (self._sizes > length).nonzero()[0][:3] + 1
            notice(
                f"{left_out:,} of the {len(self._sizes):,} pairs of {name} have more than {length} "
                f"tokens and are left out (the first: {', '.join(map(str, longest))})"
            )
        self.position = PairPosition()
        self._order = self._shuffled(0)

    def take(self, count: int | None = None) -> PackedRows:
        """Return the rows of the next step; see `PackedDocuments.take`."""
        count = self.rows if count is None else count
        ids = np.full((count, self.length), self.pad_id, np.int64)
        documents, segments = np.zeros_like(ids), np.zeros_like(ids)
        at, first, origins = self.position, self.position.rows, []
        epochs, place = at.epochs, at.pair
        for row in range(count):
            start = number = 0
            while self._sizes[pair := int(self._order[place])] <= self.length - start:
                number += 1
                for side in (0, 1):
                    text = self._side(2 * pair + side)
                    stop = start + len(text)
                    ids[row, start:stop], documents[row, start:stop] = text, number
                    segments[row, start:stop] = side
                    start = stop
                origins.append(Origin(pair, 0, epochs))
                place += 1
                if place == len(self._order):
                    epochs, place = epochs + 1, 0
                    self._order = self._shuffled(epochs)
        self.position = PairPosition(epochs=epochs, pair=place, rows=first + count)
        return PackedRows(
            torch.from_numpy(ids),
            torch.from_numpy(documents),
            first,
            [origin.document for origin in origins],
            origins,
            languages=[self.languages] * count,
            segment_ids=torch.from_numpy(segments),
        )

    def state(self) -> dict[str, Any]:
        """Return the position, for `restore`."""
        return asdict(self.position)

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a saved position."""
        self.position = PairPosition(**state)
        self._order = self._shuffled(self.position.epochs)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(self._fitting)

    def _side(self, document: int) -> NDArray[np.int64]:
        template, text = self.template, self.tokens[document]
        return np.concatenate([template.before, text, template.after]).astype(np.int64)
